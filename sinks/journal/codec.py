"""Ticks as bytes and back.

A collector mostly says the same series in the same order, so those are written once as a Shape, and a Tick is then its
values only. Groups and Shapes are called by a hash of their content: the same declaration has the same id in every
segment and every process.
"""

from __future__ import annotations

import dataclasses
import threading
from hashlib import blake2b
from itertools import starmap
from typing import Any, NamedTuple, cast
from weakref import WeakValueDictionary

import msgspec

from agent.core.model import Failed, Field, FieldType, Group, Reading, Tag, Tick, Value, series_of, values_of
from sinks.journal import frame
from sinks.journal.frame import Frame

_TYPES: dict[str, FieldType] = {"int": int, "float": float, "bool": bool, "str": str}
_FIELD_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Field)}
_NOT_AS_DECLARED = (msgspec.DecodeError, KeyError, IndexError, TypeError, ValueError)
_MOST_COLLECTORS = 4096  # remembered at a time; more only happens when their names change without end
_MOST_GROUPS = 4096

_Key = tuple[tuple[Group, tuple[str, ...]], ...]  # the series of a Tick
_Index = list[tuple[int, tuple[str, ...]]]  # the same with the Group as its place in a list


class _Shaped(msgspec.Struct, array_like=True):
    shape: int
    values: list[tuple[Value, ...]]
    failed: list[tuple[str, str]] = []


class _Whole(msgspec.Struct, array_like=True):
    collector: str
    groups: list[int]
    series: _Index
    values: list[tuple[Value, ...]]
    failed: list[tuple[str, str]] = []


class _ShapeRow(msgspec.Struct, array_like=True):
    collector: str
    groups: list[int]
    series: _Index


class _GroupRow(msgspec.Struct, array_like=True):
    measurement: str
    tags: list[tuple[str, str]]
    fields: list[dict[str, Any]]


_pack = msgspec.msgpack.Encoder().encode
_decode_shaped = msgspec.msgpack.Decoder(_Shaped).decode
_decode_whole = msgspec.msgpack.Decoder(_Whole).decode
_decode_shape = msgspec.msgpack.Decoder(_ShapeRow).decode
_decode_group = msgspec.msgpack.Decoder(_GroupRow).decode


class Undecodable(Exception):
    """A record is whole, but what it refers to is missing or it does not say what its kind should."""


class Definition(NamedTuple):
    """A Group or a Shape as it is written; `id` is a hash of the payload."""

    id: int
    record: bytes


class Encoded(NamedTuple):
    """A Tick as it is written, and the definitions that must stand before it."""

    number: int
    time_ns: int
    points: int
    record: bytes
    needs: tuple[Definition, ...]


class Groups:
    """One Group object for one declaration, however often it is read: encoders hang what they cache on it."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[tuple[Any, ...], Group] = WeakValueDictionary()
        self._guard = threading.Lock()

    def same(self, group: Group) -> Group:
        """The object that stands for everything declared like `group`."""
        with self._guard:
            return self._known.setdefault((group.measurement, group.tags, group.fields), group)


class _Series(NamedTuple):
    """The series of a collector's last Tick."""

    key: _Key
    needs: tuple[Definition, ...]
    shape: int | None  # None while the series were seen once only: many collectors never say the same twice


class Encoder:
    """Turns Ticks into records. Used by one thread."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._definitions: dict[Group, Definition] = {}
        self._last: dict[str, _Series] = {}

    def encode(self, number: int, tick: Tick) -> Encoded:
        """The record of `tick`. Integers beyond 64 bits are clamped; characters UTF-8 has no form for become U+FFFD."""
        readings = tick.readings
        key = tuple(map(series_of, readings))
        values = list(map(values_of, readings))
        last = self._last.get(tick.collector)
        if last is None or last.key != key:
            kind, known = frame.TICK_WHOLE, self._groups_of(key)
        elif last.shape is None:
            kind, known = frame.TICK, self._shape_of(tick.collector, last)
        else:
            kind, known = frame.TICK, last
        body: tuple[Any, ...] = (
            (known.shape, values)
            if known.shape is not None
            else (tick.collector, [d.id for d in known.needs], _index(key), values)
        )
        payload = _encode((*body, tick.failed) if tick.failed else body)
        if known is not last:
            if len(self._last) >= _MOST_COLLECTORS:
                self._last.clear()
            self._last[tick.collector] = known
        record = frame.build(kind, number, tick.time_ns, len(readings), payload)
        return Encoded(number, tick.time_ns, len(readings), record, known.needs)

    def _groups_of(self, key: _Key) -> _Series:
        """Series seen for the first time: their Groups in the order in which they first appear."""
        return _Series(key, tuple(self._definition(group) for group in dict(key)), None)

    def _shape_of(self, collector: str, last: _Series) -> _Series:
        """Series seen a second time: from now on they have a Shape."""
        payload = _encode((collector, [d.id for d in last.needs], _index(last.key)))
        shape = _define(frame.SHAPE, payload)
        return _Series(last.key, (*last.needs, shape), shape.id)

    def _definition(self, group: Group) -> Definition:
        known = self._definitions.get(group)
        if known is None:
            if len(self._definitions) >= _MOST_GROUPS:
                self._definitions.clear()
            self._groups.same(group)
            known = self._definitions[group] = _define(frame.GROUP, _encode(_group_row(group)))
        return known


class Decoder:
    """Turns the records of one segment into Ticks; give it the definitions before the Ticks that need them."""

    def __init__(self, groups: Groups) -> None:
        self._interned = groups
        self._groups: dict[int, Group] = {}
        self._shapes: dict[int, tuple[str, _Key]] = {}

    def define(self, record: Frame) -> None:
        """Learn a Group or a Shape. Raise Undecodable."""
        try:
            if record.kind == frame.GROUP:
                if record.number not in self._groups:
                    self._groups[record.number] = self._interned.same(_group(_decode_group(record.payload)))
            elif record.number not in self._shapes:
                row = _decode_shape(record.payload)
                self._shapes[record.number] = row.collector, self._series(row.groups, row.series)
        except _NOT_AS_DECLARED as error:
            raise Undecodable(str(error)) from error

    def tick(self, record: Frame) -> Tick:
        """The Tick of a record. Raise Undecodable."""
        try:
            if record.kind == frame.TICK:
                said: _Shaped | _Whole = _decode_shaped(record.payload)
                collector, series = self._shapes[cast("_Shaped", said).shape]
            else:
                whole = said = _decode_whole(record.payload)
                collector, series = whole.collector, self._series(whole.groups, whole.series)
            readings = [
                _reading(group, tags, values) for (group, tags), values in zip(series, said.values, strict=True)
            ]
        except _NOT_AS_DECLARED as error:
            raise Undecodable(str(error)) from error
        return Tick(record.time_ns, collector, readings, tuple(starmap(Failed, said.failed)))

    def _series(self, ids: list[int], series: _Index) -> _Key:
        groups = [self._groups[id] for id in ids]
        return tuple((groups[index], tags) for index, tags in series)


def _reading(group: Group, tags: tuple[str, ...], values: tuple[Value, ...]) -> Reading:
    return tuple.__new__(Reading, (group, tags, values))  # half the cost of Reading(...), and there are very many


def _define(kind: int, payload: bytes) -> Definition:
    id = int.from_bytes(blake2b(payload, digest_size=8, person=bytes([kind])).digest(), "little")
    return Definition(id, frame.build(kind, id, 0, 0, payload))


def _index(key: _Key) -> _Index:
    place = {group: index for index, group in enumerate(dict(key))}
    return [(place[group], tags) for group, tags in key]


def _group_row(group: Group) -> tuple[object, ...]:
    """What _GroupRow reads."""
    return group.measurement, group.tags, [_field_row(field) for field in group.fields]


def _field_row(field: Field) -> dict[str, object]:
    """What a Field says beyond its defaults, by name: versions may differ in what a Field can say."""
    said = {name: getattr(field, name) for name in _FIELD_DEFAULTS}
    said["type"] = field.type.__name__
    return {name: value for name, value in said.items() if value != _FIELD_DEFAULTS[name]}


def _field(row: dict[str, Any]) -> Field:
    said = {name: _frozen(value) for name, value in row.items() if name in _FIELD_DEFAULTS}
    return Field(**{**said, "type": _TYPES[row["type"]]})


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _group(row: _GroupRow) -> Group:
    return Group(row.measurement, map(_field, row.fields), starmap(Tag, row.tags))


def _encode(body: object) -> bytes:
    """msgpack of `body`; what has no binary form becomes the nearest that has."""
    try:
        return _pack(body)
    except (OverflowError, UnicodeEncodeError):
        return _pack(_clean(body))


def _clean(body: Any) -> Any:
    if isinstance(body, str):
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in body)
    if isinstance(body, int) and not isinstance(body, bool):
        return max(-(2**63), min(body, 2**64 - 1))
    if isinstance(body, tuple | list):
        return [_clean(part) for part in body]
    if isinstance(body, dict):
        return {name: _clean(part) for name, part in body.items()}
    return body
