"""The values a template works on, as Go knows them, and what Go calls their types.

str, float, int and bool stand for string, float64, int and bool; None is nil; a list is a slice; a dict is a
map[string]interface {}. What Go has beyond that stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any


class TemplateError(Exception):
    """A template that cannot be read or carried out; the text says where and why."""


class StringMap(dict[str, str]):
    """A map[string]string: a missing key is the empty text."""


class Struct:
    """A value with named fields and methods; asking for another name is an error."""

    __slots__ = ("fields", "is_pointer", "type_name")

    def __init__(self, type_name: str, fields: Mapping[str, Any], is_pointer: bool = False) -> None:
        self.type_name = type_name
        self.fields = fields
        self.is_pointer = is_pointer


class MethodList(list[Any]):
    """A slice that has fields of its own (`.Alerts.Firing`)."""

    def __init__(self, items: Sequence[Any], fields: Mapping[str, Any]) -> None:
        super().__init__(items)
        self.fields = fields


class MethodMap(StringMap):
    """A map of texts that has fields of its own (`.CommonLabels.SortedPairs`); a key of the map wins."""

    def __init__(self, items: Mapping[str, str], fields: Mapping[str, Any]) -> None:
        super().__init__(items)
        self.fields = fields


class Duration(int):
    """A time.Duration in nanoseconds."""

    def __str__(self) -> str:
        return show_duration(self)


class Time:
    """A moment in UTC, to the nanosecond, as time.Time prints it."""

    __slots__ = ("ns",)

    def __init__(self, ns: int) -> None:
        self.ns = ns

    def moment(self) -> datetime:
        """The same to the second."""
        return datetime.fromtimestamp(self.ns // 1_000_000_000, UTC)

    def __str__(self) -> str:
        fraction = f".{self.ns % 1_000_000_000:09d}".rstrip("0").rstrip(".")
        return f"{self.moment():%Y-%m-%d %H:%M:%S}{fraction} +0000 UTC"

    @property
    def fields(self) -> Mapping[str, Callable[..., Any]]:
        """The methods that annotations use."""
        moment = self.moment()
        return {
            "Format": lambda layout: format_time(self, layout),
            "Unix": lambda: self.ns // 1_000_000_000,
            "Year": lambda: moment.year,
            "Month": lambda: f"{moment:%B}",
            "Day": lambda: moment.day,
            "Hour": lambda: moment.hour,
            "Minute": lambda: moment.minute,
            "Second": lambda: moment.second,
            "Weekday": lambda: f"{moment:%A}",
            "String": lambda: str(self),
            "UTC": lambda: self,
        }


# Go writes layouts as the moment Mon Jan 2 15:04:05 MST 2006; longer names first, so that 2006 is not day 2.
_LAYOUT: tuple[tuple[str, str], ...] = (
    ("January", "%B"), ("Jan", "%b"), ("Monday", "%A"), ("Mon", "%a"), ("MST", "UTC"),
    ("2006", "%Y"), ("-07:00", "+00:00"), ("-0700", "+0000"), ("Z07:00", "Z"), ("Z0700", "Z"),
    ("01", "%m"), ("02", "%d"), ("03", "%I"), ("04", "%M"), ("05", "%S"), ("06", "%y"), ("15", "%H"),
    ("_2", "%e"), ("PM", "%p"), ("pm", "%P"), ("1", "%-m"), ("2", "%-d"), ("3", "%-I"), ("4", "%-M"), ("5", "%-S"),
)  # fmt: skip


def format_time(time: Time, layout: str) -> str:
    """The moment in a Go layout such as `2006-01-02 15:04`; fractions of a second as `.000` or `.999`."""
    out: list[str] = []
    moment, at = time.moment(), 0
    while at < len(layout):
        word, code = next(((w, c) for w, c in _LAYOUT if layout.startswith(w, at)), ("", ""))
        digits = len(layout[at + 1 :]) - len(layout[at + 1 :].lstrip(layout[at + 1 : at + 2]))
        if (
            layout[at] in ".,"
            and digits
            and layout[at + 1] in "09"
            and not layout[at + 1 + digits : at + 2 + digits].isdigit()
        ):
            fraction = f"{time.ns % 1_000_000_000:09d}"[:digits]
            text = layout[at] + fraction
            out.append(text if layout[at + 1] == "0" else text.rstrip("0").rstrip(layout[at]))
            at += 1 + digits
        elif word:
            out.append(moment.strftime(code))
            at += len(word)
        else:
            out.append(layout[at])
            at += 1
    return "".join(out)


def show_duration(ns: int) -> str:
    """Nanoseconds as time.Duration prints them: 1h30m0s, 1.5s, 20ms, 3µs."""
    if ns == 0:
        return "0s"
    sign, left = ("-", -ns) if ns < 0 else ("", ns)
    if left < 1_000_000_000:
        unit, size = next((u, s) for u, s in (("ms", 1_000_000), ("µs", 1000), ("ns", 1)) if left >= s)
        return f"{sign}{_decimal(left, size)}{unit}"
    minutes, seconds = divmod(left, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(seconds, 1_000_000_000)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else sign + text


def _decimal(number: int, size: int) -> str:
    whole, rest = divmod(number, size)
    fraction = str(rest).zfill(len(str(size)) - 1).rstrip("0") if rest else ""
    return f"{whole}.{fraction}" if fraction else str(whole)


def type_name(value: Any) -> str:
    """What Go's %T calls the type."""
    if isinstance(value, Struct):
        return ("*" if value.is_pointer else "") + value.type_name
    names: tuple[tuple[type, str], ...] = (
        (bool, "bool"), (str, "string"), (Duration, "time.Duration"), (int, "int"), (float, "float64"),
        (StringMap, "map[string]string"), (dict, "map[string]interface {}"), (list, "[]interface {}"),
        (Time, "*time.Time"),
    )  # fmt: skip
    return next((name for kind, name in names if isinstance(value, kind)), "<nil>")


def is_true(value: Any) -> bool:
    """What `if` thinks of a value: false are nil, zero, and what is empty."""
    return isinstance(value, (Struct, Time)) or bool(value)
