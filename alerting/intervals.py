"""Time intervals in which routes speak or keep silent, and silences recur. Semantics: Alertmanager's.

A moment lies in an interval when each of the given parts (times, weekdays, days, months, years) holds in its zone.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, tzinfo
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
MONTHS = tuple(name.lower() for name in calendar.month_name[1:])
_LOOK_AHEAD_DAYS = 400

Span = tuple[int, int]  # both ends belong to it


@dataclass(frozen=True, slots=True)
class TimeInterval:
    """Spans of each kind; an empty kind sets no condition. Minutes of the day exclude their end."""

    minutes: tuple[Span, ...] = ()
    weekdays: tuple[Span, ...] = ()  # 0 is Sunday
    days_of_month: tuple[Span, ...] = ()  # negative ones count from the end of the month
    months: tuple[Span, ...] = ()
    years: tuple[Span, ...] = ()
    zone: str = "UTC"

    def contains(self, now: float) -> bool:
        """Does the Unix time lie within?"""
        local = datetime.fromtimestamp(now, find_zone(self.zone))
        minute = local.hour * 60 + local.minute
        return (not self.minutes or any(start <= minute < end for start, end in self.minutes)) and self._has_day(local)

    def _has_day(self, day: date) -> bool:
        return (
            _in(day.isoweekday() % 7, self.weekdays)
            and _in(day.month, self.months)
            and _in(day.year, self.years)
            and (not self.days_of_month or any(_in_month(day, span) for span in self.days_of_month))
        )


def _in(number: int, spans: Sequence[Span]) -> bool:
    return not spans or any(start <= number <= end for start, end in spans)


def _in_month(day: date, span: Span) -> bool:
    length = calendar.monthrange(day.year, day.month)[1]
    start, end = (length + one + 1 if one < 0 else one for one in span)
    return start <= length and max(start, 1) <= day.day <= min(end, length)


def contains(intervals: Iterable[TimeInterval], now: float) -> bool:
    """Does any of them contain the moment?"""
    return any(interval.contains(now) for interval in intervals)


def next_change(intervals: Sequence[TimeInterval], now: float) -> float | None:
    """When `contains` will next give another answer than now; None when that is more than 400 days away."""
    inside = contains(intervals, now)
    zones = {interval.zone for interval in intervals}
    edges = {0} | {minute for interval in intervals for span in interval.minutes for minute in span}
    for offset in range(-1, _LOOK_AHEAD_DAYS):
        moments = sorted(
            at_wall_time(local.date() + timedelta(days=offset), edge, zone)
            for zone in (find_zone(name) for name in zones)
            for local in (datetime.fromtimestamp(now, zone),)
            for edge in edges
        )
        for moment in moments:
            if moment > now and contains(intervals, moment) != inside:
                return moment
    return None


def at_wall_time(day: date, minute: int, zone: tzinfo) -> float:
    """Unix time of a minute of a day on the wall clock; where the clock is put forward over it, that moment.

    A time that comes twice, when the clock is put back, is the first of the two.
    """
    local = datetime(day.year, day.month, day.day, tzinfo=zone) + timedelta(minutes=minute)
    moment = local.timestamp()
    back = datetime.fromtimestamp(moment, zone)
    if back.replace(tzinfo=None) == local.replace(tzinfo=None):
        return moment
    # the wall never shows this time: with fold=1 the offset is the one after the gap, so the two frame the jump
    after = local.replace(fold=1).timestamp()
    low, high = min(moment, after), max(moment, after)
    offset = datetime.fromtimestamp(low, zone).utcoffset()
    while high - low > 1:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == offset:
            low = middle
        else:
            high = middle
    return float(high)


@cache
def find_zone(name: str) -> ZoneInfo:
    """The time zone; `Local` is this host's. Raise ValueError when there is none of that name."""
    try:
        if name == "Local":
            with open("/etc/localtime", "rb") as file:
                return ZoneInfo.from_file(file, key="Local")
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is not a time zone; write it like Europe/Berlin or UTC") from error


# Reading them.


def parse_interval(raw: Mapping[str, Any], where: str) -> TimeInterval:
    """One interval as Alertmanager writes it. Raise ValueError that begins with `where` and the key."""
    known = {"times", "weekdays", "days_of_month", "months", "years", "location"}
    for key in raw:
        if key not in known:
            raise ValueError(f"{where}.{key}: no such key; one of {', '.join(sorted(known))} would be right")
    zone = str(raw.get("location", "UTC"))
    try:
        find_zone(zone)
    except ValueError as error:
        raise ValueError(f"{where}.location: {error}") from error
    return TimeInterval(
        minutes=tuple(_times(one, f"{where}.times[{at}]") for at, one in enumerate(raw.get("times") or ())),
        weekdays=_spans(raw, "weekdays", where, WEEKDAYS, (0, 6)),
        days_of_month=_spans(raw, "days_of_month", where, (), (-31, 31)),
        months=_spans(raw, "months", where, ("", *MONTHS), (1, 12)),
        years=_spans(raw, "years", where, (), (1, 9999)),
        zone=zone,
    )


def recurring(between: Sequence[str], weekdays: Sequence[str], zone: str) -> list[TimeInterval]:
    """Parts of the day such as `22:00-06:00`, on some days or all: what goes past midnight began the day before.

    Raise ValueError.
    """
    days = parse_interval({"weekdays": weekdays, "location": zone}, "windows")
    found = []
    for text in between:
        first, dash, last = text.partition("-")
        if not dash:
            raise ValueError(f"{text!r} is no part of a day; write it like 22:00-06:00")
        start, end = parse_wall_time(first.strip(), repr(text)), parse_wall_time(last.strip(), repr(text))
        if start < end:
            found.append(replace(days, minutes=((start, end),)))
            continue
        found.append(replace(days, minutes=((start, 1440),)))
        if end:
            found.append(replace(days, minutes=((0, end),), weekdays=_a_day_later(days.weekdays)))
    return found or ([days] if weekdays else [])


def _a_day_later(weekdays: tuple[Span, ...]) -> tuple[Span, ...]:
    return tuple(((day + 1) % 7, (day + 1) % 7) for start, end in weekdays for day in range(start, end + 1))


def _times(raw: object, where: str) -> Span:
    if not isinstance(raw, Mapping) or set(raw) != {"start_time", "end_time"}:
        raise ValueError(f"{where}: found {raw!r}; write it like {{start_time: '09:00', end_time: '17:00'}}")
    start, end = (parse_wall_time(raw[key], f"{where}.{key}") for key in ("start_time", "end_time"))
    if start >= end:
        raise ValueError(f"{where}: ends at {raw['end_time']}, not after its start; split a night at 24:00 and 00:00")
    return start, end


def parse_wall_time(raw: object, where: str) -> int:
    """Minutes since midnight of `HH:MM`; 24:00 is the end of the day. Raise ValueError."""
    if isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw <= 1440:
        return raw  # YAML reads an unquoted 17:30 as the sexagesimal number 1050, which is its minute
    found = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)|24:00", str(raw))
    if found is None:
        raise ValueError(f"{where}: {raw!r} is not a time of day; write it like '09:30', at most '24:00'")
    return int(found[1]) * 60 + int(found[2]) if found[1] else 1440


def _spans(raw: Mapping[str, Any], key: str, where: str, names: Sequence[str], limits: Span) -> tuple[Span, ...]:
    found = []
    for at, one in enumerate(raw.get(key) or ()):
        place = f"{where}.{key}[{at}]"
        words = str(one).lower().split(":")
        if len(words) > 2:
            raise ValueError(f"{place}: {one!r} is not a range; write it like first:last")
        start, end = (_number(word.strip(), names, limits, place) for word in (words[0], words[-1]))
        if (start == 0 and key == "days_of_month") or (end == 0 and key == "days_of_month"):
            raise ValueError(f"{place}: there is no day 0; the first is 1, the last -1")
        if start > end and (start < 0) == (end < 0):
            raise ValueError(f"{place}: {one!r} ends before it starts")
        if start < 0 < end:
            raise ValueError(f"{place}: {one!r} starts from the end of the month and ends from its start")
        found.append((start, end))
    return tuple(found)


def _number(word: str, names: Sequence[str], limits: Span, where: str) -> int:
    if word and word in names:
        return names.index(word)
    if not re.fullmatch(r"-?\d{1,4}", word) or (names == WEEKDAYS):
        right = f"one of {', '.join(name for name in names if name)}" if names else f"{limits[0]} to {limits[1]}"
        raise ValueError(f"{where}: {word!r} is not known; {right} would be right")
    if not limits[0] <= int(word) <= limits[1]:
        raise ValueError(f"{where}: {word} is out of range; {limits[0]} to {limits[1]} would be right")
    return int(word)
