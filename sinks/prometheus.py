"""The newest readings as Prometheus text and OpenMetrics, as node_exporter shows them.

Formats: prometheus.io "Exposition formats" (text 0.0.4) and the OpenMetrics 1.0 specification. All families and samples
of a snapshot are one format string, made anew only when a series comes or goes, so a scrape is one format call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any, Literal

from agent.core.model import Field, Group, Tick
from agent.core.pick import picker

Dialect = Literal["text", "openmetrics"]

_LABEL_VALUE = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
_HELP_TEXT = str.maketrans({"\\": "\\\\", "\n": "\\n"})
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


@dataclass(slots=True)
class _Row:
    """A reading of the snapshot the plan was made for."""

    group: Group
    tags: tuple[str, ...]
    start: int  # where its values begin among all values of the snapshot


@dataclass(slots=True)
class _Sample:
    """One line to be: its text up to the value and where the value comes from."""

    head: str
    place: int
    field: Field


@dataclass(slots=True)
class _Family:
    name: str
    kind: str
    help: str
    samples: dict[str, _Sample] = field(default_factory=dict)  # by head, so that a label set emitted twice is one line


class Exposition:
    """Renders snapshots. `duplicates`: samples merged into another of the same name and labels in the newest plan."""

    def __init__(self) -> None:
        self._plans: dict[Dialect, _Plan] = {}

    def render(self, ticks: Sequence[Tick], dialect: Dialect = "text") -> str:
        """The whole exposition of the newest Tick of each collector."""
        rows = [reading for tick in ticks for reading in tick.readings if reading.group.in_prom]
        values: list[Any] = []
        for reading in rows:
            values.extend(reading.values)
        plan = self._plans.get(dialect)
        if plan is None or not plan.fits(rows, values):
            plan = self._plans[dialect] = _Plan(rows, values, dialect)
        return plan.render(values)

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
        self, rows: Iterable[tuple[Group, tuple[str, ...], Any]], values: Sequence[Any], dialect: Dialect
    ) -> None:
        self._rows: list[_Row] = []
        self.duplicates = 0
        self._absent: list[int] = []
        families = self._families(rows, values)
        samples = [sample for name in sorted(families) for sample in families[name].samples.values()]
        self.samples = len(samples)
        self._pick = picker([sample.place for sample in samples])
        self._convert = [
            (at, sample.field.scale)
            for at, sample in enumerate(samples)
            if sample.field.scale != 1.0 or sample.field.type is bool
        ]
        self._format = "".join(_family_text(families[name], dialect) for name in sorted(families))
        if dialect == "openmetrics":
            self._format += "# EOF\n"

    def _families(
        self, rows: Iterable[tuple[Group, tuple[str, ...], Any]], values: Sequence[Any]
    ) -> dict[str, _Family]:
        families: dict[str, _Family] = {}
        at = 0
        for group, tags, _ in rows:
            self._rows.append(_Row(group, tags, at))
            for place, declared in enumerate(group.fields, at):
                if declared.prom is None or declared.type is str or not _NAME.fullmatch(declared.prom):
                    continue
                if values[place] is None:
                    self._absent.append(place)
                    continue
                name = declared.family or declared.prom
                family = families.get(name)
                if family is None:
                    family = families[name] = _Family(name, declared.kind, declared.help)
                head = declared.prom + _label_text(group, tags, declared)
                self.duplicates += head in family.samples
                family.samples[head] = _Sample(head, place, declared)
            at += len(group.fields)
        return families

    def fits(self, rows: Sequence[tuple[Group, tuple[str, ...], Any]], values: Sequence[Any]) -> bool:
        """True when the snapshot has the very series this plan was made for."""
        if len(rows) != len(self._rows):
            return False
        for (group, tags, _), known in zip(rows, self._rows, strict=True):
            if group is not known.group or tags != known.tags:
                return False
        return None not in self._pick(values) and all(values[place] is None for place in self._absent)

    def render(self, values: Sequence[Any]) -> str:
        picked = list(self._pick(values))
        for at, scale in self._convert:
            picked[at] = picked[at] * scale if scale != 1.0 else int(picked[at])
        if not isfinite(sum(picked)):
            picked = [value if isfinite(value) else _special(value) for value in picked]
        return self._format % tuple(picked)


def _family_text(family: _Family, dialect: Dialect) -> str:
    """HELP, TYPE and the sample lines of one family, `%s` where values go."""
    name, kind = family.name, family.kind
    if dialect == "openmetrics":
        if kind == "counter":  # OpenMetrics names the family without _total and knows no other counters
            name, kind = (name.removesuffix("_total"), kind) if name.endswith("_total") else (name, "unknown")
        elif kind == "untyped":
            kind = "unknown"
    help = family.help.translate(_HELP_TEXT if dialect == "text" else _LABEL_VALUE)
    head = f"# HELP {name} {help}\n# TYPE {name} {kind}\n".replace("%", "%%")
    return head + "".join(f"{sample.head.replace('%', '%%')} %s\n" for sample in family.samples.values())


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
