"""Digests: what fired and was over meanwhile, told once a day at a wall-clock time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from alerting.intervals import WEEKDAYS, at_wall_time, find_zone, parse_wall_time
from alerting.notify.message import Alert, DigestEntry, DigestNote

_MOST_ENTRIES = 2000  # alerts in one digest; a day with more needs another remedy
_MOST_NOTES = 500


@dataclass(frozen=True, slots=True)
class DigestSchedule:
    """A minute of the day on the wall clock of a zone, on some weekdays (0 is Sunday) or all."""

    minute: int = 8 * 60
    zone: str = "UTC"
    weekdays: frozenset[int] = frozenset(range(7))

    def next_at(self, after: float) -> float:
        """The next moment after `after`, Unix seconds: once each day, whatever summer time does to the clock."""
        zone = find_zone(self.zone)
        day = datetime.fromtimestamp(after, zone).date() - timedelta(days=1)
        while True:
            moment = at_wall_time(day, self.minute, zone)
            if moment > after and day.isoweekday() % 7 in self.weekdays:
                return moment
            day += timedelta(days=1)


def parse_schedule(raw: object, where: str) -> DigestSchedule:
    """`{at: '08:00', timezone: Europe/Berlin, weekdays: [monday]}`. Raise ValueError with the place."""
    if not isinstance(raw, Mapping):
        raise ValueError(f"{where}: found {raw!r}; write it like {{at: '08:00', timezone: Europe/Berlin}}")
    for key in raw:
        if key not in {"at", "timezone", "weekdays"}:
            raise ValueError(f"{where}.{key}: no such key; one of at, timezone, weekdays would be right")
    minute = parse_wall_time(raw.get("at", "08:00"), f"{where}.at")
    zone = str(raw.get("timezone", "UTC"))
    try:
        find_zone(zone)
    except ValueError as error:
        raise ValueError(f"{where}.timezone: {error}") from error
    names = [re.sub(r"\s", "", str(name)).lower() for name in raw.get("weekdays") or WEEKDAYS]
    for name in names:
        if name not in WEEKDAYS:
            raise ValueError(f"{where}.weekdays: {name!r} is no weekday; one of {', '.join(WEEKDAYS)} would be right")
    return DigestSchedule(minute, zone, frozenset(map(WEEKDAYS.index, names)))


@dataclass(slots=True)
class Digest:
    """What is collected for the next digest of one route."""

    next_at: float
    entries: dict[str, DigestEntry] = field(default_factory=dict)  # by fingerprint
    notes: list[DigestNote] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)  # fingerprints of alerts beyond the most that are kept

    def observe(self, alert: Alert) -> None:
        """Take note of an alert in its present state."""
        known = self.entries.get(alert.fingerprint)
        if known is None and not alert.is_firing:
            return  # over before it was ever heard of
        if known is None and len(self.entries) >= _MOST_ENTRIES:
            self.left_out.add(alert.fingerprint)
            return
        entry = known or DigestEntry(alert.resolved(alert.starts_at), first_at=alert.starts_at)
        began = alert.is_firing and not entry.alert.is_firing
        ended = entry.alert.is_firing and not alert.is_firing
        first_at = alert.starts_at if began and not entry.fired else entry.first_at
        self.entries[alert.fingerprint] = replace(
            entry, alert=alert, fired=entry.fired + began, resolved=entry.resolved + ended, first_at=first_at
        )

    def note(self, note: DigestNote) -> None:
        """Add a line, such as the result of a backup; of too many the oldest go."""
        self.notes = [*self.notes, note][-_MOST_NOTES:]

    def take(self, next_at: float) -> tuple[tuple[DigestEntry, ...], tuple[DigestNote, ...]]:
        """What to tell now; afterwards only what still fires is remembered."""
        entries = tuple(sorted(self.entries.values(), key=lambda one: (not one.alert.is_firing, one.first_at)))
        notes = tuple(self.notes)
        self.entries = {
            one.alert.fingerprint: DigestEntry(one.alert, first_at=one.first_at)
            for one in entries
            if one.alert.is_firing
        }
        self.notes, self.left_out, self.next_at = [], set(), next_at
        return entries, notes

    def as_state(self) -> dict[str, Any]:
        """In values that msgspec turns into JSON."""
        return {"next_at": self.next_at, "entries": list(self.entries.values()), "notes": self.notes,
                "left_out": self.left_out}  # fmt: skip
