"""What one text means, for each type an option may have.

Each reader takes the text and gives the value, or raises ValueError with what is wrong as a sentence that follows the
text itself: `is not a duration; write it like 90s, 5m or 1h30m`.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from typing import Any

from agent.core.units import Unit, format_duration, format_size, parse_duration, parse_percent, parse_size

_MOST_DIGITS = 40  # a number with a unit is never longer
_INTEGER = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,18}|0x[0-9a-fA-F]{1,16}|0o[0-7]{1,21})")
_FLOAT = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?")
_BARE_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_BOOLS = {"true": True, "false": False}
_TRUE_WORDS = ("yes", "on", "y", "true", "1")
_FALSE_WORDS = ("no", "off", "n", "false", "0")


def read_bool(text: str) -> bool:
    value = _BOOLS.get(text)
    if value is not None:
        return value
    word = text.lower()
    if word in _TRUE_WORDS:
        raise ValueError("is not a truth value here; write true")
    if word in _FALSE_WORDS:
        raise ValueError("is not a truth value here; write false")
    raise ValueError("is not a truth value; write true or false")


def read_int(text: str) -> int:
    if _INTEGER.fullmatch(text):
        return int(text, 0)
    if re.fullmatch(r"0[0-9]{1,19}", text):
        raise ValueError("begins with a zero; leave it out, or write 0o before an octal number")
    raise ValueError("is not a whole number; write it like 10")


def read_float(text: str) -> float:
    value = float(text) if _FLOAT.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise ValueError("is not a number; write it like 10 or 0.5")
    return value


def read_pattern(text: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a doubtful pattern is the operator's choice
            return re.compile(text)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error.msg} at position {error.pos or 0}") from None
    except (OverflowError, RecursionError):
        raise ValueError("is not a regular expression that can be used: it is too large") from None


class _UnitForm:
    """How the values of one unit are written."""

    def __init__(
        self, noun: str, zero: str, like: str, parse: Callable[[str], float], write: Callable[[float], str]
    ) -> None:
        self.noun = noun
        self.zero = zero
        self.like = like
        self.parse = parse
        self.write = write

    def read(self, text: str) -> float:
        """The value; a bare 0 needs no unit."""
        if text == "0":
            return self.parse(self.zero)
        if _BARE_NUMBER.fullmatch(text):
            raise ValueError(f"has no unit; write it like {self.like}")
        wrong = f"is not a {self.noun}; write it like {self.like}"
        # Only ASCII: the digits of other scripts are digits for `re`, not for a reader of the file.
        if len(text) > _MOST_DIGITS or not text.isascii():
            raise ValueError(wrong)
        try:
            return self.parse(text)
        except ValueError:
            raise ValueError(wrong) from None


def _write_duration(seconds: float) -> str:
    text = format_duration(seconds)
    # Less than a millisecond, or a fraction of one, is more than format_duration shows.
    return text if math.isclose(parse_duration(text), seconds, abs_tol=1e-12) else f"{_write_number(seconds * 1000)}ms"


def _write_size(size: float) -> str:
    text = format_size(size)
    return text if parse_size(text) == size else f"{size:.0f}B"


def _write_number(value: float) -> str:
    text = f"{value:.15g}"
    return text if "e" not in text else f"{value:.15f}".rstrip("0").rstrip(".")


UNITS: dict[str, _UnitForm] = {
    "duration": _UnitForm("duration", "0s", "90s, 5m or 1h30m", parse_duration, _write_duration),
    "size": _UnitForm("size", "0B", "64KiB, 100MB or 1GiB", parse_size, _write_size),
    "percent": _UnitForm("percentage", "0%", "85%", parse_percent, lambda value: f"{_write_number(value)}%"),
}


def unit_form(unit: Unit) -> _UnitForm:
    """The form of an annotated option type (`Seconds`, `Bytes`, `Percent`)."""
    return UNITS[unit.name]


def write_number(value: float, unit: Unit | None) -> str:
    """A number as people write it in the file."""
    return unit_form(unit).write(value) if unit else repr(value)


def check_limits(value: Any, unit: Unit | None, minimum: float | None, maximum: float | None) -> None:
    """Raise ValueError when a number is out of its limits."""
    if minimum is not None and value < minimum:
        raise ValueError(f"is below the least allowed, {write_number(minimum, unit)}")
    if maximum is not None and value > maximum:
        raise ValueError(f"is above the most allowed, {write_number(maximum, unit)}")
