"""The newest readings as Prometheus text and OpenMetrics, as node_exporter shows them.

Formats: prometheus.io "Exposition formats" (text 0.0.4) and the OpenMetrics 1.0 specification. All families and samples
of a snapshot are one format string, made anew only when a series comes or goes, so a scrape is one format call. On a
busy host some come and go all the time (the state of a process, the names of the largest); then the lines of the rest
are put together again from their texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import inf, isfinite
from typing import Any, Literal, NamedTuple

from agent.core.model import Field, Group, Kind, Reading, Tick, series_of, values_of
from agent.core.pick import picker

Dialect = Literal["text", "openmetrics"]

_LABEL_VALUE = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
_HELP_TEXT = str.maketrans({"\\": "\\\\", "\n": "\\n"})
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


class _Line(NamedTuple):
    """A sample of a series: its text up to the value, as part of a format string, and where the value comes from."""

    offset: int  # among the values of the reading
    head: str
    field: Field


_Series = tuple[Group, tuple[str, ...]]


@dataclass(slots=True)
class _Family:
    first: Field  # of several that differ, its kind and help count
    # By head, so that a label set emitted twice is one line: the place of the value.
    samples: dict[str, tuple[int, Field]] = field(default_factory=dict)


class Exposition:
    """Renders snapshots. `duplicates`: samples merged into another of the same name and labels in the newest plan."""

    def __init__(self) -> None:
        self._plans: dict[Dialect, _Plan] = {}
        self._lines: dict[_Series, tuple[_Line, ...]] = {}

    def render(self, ticks: Sequence[Tick], dialect: Dialect = "text") -> str:
        """The whole exposition of the newest Tick of each collector."""
        readings: list[Reading] = [one for tick in ticks for one in tick.readings if one.group.in_prom]
        series: list[_Series] = list(map(series_of, readings))
        values: list[Any] = list(chain.from_iterable(map(values_of, readings)))
        plan = self._plans.get(dialect)
        if plan is None or not plan.fits(series, values):
            plan = self._plans[dialect] = _Plan(series, self._lines_of(series), values, dialect)
        return plan.render(values)

    def _lines_of(self, series: Sequence[_Series]) -> list[tuple[_Line, ...]]:
        """The lines of each series; those of series that are gone are forgotten."""
        self._lines = {one: self._lines.get(one) or _lines(*one) for one in series}
        return [self._lines[one] for one in series]

    @property
    def duplicates(self) -> int:
        return max((plan.duplicates for plan in self._plans.values()), default=0)

    @property
    def samples(self) -> int:
        """Lines with a value in the newest exposition."""
        return max((plan.samples for plan in self._plans.values()), default=0)


class _Plan:
    """The format string for one set of series."""

    def __init__(
        self, series: list[_Series], lines: Iterable[Iterable[_Line]], values: Sequence[Any], dialect: Dialect
    ) -> None:
        self._series = series
        self.duplicates = 0
        self._absent: list[int] = []
        families = self._families(lines, values)
        names = sorted(families)
        samples = [sample for name in names for sample in families[name].samples.values()]
        self.samples = len(samples)
        self._pick = picker([place for place, _ in samples])
        self._convert = [
            (at, declared.scale)
            for at, (_, declared) in enumerate(samples)
            if declared.scale != 1.0 or declared.type is bool
        ]
        self._format = "".join([_family_text(name, families[name], dialect) for name in names])
        if dialect == "openmetrics":
            self._format += "# EOF\n"

    def _families(self, lines: Iterable[Iterable[_Line]], values: Sequence[Any]) -> dict[str, _Family]:
        families: dict[str, _Family] = {}
        at = 0  # where the values of the series begin among all of the snapshot
        for (group, _), of_series in zip(self._series, lines, strict=True):
            for offset, head, declared in of_series:
                place = at + offset
                if values[place] is None:
                    self._absent.append(place)
                    continue
                name = declared.family or declared.prom or ""
                family = families.get(name)
                if family is None:
                    family = families[name] = _Family(declared)
                self.duplicates += head in family.samples
                family.samples[head] = place, declared
            at += len(group.fields)
        return families

    def fits(self, series: list[_Series], values: Sequence[Any]) -> bool:
        """True when the snapshot has the very series this plan was made for."""
        if series != self._series:
            return False
        return None not in self._pick(values) and all(values[place] is None for place in self._absent)

    def render(self, values: Sequence[Any]) -> str:
        picked = list(self._pick(values))
        for at, scale in self._convert:
            picked[at] = picked[at] * scale if scale != 1.0 else int(picked[at])
        if not isfinite(sum(picked)):
            picked = [value if isfinite(value) else _special(value) for value in picked]
        return self._format % tuple(picked)


def _family_text(name: str, family: _Family, dialect: Dialect) -> str:
    """HELP, TYPE and the sample lines of one family, `%s` where values go."""
    kind = family.first.kind if dialect == "text" else _kind_in_openmetrics(name, family.first.kind)
    if dialect == "openmetrics" and kind == "counter":  # it names the family without _total
        name = name.removesuffix("_total")
    help = family.first.help.translate(_HELP_TEXT if dialect == "text" else _LABEL_VALUE)
    head = f"# HELP {name} {help}\n# TYPE {name} {kind}\n".replace("%", "%%")
    return head + " %s\n".join([*family.samples, ""])


def _kind_in_openmetrics(name: str, kind: Kind) -> str:
    """It knows no counters but those whose name ends in _total."""
    if kind == "untyped" or (kind == "counter" and not name.endswith("_total")):
        return "unknown"
    return kind


def _lines(group: Group, tags: tuple[str, ...]) -> tuple[_Line, ...]:
    """What of a reading has a place in the format."""
    return tuple(
        _Line(offset, (declared.prom + _label_text(group, tags, declared)).replace("%", "%%"), declared)
        for offset, declared in enumerate(group.fields)
        if declared.prom is not None and declared.type is not str and _NAME.fullmatch(declared.prom)
    )


def _label_text(group: Group, tags: tuple[str, ...], declared: Field) -> str:
    """`{device="sda",...}` in order of label names."""
    pairs = [(tag.prom, value) for tag, value in zip(group.tags, tags, strict=True) if tag.prom]
    labels = sorted({**dict(pairs), **dict(declared.labels)}.items())
    shown = [f'{name}="{value.translate(_LABEL_VALUE)}"' for name, value in labels if _LABEL_NAME.fullmatch(name)]
    return "{" + ",".join(shown) + "}" if shown else ""


def _special(value: float) -> str:
    if value == inf:
        return "+Inf"
    return "-Inf" if value == -inf else "NaN"
