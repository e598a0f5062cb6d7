"""The Flux of the downsampling tasks, made from the Groups.

A gauge becomes its mean under its own name, so that dashboards need not care, and its extremes as `<field>.min` and
`<field>.max` (`<field>_max` may be another field: ip_conntrack_max). Everything else becomes its last value, which is
right for counters, states and texts, and the only thing that fits fields nobody declared (of exec scripts).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from agent.core.model import Field, Group

MIN, MAX = ".min", ".max"
_WINDOWS_BACK = 3  # computed again each time: readings that were late are counted, and the same points are overwritten
_NO_MEAN = frozenset({"code", "info", "bool"})  # units of numbers that are names of states


@dataclass(frozen=True, slots=True)
class Step:
    """One task: what it reads, what it writes, and how often. Durations as Flux writes them."""

    source: str
    target: str
    every: str
    offset: str  # how long after the end of a window it runs
    is_first: bool  # reads what the agents wrote, not another task

    @property
    def name(self) -> str:
        return f"vigilhost: {self.source} to {self.target}"


def means(groups: Iterable[Group]) -> dict[str, list[str]]:
    """The gauges that have a mean: fields by measurement, both in order of the alphabet.

    A field that another Group of the measurement declares as something else is none of them.
    """
    kinds: dict[tuple[str, str], set[bool]] = {}
    for group in groups:
        for field in group.fields:
            if field.influx and "*" not in field.influx:
                kinds.setdefault((group.measurement, field.influx), set()).add(has_mean(field))
    found: dict[str, list[str]] = {}
    for (measurement, name), answers in sorted(kinds.items()):
        if answers == {True}:
            found.setdefault(measurement, []).append(name)
    return found


def has_mean(field: Field) -> bool:
    """Does the average over a window say something about the field?"""
    is_number = field.kind == "gauge" and field.type in (int, float) and field.unit not in _NO_MEAN
    return is_number and not field.name.endswith("timestamp_seconds")


def task(step: Step, gauges: Mapping[str, list[str]]) -> str:
    """The script of one task."""
    return "\n".join([*_head(step), *_predicates(step, gauges), *_streams(step), ""])


def _head(step: Step) -> Iterator[str]:
    yield "// Made by `vigilhost influx setup`, which replaces it when its declarations change."
    yield f"option task = {{name: {quoted(step.name)}, every: {step.every}, offset: {step.offset}}}"
    yield ""
    yield f"recent = from(bucket: {quoted(step.source)})"
    yield f"    |> range(start: -{_times(_WINDOWS_BACK, step.every)})"
    yield ""


def _predicates(step: Step, gauges: Mapping[str, list[str]]) -> Iterator[str]:
    yield "isGauge = (r) =>"
    yield from _any_of(_measurement(name, fields) for name, fields in gauges.items())
    if not step.is_first:
        for word, suffix in (("isLeast", MIN), ("isMost", MAX)):
            yield f"{word} = (r) => r._field =~ /{re.escape(suffix)}$/"
    yield ""


def _any_of(conditions: Iterable[str]) -> Iterator[str]:
    lines = [f"    {condition}" for condition in conditions] or ["    false"]
    yield from (line + (" or" if at < len(lines) - 1 else "") for at, line in enumerate(lines))


def _measurement(name: str, fields: list[str]) -> str:
    """`(r._measurement == "mem" and r._field =~ /^(free|used)$/)`: the storage engine answers both by itself."""
    pattern = "|".join(re.escape(field).replace("/", r"\/") for field in fields)
    return f"(r._measurement == {quoted(name)} and r._field =~ /^({pattern})$/)"


def _streams(step: Step) -> Iterator[str]:
    """One stream a way of summing up; each is written by itself, because their values differ in type."""
    gauge = "isGauge(r: r)"
    yield from _stream(step, gauge, "mean", "")
    if step.is_first:
        yield from _stream(step, gauge, "min", MIN)
        yield from _stream(step, gauge, "max", MAX)
        rest = f"not {gauge}"
    else:
        yield from _stream(step, "isLeast(r: r)", "min", "")
        yield from _stream(step, "isMost(r: r)", "max", "")
        rest = f"not {gauge} and not isLeast(r: r) and not isMost(r: r)"
    yield from _stream(step, rest, "last", "")


def _stream(step: Step, which: str, function: str, suffix: str) -> Iterator[str]:
    yield "recent"
    yield f"    |> filter(fn: (r) => {which})"
    # Windows are called by their start, so that those of five minutes lie within their hour.
    yield f'    |> aggregateWindow(every: {step.every}, fn: {function}, createEmpty: false, timeSrc: "_start")'
    if suffix:
        yield f"    |> map(fn: (r) => ({{r with _field: r._field + {quoted(suffix)}}}))"
    yield f"    |> to(bucket: {quoted(step.target)})"
    yield ""


def quoted(text: str) -> str:
    """A Flux string. `${` would be put in, so its dollar sign is escaped as well."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("${", "\\${")
    return f'"{escaped}"'


def _times(count: int, every: str) -> str:
    """`3` times `5m` is `15m`; `every` has one unit."""
    match = re.fullmatch(r"(\d+)([a-z]+)", every)
    if match is None:
        raise ValueError(f"{every!r} is not a duration of one unit; write it like 5m")
    return f"{count * int(match[1])}{match[2]}"
