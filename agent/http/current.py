"""`/api/v1/metrics/current`: the newest value of every series, straight from the hub, under its name in history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agent.core.clock import NS
from agent.core.labels import METRIC_NAME, Labels, Matcher, select, value_of, without_name
from agent.core.model import Group, Reading, Tick
from agent.http.encoding import labels_json, number, to_json
from sinks.history.naming import Names

_MOST_REMEMBERED: Final = 20_000  # series heads kept; beyond, all are made anew

# (place among the values, label set, JSON text up to the value, factor) of each field of a series of a Group
_Head = tuple[int, Labels, str, float]


class CurrentValues:
    """Encodes snapshots; remembers what does not change about a series."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._heads: dict[tuple[Group, tuple[str, ...]], list[_Head]] = {}

    def encode(self, ticks: Sequence[Tick], wanted: Sequence[tuple[Matcher, ...]]) -> list[str]:
        """One JSON object a series that any of the selectors takes; all where there are none."""
        found: list[str] = []
        for tick in ticks:
            tail = f',"time":{_seconds(tick.time_ns)},"collector":{to_json(tick.collector)}}}'
            for reading in tick.readings:
                values = reading.values
                for place, labels, head, scale in self._heads_of(reading):
                    value = values[place]
                    if value is None or isinstance(value, str):
                        continue
                    if wanted and not any(select(labels, matchers) for matchers in wanted):
                        continue
                    found.append(f"{head}{_json_number(value * scale)}{tail}")
        return found

    def _heads_of(self, reading: Reading) -> list[_Head]:
        key = reading.group, reading.tags
        known = self._heads.get(key)
        if known is None:
            if len(self._heads) >= _MOST_REMEMBERED:
                self._heads.clear()
            known = self._heads[key] = [
                (named.place, named.labels, _head(named.labels, reading.group.fields[named.place].unit), named.scale)
                for named in self._names.of(reading.group, reading.tags)
            ]
        return known


def _head(labels: Labels, unit: str) -> str:
    name = to_json(value_of(labels, METRIC_NAME))
    return f'{{"metric":{name},"labels":{labels_json(without_name(labels))},"unit":{to_json(unit)},"value":'


def _json_number(value: float) -> str:
    """The value as a JSON number; null for what JSON has no number for."""
    if isinstance(value, int):
        return str(int(value))
    return number(value) if value - value == 0 else "null"


def _seconds(time_ns: int) -> str:
    whole, rest = divmod(time_ns // 1_000_000, NS // 1_000_000)
    return f"{whole}.{rest:03d}" if rest else str(whole)
