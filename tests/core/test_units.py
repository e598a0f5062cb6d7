from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.units import format_duration, format_size, parse_duration, parse_percent, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("0", 0),
        ("1.5h", 5400),
        ("7d", 604800),
        ("1w", 604800),
    ],
)
def test_durations_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "five minutes", "5", "5 m", "-5s", "1:30", "s", "5x", "٣s5"])
def test_what_is_no_duration_says_what_would_be(text: str) -> None:
    with pytest.raises(ValueError, match="write it like 90s, 5m or 1h30m"):
        parse_duration(text)


@given(st.integers(0, 10**12))
def test_a_formatted_duration_reads_back(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)


@pytest.mark.parametrize(
    ("text", "size"),
    [("64KiB", 65536), ("1GiB", 2**30), ("100MB", 10**8), ("1.5 GiB", 3 * 2**29), ("512B", 512), ("1kB", 1000)],
)
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "1", "1G", "GiB", "-1KiB", "1 GiBs"])
def test_what_is_no_size_says_what_would_be(text: str) -> None:
    with pytest.raises(ValueError, match="write it like 64KiB, 100MB or 1GiB"):
        parse_size(text)


def test_sizes_are_shown_exactly_where_a_unit_divides() -> None:
    assert format_size(2**30) == "1GiB"
    assert format_size(1536) == "1.5KiB"
    assert format_size(10) == "10B"


def test_percentages() -> None:
    assert parse_percent("85%") == 85
    assert parse_percent("0.5 %") == 0.5
    with pytest.raises(ValueError, match="write it like 85%"):
        parse_percent("0.85")
