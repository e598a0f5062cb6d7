"""InfluxDB line protocol, read: what scripts written for Telegraf's `exec` print.

Grammar: docs.influxdata.com, "Line protocol". Strict: one bad line and the whole text is refused, as Telegraf does.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from agent.core.errors import SourceError

# An escape hides the character behind it; a line feed ends a line everywhere but inside a quoted string.
_MEASUREMENT = re.compile(r"(?:[^\\, \n]++|\\.)++")
_KEY = re.compile(r"(?:[^\\,= \n]++|\\.)++")
_FIELD = re.compile(
    r"((?:[^\\,= \n]++|\\.)++)="
    r"(?:\"((?:[^\"\\]++|\\.)*+)\""
    r"|([-+]?[0-9]+)([iu])"
    r"|([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)"
    r"|([tT]|[tT]rue|TRUE|[fF]|[fF]alse|FALSE))"
    r"(?=[, \n]|\Z)",
    re.DOTALL,
)
_STAMP = re.compile(r"-?[0-9]{1,19}")
_ESCAPE = re.compile(r"\\([, =\\])")
_STRING_ESCAPE = re.compile(r'\\(["\\])')
_INT64 = range(-(2**63), 2**63)
_UINT64 = range(2**64)

FieldValue = int | float | bool | str


class InfluxLineError(SourceError):
    """The text is not line protocol; the message gives the line."""


class Point(NamedTuple):
    """One line. Tags are sorted by key; `time_ns` is None where the line has no timestamp."""

    measurement: str
    tags: tuple[tuple[str, str], ...]
    fields: tuple[tuple[str, FieldValue], ...]
    time_ns: int | None


def parse_influx_lines(text: bytes, most_points: int = 100_000) -> list[Point]:
    """Every point of the text. Raise InfluxLineError for a bad line, or for more than `most_points`."""
    try:
        decoded = text.decode()
    except UnicodeDecodeError as error:
        raise InfluxLineError(f"line {text.count(10, 0, error.start) + 1}: not valid UTF-8") from error
    decoded = decoded.replace("\r\n", "\n")
    points: list[Point] = []
    at = 0
    while (at := _skip_blank(decoded, at)) < len(decoded):
        try:
            if len(points) == most_points:
                raise ValueError(f"more than {most_points} points")
            point, at = _point(decoded, at)
        except _BadLine as error:
            raise InfluxLineError(f"line {decoded.count(chr(10), 0, error.at) + 1}: {error}") from error
        except ValueError as error:
            raise InfluxLineError(f"line {decoded.count(chr(10), 0, at) + 1}: {error}") from error
        points.append(point)
    return points


class _BadLine(ValueError):
    def __init__(self, text: str, at: int, wanted: str) -> None:
        end = text.find("\n", at)
        rest = text[at : end if end >= 0 else len(text)]
        shown = repr(rest if len(rest) <= 60 else rest[:57] + "...")
        super().__init__(f"{wanted} expected, found {shown if rest else 'the end of the line'}")
        self.at = at


def _skip_blank(text: str, at: int) -> int:
    """The start of the next line that says something; `#` starts a comment."""
    while at < len(text):
        if text[at] in " \t\n\r":
            at += 1
        elif text[at] == "#":
            end = text.find("\n", at)
            at = end + 1 if end >= 0 else len(text)
        else:
            break
    return at


def _point(text: str, at: int) -> tuple[Point, int]:
    """The point that starts at `at`, and where the next line starts."""
    match = _MEASUREMENT.match(text, at)
    if match is None:
        raise _BadLine(text, at, "a measurement")
    measurement, at = _unescape(match[0]), match.end()
    tags: dict[str, str] = {}
    while text.startswith(",", at):
        key, value, at = _tag(text, at + 1)
        if key in tags:
            raise ValueError(f"tag {key!r} is given twice")
        tags[key] = value
    at = _skip_spaces(text, at, "a space and a field")
    fields: dict[str, FieldValue] = {}
    while True:
        match = _FIELD.match(text, at)
        if match is None:
            raise _BadLine(text, at, 'a field (key=1.5, key=1i, key=true or key="text")')
        fields[_unescape(match[1])] = _value(match)
        at = match.end()
        if not text.startswith(",", at):
            break
        at += 1
    stamp, at = _stamp(text, at)
    return Point(measurement, tuple(sorted(tags.items())), tuple(fields.items()), stamp), at


def _tag(text: str, at: int) -> tuple[str, str, int]:
    key = _KEY.match(text, at)
    if key is None or not text.startswith("=", key.end()):
        raise _BadLine(text, at, "a tag (key=value)")
    value = _KEY.match(text, key.end() + 1)
    if value is None:
        raise _BadLine(text, at, "a tag with a value (key=value)")
    return _unescape(key[0]), _unescape(value[0]), value.end()


def _skip_spaces(text: str, at: int, wanted: str) -> int:
    start = at
    while text.startswith(" ", at):
        at += 1
    if at == start:
        raise _BadLine(text, at, wanted)
    return at


def _stamp(text: str, at: int) -> tuple[int | None, int]:
    """The timestamp in nanoseconds if there is one, and the start of the next line."""
    stamp = None
    while text.startswith(" ", at):
        at += 1
    if match := _STAMP.match(text, at):
        stamp, at = int(match[0]), match.end()
        if stamp not in _INT64:
            raise ValueError(f"timestamp {stamp} does not fit 64 bits")
    while text.startswith((" ", "\r"), at):
        at += 1
    if at < len(text) and text[at] != "\n":
        raise _BadLine(text, at, "a timestamp in nanoseconds or the end of the line")
    return stamp, at + 1


def _value(match: re.Match[str]) -> FieldValue:
    key, string, integer, suffix, number, boolean = match.groups()
    if string is not None:
        return _STRING_ESCAPE.sub(r"\1", string)
    if integer is not None:
        whole = int(integer) if len(integer) <= 21 else 2**65
        if whole not in (_INT64 if suffix == "i" else _UINT64):
            raise ValueError(f"field {key!r}: {integer[:30]}{suffix} does not fit 64 bits")
        return whole
    if number is not None:
        return float(number)
    return boolean[0] in "tT"


def _unescape(text: str) -> str:
    return _ESCAPE.sub(r"\1", text) if "\\" in text else text
