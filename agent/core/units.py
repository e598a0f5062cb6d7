"""Durations, sizes and percentages as people write them, and the option types made of them."""

from __future__ import annotations

import re
from typing import Annotated

_DURATION_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w|y)")
_SIZE_BYTES = {
    "B": 1,
    "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMGT]?i?B)")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")


def parse_duration(text: str) -> float:
    """Seconds of `90s`, `1h30m`, `250ms`, `0`. Raise ValueError with the right form."""
    if text.strip() == "0":
        return 0.0
    at, total = 0, 0.0
    stripped = text.strip()
    while match := _DURATION.match(stripped, at):
        total += float(match[1]) * _DURATION_S[match[2]]
        at = match.end()
    if not stripped or at != len(stripped):
        raise ValueError(f"{text!r} is not a duration; write it like 90s, 5m or 1h30m")
    return total


def format_duration(seconds: float) -> str:
    """The shortest exact form: `90s` is `1m30s`, 0.25 is `250ms`."""
    left = round(seconds * 1000)
    if left == 0:
        return "0s"
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def parse_size(text: str) -> int:
    """Bytes of `64KiB`, `1.5 GiB`, `100MB`. Raise ValueError with the right form."""
    match = _SIZE.fullmatch(text.strip())
    unit = match and {"KB": "kB"}.get(match[2], match[2])
    if match is None or unit not in _SIZE_BYTES:
        raise ValueError(f"{text!r} is not a size; write it like 64KiB, 100MB or 1GiB")
    return round(float(match[1]) * _SIZE_BYTES[unit])


def format_size(size: float) -> str:
    """Bytes for people and for YAML, exact where a binary unit divides: 1073741824 is `1GiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _SIZE_BYTES[unit] == 0:
            return f"{size // _SIZE_BYTES[unit]:.0f}{unit}"
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size >= _SIZE_BYTES[unit]:
            return f"{size / _SIZE_BYTES[unit]:.1f}{unit}"
    return f"{size:.0f}B"


def rough_size(size: int) -> str:
    """Bytes for people: one decimal also where a smaller unit would be exact."""
    return format_size(size if size < 1024 else size | 1)


def parse_percent(text: str) -> float:
    """`85%` as 85.0. Raise ValueError with the right form."""
    match = _PERCENT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a percentage; write it like 85%")
    return float(match[1])


class Unit:
    """Marks an option type whose YAML form has a unit; read by the configuration loader."""

    def __init__(self, name: str) -> None:
        self.name = name


Seconds = Annotated[float, Unit("duration")]
Bytes = Annotated[int, Unit("size")]
Percent = Annotated[float, Unit("percent")]
