"""Moments and durations as Prometheus' HTTP API writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from math import isfinite
from typing import Final

FURTHEST_MS: Final = 10**16  # 317,000 years either way: well inside 64 bits even after a range is added
_EARLIEST_TEXT: Final = "-292273086-05-16T16:47:06Z"  # Prometheus' own bounds, sent by clients that mean all of it
_LATEST_TEXT: Final = "292277025-08-18T07:12:54.999999999Z"
_MOST_SECONDS: Final = 2**63 / 1e9  # Go's time.Duration

_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:[.,](\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_DURATION = re.compile(r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)
_UNITS_MS: Final = (31_536_000_000, 604_800_000, 86_400_000, 3_600_000, 60_000, 1000, 1)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def parse_moment(text: str) -> int:
    """Milliseconds since the epoch of Unix seconds (`1.5e9`) or RFC 3339. Raise ValueError."""
    if _NUMBER.fullmatch(text):
        seconds = float(text)
        if isfinite(seconds) and abs(seconds) * 1000 <= FURTHEST_MS:
            return round(seconds * 1000)
    elif text == _EARLIEST_TEXT:
        return -FURTHEST_MS
    elif text == _LATEST_TEXT:
        return FURTHEST_MS
    elif match := _RFC3339.fullmatch(text):
        zone = match[8].upper().replace("Z", "+00:00")
        try:
            whole = datetime.fromisoformat(f"{match[1]}-{match[2]}-{match[3]}T{match[4]}:{match[5]}:{match[6]}{zone}")
            return int(whole.timestamp()) * 1000 + int((match[7] or "0").ljust(3, "0")[:3])
        except (ValueError, OverflowError):
            pass  # the 31st of February
    raise ValueError(f"cannot parse {_quoted(text)} to a valid timestamp")


def parse_length(text: str) -> int:
    """Milliseconds of a duration (`90s`, `1h30m`) or of a number of seconds. Raise ValueError."""
    if _NUMBER.fullmatch(text):
        seconds = float(text)
        if not abs(seconds) < _MOST_SECONDS:
            raise ValueError(f"cannot parse {_quoted(text)} to a valid duration. It overflows int64")
        return int(seconds * 1000)
    match = _DURATION.fullmatch(text)
    if match is None or not text or len(text) > 64:
        raise ValueError(f"cannot parse {_quoted(text)} to a valid duration")
    length = sum(int(count) * unit for count, unit in zip(match.groups(), _UNITS_MS, strict=True) if count)
    if length >= _MOST_SECONDS * 1000:
        raise ValueError(f"cannot parse {_quoted(text)} to a valid duration. It overflows int64")
    return length


def seconds_text(time_ms: int) -> str:
    """Unix seconds with as many of three decimals as Prometheus shows: none or all."""
    whole, rest = divmod(abs(time_ms), 1000)
    sign = "-" if time_ms < 0 else ""
    return f"{sign}{whole}.{rest:03d}" if rest else f"{sign}{whole}"


def iso(time_ms: int) -> str:
    """The moment as RFC 3339 in UTC, milliseconds only where there are some; Unix seconds beyond the year 9999."""
    try:
        moment = datetime.fromtimestamp(time_ms // 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return seconds_text(time_ms)
    fraction = f".{time_ms % 1000:03d}" if time_ms % 1000 else ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"


def _quoted(text: str) -> str:
    shown = text if len(text) <= 100 else text[:100] + "..."
    return '"' + shown.replace("\\", "\\\\").replace('"', '\\"') + '"'
