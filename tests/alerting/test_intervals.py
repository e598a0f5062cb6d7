from __future__ import annotations

import time
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from alerting.intervals import TimeInterval, at_wall_time, contains, next_change, parse_interval, recurring
from tests.alerting.pictures import at

OFFICE = {"times": [{"start_time": "09:00", "end_time": "17:30"}], "weekdays": ["monday:friday"]}


@pytest.mark.parametrize(
    ("raw", "moment", "inside"),
    [
        ({}, "2024-05-01 00:00", True),
        (OFFICE, "2024-05-01 09:00", True),  # a Wednesday
        (OFFICE, "2024-05-01 17:29", True),
        (OFFICE, "2024-05-01 17:30", False),  # the end does not belong to it
        (OFFICE, "2024-05-04 10:00", False),  # a Saturday
        ({"weekdays": ["sunday"]}, "2024-05-05 23:59", True),
        ({"weekdays": ["saturday", "sunday"]}, "2024-05-04 12:00", True),
        ({"days_of_month": ["1:5"]}, "2024-05-05 12:00", True),
        ({"days_of_month": ["1:5"]}, "2024-05-06 12:00", False),
        ({"days_of_month": ["-1"]}, "2024-02-29 12:00", True),
        ({"days_of_month": ["-3:-1"]}, "2023-02-26 12:00", True),
        ({"days_of_month": ["-3:-1"]}, "2023-02-25 12:00", False),
        ({"days_of_month": ["31"]}, "2024-04-30 12:00", False),  # a month that has no 31st is skipped
        ({"days_of_month": ["29:31"]}, "2024-04-30 12:00", True),
        ({"days_of_month": ["25:-1"]}, "2024-04-30 12:00", True),
        ({"months": ["january:march", "12"]}, "2024-12-01 12:00", True),
        ({"months": ["january:march"]}, "2024-04-01 12:00", False),
        ({"years": ["2023:2024"]}, "2025-01-01 00:00", False),
        ({"times": [{"start_time": "00:00", "end_time": "24:00"}]}, "2024-05-01 23:59", True),
        ({"times": [{"start_time": 540, "end_time": 1050}]}, "2024-05-01 17:29", True),  # as YAML reads 17:30
        ({**OFFICE, "location": "Asia/Tokyo"}, "2024-05-01 00:30", True),
        ({**OFFICE, "location": "Asia/Tokyo"}, "2024-05-01 10:00", False),
        ({**OFFICE, "location": "Europe/Berlin"}, "2024-07-01 07:00", True),  # summer time
        ({**OFFICE, "location": "Europe/Berlin"}, "2024-12-02 07:00", False),
    ],
)
def test_a_moment_is_inside_or_not(raw: dict[str, Any], moment: str, inside: bool) -> None:
    assert parse_interval(raw, "x").contains(at(moment)) is inside


def test_local_is_the_zone_of_this_host() -> None:
    midnight = time.mktime((2024, 5, 1, 0, 0, 0, 0, 0, -1))
    night = parse_interval({"times": [{"start_time": "00:00", "end_time": "01:00"}], "location": "Local"}, "x")
    assert (night.contains(midnight), night.contains(midnight - 60)) == (True, False)


# Friday 2024-05-03; what begins on a Friday evening goes on into Saturday
RECURRING = [
    (["22:00-06:00"], ["friday"], "2024-05-03 23:00", True, "the evening of the day"),
    (["22:00-06:00"], ["friday"], "2024-05-04 05:59", True, "the night that began on the day"),
    (["22:00-06:00"], ["friday"], "2024-05-04 06:00", False, "its end"),
    (["22:00-06:00"], ["friday"], "2024-05-03 05:00", False, "the night that began the day before"),
    (["22:00-06:00"], ["saturday"], "2024-05-05 05:00", True, "Saturday night ends on Sunday, the first day"),
    (["22:00-24:00"], [], "2024-05-03 23:59", True, "any day"),
    (["22:00-00:00"], [], "2024-05-04 00:00", False, "midnight is the end"),
    (["12:00-13:00", "02:00-03:00"], [], "2024-05-03 02:30", True, "one of several parts"),
    ([], ["monday:friday"], "2024-05-03 12:00", True, "whole days"),
    ([], ["monday:friday"], "2024-05-04 12:00", False, "other days"),
]


@pytest.mark.parametrize(("between", "days", "moment", "expected", "why"), RECURRING, ids=[row[4] for row in RECURRING])
def test_a_part_of_the_day_comes_again(
    between: list[str], days: list[str], moment: str, expected: bool, why: str
) -> None:
    windows = recurring(between, days, "Europe/Berlin")
    assert contains(windows, at(moment, "Europe/Berlin")) is expected, why


@pytest.mark.parametrize(
    ("between", "days", "zone", "said"),
    [
        ("22:00", (), "UTC", "'22:00' is no part of a day; write it like 22:00-06:00"),
        ("22-06", (), "UTC", "'22-06': '22' is not a time of day; write it like '09:30'"),
        ("22:00-06:00", ("freitag",), "UTC", "'freitag' is not known; one of sunday, monday"),
        ("22:00-06:00", (), "Berlin", "'Berlin' is not a time zone"),
    ],
)
def test_a_bad_part_of_the_day_is_refused(between: str, days: tuple[str, ...], zone: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        recurring([between], days, zone)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"time": []}, "x.time: no such key"),
        ({"times": [{"start_time": "9:00", "end_time": "17:00"}]}, r"x.times\[0\].start_time: '9:00' is not a time"),
        ({"times": [{"start_time": "17:00", "end_time": "09:00"}]}, "not after its start; split a night"),
        ({"times": ["09:00"]}, r"x.times\[0\]: found '09:00'; write it like"),
        ({"weekdays": ["mondey"]}, "'mondey' is not known; one of sunday, monday"),
        ({"weekdays": ["friday:monday"]}, "ends before it starts"),
        ({"weekdays": ["1"]}, "'1' is not known"),
        ({"days_of_month": ["0"]}, "there is no day 0"),
        ({"days_of_month": ["-1:5"]}, "starts from the end of the month"),
        ({"days_of_month": ["32"]}, "32 is out of range; -31 to 31 would be right"),
        ({"months": ["13"]}, "13 is out of range"),
        ({"months": ["a:b:c"]}, "is not a range"),
        ({"location": "Mars/Base"}, "x.location: 'Mars/Base' is not a time zone"),
    ],
)
def test_a_bad_interval_is_refused_with_its_place(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_interval(raw, "x")


@pytest.mark.parametrize(
    ("raw", "now", "changes_at"),
    [
        (OFFICE, "2024-05-01 10:00", "2024-05-01 17:30"),
        (OFFICE, "2024-05-03 18:00", "2024-05-06 09:00"),  # over the weekend
        ({"days_of_month": ["1"]}, "2024-05-01 10:00", "2024-05-02 00:00"),
        ({"months": ["6"]}, "2024-07-01 10:00", "2025-06-01 00:00"),
        ({}, "2024-07-01 10:00", None),
    ],
)
def test_the_next_change_is_known(raw: dict[str, Any], now: str, changes_at: str | None) -> None:
    interval = parse_interval(raw, "x")
    assert next_change([interval], at(now)) == (at(changes_at) if changes_at else None)


def test_the_next_change_skips_edges_that_change_nothing() -> None:
    night = [TimeInterval(((22 * 60, 1440),)), TimeInterval(((0, 6 * 60),))]
    assert contains(night, at("2024-05-01 23:00"))
    assert next_change(night, at("2024-05-01 23:00")) == at("2024-05-02 06:00")


@pytest.mark.parametrize(
    ("day", "minute", "utc"),
    [
        ("2024-03-31", 90, "2024-03-31 00:30"),
        ("2024-03-31", 150, "2024-03-31 01:00"),  # 02:30 does not exist: the moment the clock is put forward
        ("2024-03-31", 180, "2024-03-31 01:00"),
        ("2024-10-27", 150, "2024-10-27 00:30"),  # 02:30 comes twice: the first
        ("2024-10-27", 1440, "2024-10-27 23:00"),
    ],
)
def test_wall_times_when_the_clock_is_put_forward_or_back(day: str, minute: int, utc: str) -> None:
    assert at_wall_time(date.fromisoformat(day), minute, ZoneInfo("Europe/Berlin")) == at(utc)
