"""The words of measuring: Group, Field, Reading, Failed, Tick.

A Group declares once what a collector emits; line protocol, /metrics, history, the manual and the rule checker all
derive from it. Two dialects are spoken: Telegraf's (`influx` names) and node_exporter's (`prom` names). A field that
lacks a name in a dialect does not appear there, so a Group may belong to one dialect or to both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from operator import itemgetter
from typing import Literal, NamedTuple

Kind = Literal["gauge", "counter", "untyped", "histogram", "summary"]  # Prometheus' metric types
FieldType = type[int] | type[float] | type[bool] | type[str]
Value = int | float | bool | str | None

# Every unit a field may have, and the type its values have unless the field says otherwise.
UNITS: Mapping[str, FieldType] = {
    "bytes": int,
    "count": int,
    "pages": int,
    "bits": int,
    "code": int,
    "milliseconds": int,
    "megabits_per_second": int,
    "seconds": float,
    "percent": float,
    "ratio": float,
    "celsius": float,
    "hertz": float,
    "volts": float,
    "amperes": float,
    "watts": float,
    "joules": float,
    "rpm": float,
    "info": int,
    "bool": int,
    "load": float,
    "text": str,
    "value": float,
}


@dataclass(frozen=True, slots=True)
class Field:
    """One measured quantity of a Group."""

    name: str
    kind: Kind
    unit: str
    help: str
    type: FieldType
    influx: str | None = None  # field key in line protocol
    prom: str | None = None  # metric name on /metrics and in history
    scale: float = 1.0  # Prometheus value = value * scale (Telegraf counts disk time in ms, node_exporter in seconds)
    labels: tuple[tuple[str, str], ...] = ()  # constant Prometheus labels, e.g. mode="user"
    family: str | None = None  # the metric family where it is not `prom` itself (x_bucket belongs to x)
    twin: str | None = None  # the Prometheus series that says the same under other labels; history keeps only that one

    @property
    def is_numeric(self) -> bool:
        return self.type is not str


def _field(
    kind: Kind,
    name: str,
    unit: str,
    help: str,
    *,
    type: FieldType | None = None,
    influx: str | None = None,
    prom: str | None = None,
    scale: float = 1.0,
    labels: Mapping[str, str] | None = None,
    family: str | None = None,
    twin: str | None = None,
) -> Field:
    """Declare a Field; `type` is the unit's unless given. Raise ValueError when the declaration is wrong."""
    if unit not in UNITS:
        raise ValueError(f"{name}: unit {unit!r} is not one of {', '.join(UNITS)}")
    if not (influx or prom):
        raise ValueError(f"{name}: no public name; give influx=, prom= or both")
    fixed = tuple(sorted((labels or {}).items()))
    return Field(name, kind, unit, help, type or UNITS[unit], influx, prom, scale, fixed, family, twin)


gauge = partial(_field, "gauge")  # goes up and down
counter = partial(_field, "counter")  # only grows, or starts again from zero
untyped = partial(_field, "untyped")  # the source does not tell (node_exporter's vmstat and netstat)
histogram_part = partial(_field, "histogram")  # a bucket, the sum or the count; `family` names the whole
summary_part = partial(_field, "summary")  # a quantile, the sum or the count; `family` names the whole


class Tag(NamedTuple):
    """A dimension of a Group: the tag key in line protocol, the label name on /metrics."""

    influx: str
    prom: str


def tag(influx: str, *, prom: str) -> Tag:
    """A dimension that the two dialects call by different names."""
    return Tag(influx, prom)


# Sets of keys kept by one open Group: a source whose keys change each second must not fill memory.
_MOST_EXPANSIONS = 64
_NUMBERS = frozenset({int, float, bool, type(None)})  # themselves: a subclass may be anything, and codecs refuse it
_TEXTS = frozenset({str, type(None)})


class Group:
    """What one source emits at one moment: a measurement, its tags, its fields.

    Compared by identity: everything cached about a series (its line-protocol prefix, its exposition text, its history
    columns) hangs on the Group object and the tag values, so a collector keeps its Groups for as long as it lives.
    """

    def __init__(self, measurement: str, fields: Iterable[Field], tags: Iterable[str | Tag] = ()) -> None:
        self.measurement = measurement
        self.fields = tuple(fields)
        self.tags = tuple(Tag(t, t) if isinstance(t, str) else t for t in tags)
        self.names = tuple(field.name for field in self.fields)
        self._known = frozenset(self.names)
        self._expanded: dict[tuple[str, ...], Group] = {}
        if len(self._known) != len(self.names):
            raise ValueError(f"{measurement}: a field is declared twice")

    def __repr__(self) -> str:
        return f"Group({self.measurement!r}, {len(self.fields)} fields, tags={[t.influx for t in self.tags]})"

    def read(self, *tags: str, **values: Value) -> Reading:
        """A Reading of this Group; fields that are not given are absent. Raise TypeError for a field not declared."""
        if not values.keys() <= self._known:
            unknown = ", ".join(sorted(values.keys() - self._known))
            raise TypeError(f"{self.measurement}: no such field: {unknown}")
        return Reading(self, tags, tuple(map(values.get, self.names)))

    def row(self, tags: tuple[str, ...], values: tuple[Value, ...]) -> Reading:
        """A Reading from values already in declared order: the cheap form, for collectors that run each second."""
        return Reading(self, tags, values)

    def expand(
        self,
        keys: Iterable[str],
        *,
        prom: Callable[[str], bool] = lambda _: True,
        twin: Callable[[str], str | None] = lambda _: None,
    ) -> Group:
        """The Group whose single `*` field stands for one field a key (the kernel decides which keys there are).

        `prom` tells which keys have a Prometheus name, `twin` the series that says the same elsewhere. The same keys
        give the same Group object.
        """
        wanted = tuple(keys)
        if wanted not in self._expanded:
            if len(self._expanded) >= _MOST_EXPANSIONS:
                self._expanded.clear()
            star = self.fields[0]
            self._expanded[wanted] = Group(
                self.measurement,
                (
                    replace(star, name=key, influx=star.influx and star.influx.replace("*", key),
                            prom=star.prom.replace("*", key) if star.prom and prom(key) else None,
                            twin=twin(key) or star.twin)
                    for key in wanted
                    if star.influx or (star.prom and prom(key))
                ),
                self.tags,
            )  # fmt: skip
        return self._expanded[wanted]

    def check(self, reading: Reading) -> None:
        """Raise TypeError where a Reading has not the tags and values that this Group declares."""
        _, tags, values = reading
        if type(tags) is not tuple or len(tags) != len(self.tags) or not {str}.issuperset(map(type, tags)):
            keys = ", ".join(tag.influx for tag in self.tags) or "none"
            raise TypeError(f"{self.measurement}: tags are {tags!r}; give a tuple of texts for {keys}")
        if type(values) is not tuple or len(values) != len(self.fields):
            names = ", ".join(self.names)
            raise TypeError(f"{self.measurement}: {len(values)} values; give a tuple of {len(self.fields)} for {names}")
        if not _NUMBERS.issuperset(map(type, values)):
            for declared, value in zip(self.fields, values, strict=True):
                if type(value) not in (_NUMBERS if declared.is_numeric else _TEXTS):
                    wanted = "an int, float or bool" if declared.is_numeric else "a str"
                    raise TypeError(f"{self.measurement}: {declared.name} is {value!r}, a {type(value).__name__}; "
                                    f"give {wanted}, or None where it is absent")  # fmt: skip

    @cached_property
    def in_influx(self) -> bool:
        """True when any field has a line-protocol name."""
        return any(field.influx for field in self.fields)

    @cached_property
    def in_prom(self) -> bool:
        """True when any field has a Prometheus name."""
        return any(field.prom for field in self.fields)


class Reading(NamedTuple):
    """The values of one series of a Group: tag values and field values in declared order; None is absent."""

    group: Group
    tags: tuple[str, ...]
    values: tuple[Value, ...]

    def as_dict(self) -> dict[str, Value]:
        """The present fields by name, for people and tests."""
        return {name: value for name, value in zip(self.group.names, self.values, strict=True) if value is not None}


series_of = itemgetter(0, 1)  # of a Reading its series, a Group and tag values; in C, for whoever takes every Reading
values_of = itemgetter(2)


class Failed(NamedTuple):
    """A target (a mount, a host, a script) that could not be read this time; its series are held, not gone.

    A series belongs to the target when one of its tag values equals `target`.
    """

    target: str
    reason: str


@dataclass(slots=True)
class Tick:
    """Everything one collector said for one slot.

    A series absent from a Tick is gone, unless one of `failed` names its target.
    """

    time_ns: int  # the slot, Unix time
    collector: str
    readings: list[Reading]
    failed: tuple[Failed, ...] = ()
