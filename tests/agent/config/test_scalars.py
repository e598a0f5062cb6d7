"""Single values: what each type accepts, and how numbers are written so that they read back."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.scalars import UNITS, read_bool, read_float, read_int, read_pattern


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (read_bool, "true", True),
        (read_bool, "false", False),
        (read_int, "10", 10),
        (read_int, "-3", -3),
        (read_int, "0x1F", 31),
        (read_int, "0o640", 0o640),
        (read_float, "0.5", 0.5),
        (read_float, "10", 10.0),
        (read_float, "1e3", 1000.0),
        (UNITS["duration"].read, "1h30m", 5400.0),
        (UNITS["duration"].read, "0", 0.0),
        (UNITS["size"].read, "64KiB", 65536),
        (UNITS["size"].read, "0", 0),
        (UNITS["percent"].read, "85%", 85.0),
        (UNITS["percent"].read, "0", 0.0),
    ],
)
def test_what_is_accepted(read, text: str, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text", "reason"),
    [
        (read_bool, "yes", "is not a truth value here; write true"),
        (read_bool, "True", "is not a truth value here; write true"),
        (read_bool, "off", "is not a truth value here; write false"),
        (read_bool, "maybe", "is not a truth value; write true or false"),
        (read_int, "0640", "begins with a zero; leave it out, or write 0o before an octal number"),
        (read_int, "1.5", "is not a whole number; write it like 10"),
        (read_int, "1:30", "is not a whole number; write it like 10"),
        (read_int, "1_000", "is not a whole number; write it like 10"),
        (read_int, "9" * 5000, "is not a whole number; write it like 10"),
        (read_int, "٣", "is not a whole number; write it like 10"),
        (read_float, "nan", "is not a number; write it like 10 or 0.5"),
        (read_float, "1e999", "is not a number; write it like 10 or 0.5"),
        (read_pattern, "a(", "is not a regular expression: missing ), unterminated subpattern at position 1"),
        (UNITS["duration"].read, "5", "has no unit; write it like 90s, 5m or 1h30m"),
        (UNITS["duration"].read, "1:30", "is not a duration; write it like 90s, 5m or 1h30m"),
        (UNITS["duration"].read, "five", "is not a duration; write it like 90s, 5m or 1h30m"),
        (UNITS["duration"].read, "٣s", "is not a duration; write it like 90s, 5m or 1h30m"),
        (UNITS["duration"].read, "9" * 400 + "s", "is not a duration; write it like 90s, 5m or 1h30m"),
        (UNITS["size"].read, "1024", "has no unit; write it like 64KiB, 100MB or 1GiB"),
        (UNITS["size"].read, "9" * 400 + "KiB", "is not a size; write it like 64KiB, 100MB or 1GiB"),
        (UNITS["percent"].read, "0.85", "has no unit; write it like 85%"),
        (UNITS["percent"].read, "85 percent", "is not a percentage; write it like 85%"),
    ],
)
def test_what_is_refused(read, text: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        read(text)
    assert str(caught.value) == reason


@pytest.mark.parametrize("text", ["(" * 50_000, "a{99999999999}", "[[a]--b]"])
def test_a_hostile_pattern_is_compiled_or_refused(text: str) -> None:
    try:
        outcome = read_pattern(text)
    except ValueError as error:
        outcome = str(error)
    assert isinstance(outcome, re.Pattern) or outcome.startswith("is not a regular expression")


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        ("duration", 0.0, "0s"),
        ("duration", 90.0, "1m30s"),
        ("duration", 0.0005, "0.5ms"),
        ("size", 1536, "1.5KiB"),
        ("size", 1500, "1500B"),
        ("size", 1 << 30, "1GiB"),
        ("percent", 99.9, "99.9%"),
        ("percent", 1e-7, "0.0000001%"),
    ],
)
def test_numbers_are_written_as_people_do(unit: str, value: float, text: str) -> None:
    assert UNITS[unit].write(value) == text
    assert UNITS[unit].read(text) == pytest.approx(value, rel=1e-12)


@given(st.integers(0, 1 << 50))
def test_every_size_reads_back(size: int) -> None:
    assert UNITS["size"].read(UNITS["size"].write(size)) == size


@given(st.integers(0, 10**12).map(lambda ms: ms / 1000))
def test_every_duration_in_milliseconds_reads_back(seconds: float) -> None:
    assert UNITS["duration"].read(UNITS["duration"].write(seconds)) == pytest.approx(seconds, rel=1e-12)
