from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.http.encoding import number, plain_number
from agent.http.times import FURTHEST_MS, iso, parse_length, parse_moment, seconds_text


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("4", 4000),
        ("1700000000.123", 1700000000123),
        ("1.7e9", 1700000000000),
        ("-5.5", -5500),
        (".5", 500),
        ("2020-01-01T00:00:00Z", 1577836800000),
        ("2020-01-01T00:00:00.123456789Z", 1577836800123),
        ("2020-01-01T02:30:00+02:30", 1577836800000),
        ("2020-02-29t12:00:00.5z", 1582977600500),
        ("-292273086-05-16T16:47:06Z", -FURTHEST_MS),
        ("292277025-08-18T07:12:54.999999999Z", FURTHEST_MS),
    ],
)
def test_a_moment_is_unix_seconds_or_rfc_3339(text: str, time_ms: int) -> None:
    assert parse_moment(text) == time_ms


@pytest.mark.parametrize(
    "text", ["", "abc", "NaN", "Inf", "1e300", "1_000", "٣", "2020-02-31T00:00:00Z", "2020-01-01", "0x10", " 4"]
)
def test_what_is_no_moment_is_refused_with_what_was_found(text: str) -> None:
    with pytest.raises(ValueError, match=r'cannot parse ".*" to a valid timestamp'):
        parse_moment(text)


@pytest.mark.parametrize(
    ("text", "length_ms"),
    [("15", 15000), ("0.25", 250), ("30s", 30_000), ("1h30m", 5_400_000), ("1d2h3m4s5ms", 93_784_005), ("0s", 0),
     ("1y", 31_536_000_000), ("-1", -1000)],
)  # fmt: skip
def test_a_length_is_seconds_or_a_duration(text: str, length_ms: int) -> None:
    assert parse_length(text) == length_ms


@pytest.mark.parametrize("text", ["", "5x", "1m1h", "1.5h", "NaN", "9" * 400 + "s", "1e300", "300y", "s"])
def test_what_is_no_length_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="to a valid duration"):
        parse_length(text)


@given(st.integers(-FURTHEST_MS, FURTHEST_MS))
def test_seconds_are_read_back_as_they_were_written(time_ms: int) -> None:
    assert abs(parse_moment(seconds_text(time_ms)) - time_ms) <= (2 if abs(time_ms) > 2**50 else 0)


def test_times_for_people_have_milliseconds_only_where_there_are_some() -> None:
    assert iso(1700000000000) == "2023-11-14T22:13:20Z"
    assert iso(1700000000007) == "2023-11-14T22:13:20.007Z"
    assert iso(FURTHEST_MS) == "10000000000000"


@pytest.mark.parametrize(
    ("value", "in_vectors", "in_scalars"),
    [
        (2.0, "2", "2"),
        (-0.5, "-0.5", "-0.5"),
        (0.00001, "0.00001", "0.00001"),
        (1e-7, "1e-07", "0.0000001"),
        (1e16, "10000000000000000", "10000000000000000"),
        (123456789012345680000.0, "123456789012345680000", "123456789012345680000"),
        (1e21, "1e+21", "1000000000000000000000"),
        (math.inf, "+Inf", "+Inf"),
        (-math.inf, "-Inf", "-Inf"),
        (math.nan, "NaN", "NaN"),
        (0.1 + 0.2, "0.30000000000000004", "0.30000000000000004"),
    ],
)
def test_floats_look_as_prometheus_shows_them(value: float, in_vectors: str, in_scalars: str) -> None:
    assert (number(value), plain_number(value)) == (in_vectors, in_scalars)


@given(st.floats(allow_nan=False))
def test_no_float_loses_anything(value: float) -> None:
    assert float(number(value)) == value
    assert float(plain_number(value)) == value
