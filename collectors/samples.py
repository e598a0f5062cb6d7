"""Parsed families of metrics as Readings, in both dialects.

In line protocol a metric looks as Telegraf's `prometheus` input writes it (metric_version = 1): the measurement is the
metric's name, the field is `counter`, `gauge` or `value`; a histogram has one field a bucket, a summary one a quantile,
both `count` and `sum`. On /metrics each sample is a series of its own name; the parts of a histogram or summary stay
one family.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agent.core.model import Field, Group, Reading, Tag, Value, counter, gauge, histogram_part, summary_part, untyped
from collectors.prom_text import Family, Sample

_INFLUX_FIELD = {"counter": "counter", "gauge": "gauge", "untyped": "value"}
_DECLARE = {"counter": counter, "gauge": gauge, "untyped": untyped}
_PARTS = {"histogram": histogram_part, "summary": summary_part}
_SPARE_GROUPS = 256  # groups out of use that may stay before they are forgotten

Rows = dict[tuple[Group, tuple[str, ...]], tuple[Value, ...]]
Shape = tuple[str, str, tuple[str, ...], tuple[str, ...]]


class SampleGroups:
    """Families to Readings; the same metric with the same label names always gives the same Group object.

    `first` are tags that every series has before its labels; their values are given with the families. A label of the
    same name is called `exported_<name>` on /metrics, as Prometheus does it, and gives way in line protocol. `reserved`
    are further label names to treat so.
    """

    def __init__(self, first: tuple[Tag, ...] = (), reserved: Iterable[str] = ()) -> None:
        self._first = first
        self._taken = frozenset(reserved) | {tag.prom for tag in first}
        self._taken_influx = frozenset(tag.influx for tag in first)
        self._groups: dict[Shape, Group] = {}
        self._used: set[Shape] = set()

    def readings(self, families: Iterable[Family], values: tuple[str, ...] = ()) -> list[Reading]:
        """One Reading a series; of two lines for one series the last counts."""
        rows: Rows = {}
        for family in families:
            if family.type in {"histogram", "summary"}:
                self._add_parts(rows, family, values)
                self._add_points(rows, family, values)
            else:
                for sample in family.samples:
                    group = self._single(family, sample.label_names)
                    rows[group, values + sample.label_values] = (sample.value,)
        return [Reading(group, tags, numbers) for (group, tags), numbers in rows.items()]

    def forget_unused(self) -> None:
        """Drop Groups that have not been used since the last call, when they have become many."""
        if len(self._groups) > len(self._used) + _SPARE_GROUPS:
            self._groups = {shape: group for shape, group in self._groups.items() if shape in self._used}
        self._used.clear()

    def _tags(self, label_names: tuple[str, ...]) -> Iterator[Tag]:
        yield from self._first
        for name in label_names:
            prom = f"exported_{name}" if name in self._taken else name
            yield Tag("" if name in self._taken_influx else name, prom)

    def _group(self, shape: Shape, measurement: str, fields: Iterable[Field], label_names: tuple[str, ...]) -> Group:
        self._used.add(shape)
        group = self._groups.get(shape)
        if group is None:
            group = self._groups[shape] = Group(measurement, fields, self._tags(label_names))
        return group

    def _single(self, family: Family, label_names: tuple[str, ...]) -> Group:
        """A counter, a gauge or an untyped metric: one Group for both dialects."""
        shape = (family.name, family.type, label_names, ())
        group = self._groups.get(shape)
        if group is not None:
            self._used.add(shape)
            return group
        name = family.name
        one = _DECLARE[family.type]("value", "value", _help(family), influx=_INFLUX_FIELD[family.type], prom=name)
        return self._group(shape, name, (one,), label_names)

    def _add_parts(self, rows: Rows, family: Family, values: tuple[str, ...]) -> None:
        """The series of a histogram or summary as /metrics shows them."""
        for sample in family.samples:
            shape = (sample.name, family.type, sample.label_names, ("/metrics",))
            group = self._groups.get(shape)
            if group is None:
                one = _PARTS[family.type]("value", "value", _help(family), prom=sample.name, family=family.name)
                group = self._group(shape, sample.name, (one,), sample.label_names)
            self._used.add(shape)
            rows[group, values + sample.label_values] = (sample.value,)

    def _add_points(self, rows: Rows, family: Family, values: tuple[str, ...]) -> None:
        """The points of a histogram or summary as Telegraf writes them: one for each set of the other labels."""
        bound = "le" if family.type == "histogram" else "quantile"
        points: dict[tuple[tuple[str, ...], tuple[str, ...]], dict[str, float]] = {}
        for sample in family.samples:
            names, tags = _without(bound, sample)
            key = _part(sample, family, bound)
            points.setdefault((names, tags), {})[key] = sample.value
        part = f"{family.name}_bucket" if bound == "le" else family.name
        for (names, tags), point in points.items():
            shape = (family.name, family.type, names, tuple(point))
            group = self._groups.get(shape)
            if group is None:
                twins = {"count": f"{family.name}_count", "sum": f"{family.name}_sum"}
                group = self._group(
                    shape,
                    family.name,
                    [untyped(key, "value", _help(family), influx=key, twin=twins.get(key, part)) for key in point],
                    names,
                )
            self._used.add(shape)
            rows[group, values + tags] = tuple(point.values())


def _part(sample: Sample, family: Family, bound: str) -> str:
    """Telegraf's field for one sample of a histogram or summary."""
    if bound in sample.label_names and sample.name in {family.name, f"{family.name}_bucket"}:
        return go_float(float(sample.label_values[sample.label_names.index(bound)]))
    return sample.name.removeprefix(family.name).lstrip("_") or "value"


def _without(label: str, sample: Sample) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if label not in sample.label_names:
        return sample.label_names, sample.label_values
    at = sample.label_names.index(label)
    return (
        sample.label_names[:at] + sample.label_names[at + 1 :],
        sample.label_values[:at] + sample.label_values[at + 1 :],
    )


def _help(family: Family) -> str:
    return family.help or ""


def go_float(number: float) -> str:
    """A number as Go prints it, which is how Telegraf names the fields of buckets: 0.5, 10, 1e+06, +Inf."""
    if number != number:
        return "NaN"
    if number in {float("inf"), float("-inf")}:
        return "+Inf" if number > 0 else "-Inf"
    text = next(text for digits in range(18) if float(text := f"{number:.{digits}e}") == number)
    if -4 <= int(text.partition("e")[2]) < 6:
        return repr(number).removesuffix(".0")  # repr() uses no exponent between these bounds
    return text
