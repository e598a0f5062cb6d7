"""Readings as InfluxDB line protocol, as Telegraf writes them.

Grammar: docs.influxdata.com, "Line protocol". Per Group and tag values the escaped prefix is kept, per set of present
fields the format string, so a line costs one format call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

from agent.core.model import Field, Group, Tick, Value
from agent.core.pick import picker

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
_MOST_SERIES = 50_000  # prefixes kept before the cache starts anew; series that come and go must not fill memory

# Line protocol cannot carry these raw outside a quoted string; like Telegraf, write them as two characters.
_CONTROL = {"\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
_MEASUREMENT = str.maketrans({**_CONTROL, ",": "\\,", " ": "\\ "})
_BEFORE_ESCAPED = re.compile(r"\\+(?=[,= ])")
_KEY = str.maketrans({**_CONTROL, ",": "\\,", " ": "\\ ", "=": "\\="})
_STRING = str.maketrans({**_CONTROL, '"': '\\"', "\\": "\\\\"})


def escape_measurement(name: str) -> str:
    """A measurement name as it stands at the start of a line; a trailing backslash would escape the comma after it."""
    return _doubled(name).translate(_MEASUREMENT).rstrip("\\")


def escape_key(text: str) -> str:
    """A tag key, tag value or field key; a trailing backslash would escape what follows, so it goes."""
    return _doubled(text).translate(_KEY).rstrip("\\")


def _doubled(text: str) -> str:
    """Backslashes before a character that gets one of its own, twice.

    InfluxDB takes them literally (and then shows one too many), VictoriaMetrics pairs them; written once, the line
    would fall apart there.
    """
    return _BEFORE_ESCAPED.sub(r"\g<0>\g<0>", text) if "\\" in text else text


def escape_string(text: str) -> str:
    """The inside of a quoted string field."""
    return text.translate(_STRING)


class Encoder:
    """Turns Ticks into lines. Not thread-safe: one Encoder per sink.

    `tags` go on every line (host, the operator's own); a Group's tag of the same name wins. Values that line protocol
    cannot carry (NaN, infinities) are left out and counted in `dropped_values`; integers beyond 64 bits are clamped, as
    Telegraf clamps its unsigned ones, and counted in `clamped_values`.
    """

    def __init__(self, tags: Mapping[str, str]) -> None:
        self.tags = dict(tags)
        self._groups: dict[Group, _GroupEncoder] = {}
        self._series = 0
        self.dropped_values = 0
        self.clamped_values = 0

    def encode(self, ticks: Iterable[Tick]) -> list[str]:
        """One line per reading that has a field to show, without line ends."""
        lines: list[str] = []
        for tick in ticks:
            stamp = str(tick.time_ns)
            for group, tags, values in tick.readings:
                if group.in_influx:
                    line = self._encoder_of(group).line(tags, values, stamp)
                    if line:
                        lines.append(line)
        return lines

    def _encoder_of(self, group: Group) -> _GroupEncoder:
        found = self._groups.get(group)
        if found is None:
            found = self._groups[group] = _GroupEncoder(group, self)
        return found

    def prefix(self, group: Group, values: tuple[str, ...]) -> str:
        """`measurement,tag=value,...` and the space after it, tags in order of their keys, empty ones left out."""
        self._series += 1
        if self._series > _MOST_SERIES:
            self._groups.clear()
            self._series = 0
        tags = self.tags | {tag.influx: value for tag, value in zip(group.tags, values, strict=True)}
        pairs = sorted((escape_key(key), escape_key(value)) for key, value in tags.items())
        return ",".join([escape_measurement(group.measurement), *(f"{k}={v}" for k, v in pairs if k and v)]) + " "


class _GroupEncoder:
    """The lines of one Group: which values go out, and how each set of present fields is formatted."""

    def __init__(self, group: Group, owner: Encoder) -> None:
        self._group = group
        self._owner = owner
        places = [at for at, field in enumerate(group.fields) if field.influx]
        self._fields = tuple(group.fields[at] for at in places)
        self._pick = picker(places, len(group.fields))
        self._full = _Template(self._fields)
        self._partial: dict[tuple[bool, ...], _Template] = {}
        self._prefixes: dict[tuple[str, ...], str] = {}

    def line(self, tags: tuple[str, ...], values: tuple[Value, ...], stamp: str) -> str:
        prefix = self._prefixes.get(tags)
        if prefix is None:
            prefix = self._prefixes[tags] = self._owner.prefix(self._group, tags)
        picked = self._pick(values)
        template, present = self._without_absent(picked) if None in picked else (self._full, picked)
        if not template.accepts(present):
            template, present = self._without_absent(tuple(map(self._carriable, self._fields, picked)))
        if not present:
            return ""
        return prefix + template.format % template.quoted(present) + stamp

    def _without_absent(self, picked: tuple[Value, ...]) -> tuple[_Template, tuple[Value, ...]]:
        present = tuple(value is not None for value in picked)
        template = self._partial.get(present)
        if template is None:
            fields = tuple(field for field, here in zip(self._fields, present, strict=True) if here)
            template = self._partial[present] = _Template(fields)
        return template, tuple(value for value in picked if value is not None)

    def _carriable(self, field: Field, value: Value) -> Value:
        """`value` as line protocol can carry it, None when it cannot or is absent."""
        if value is None or field.type is str:
            return value
        if isinstance(value, str) or not isfinite(value):
            self._owner.dropped_values += 1
            return None
        if field.type is int and not INT64_MIN <= value <= INT64_MAX:
            self._owner.clamped_values += 1
            return INT64_MAX if value > 0 else INT64_MIN
        return value


_FORMATS: Mapping[type, str] = {int: "%di", float: "%r", bool: "%s", str: '"%s"'}


class _Template:
    """The format of one set of fields, ending with the space before the timestamp."""

    __slots__ = ("_bools", "_ints", "_numbers", "_strings", "fields", "format")

    def __init__(self, fields: tuple[Field, ...]) -> None:
        self.fields = fields
        parts = [f"{escape_key(field.influx or '').replace('%', '%%')}={_FORMATS[field.type]}" for field in fields]
        self.format = ",".join(parts) + " "
        self._strings = [at for at, field in enumerate(fields) if field.type is str]
        self._bools = [at for at, field in enumerate(fields) if field.type is bool]
        self._numbers = picker([at for at, field in enumerate(fields) if field.type is not str], len(fields))
        self._ints = picker([at for at, field in enumerate(fields) if field.type is int], len(fields))

    def accepts(self, values: tuple[Any, ...]) -> bool:
        """True when every number is finite and every integer fits 64 bits; a sum tells it without a look at each."""
        try:
            total = sum(self._numbers(values))
        except TypeError:  # a collector put text where it declared a number
            return False
        if total - total != 0:  # NaN, an infinity, or finite values whose sum overflows: look closer
            return False
        ints = self._ints(values)
        return not ints or (max(ints) <= INT64_MAX and min(ints) >= INT64_MIN)

    def quoted(self, values: tuple[Value, ...]) -> tuple[Value, ...]:
        """Strings escaped, booleans in line protocol's spelling; nothing to do for most Groups."""
        if not self._strings and not self._bools:
            return values
        changed = list(values)
        for at in self._strings:
            changed[at] = escape_string(str(changed[at]))
        for at in self._bools:
            changed[at] = "true" if changed[at] else "false"
        return tuple(changed)
