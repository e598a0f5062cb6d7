"""Silences that people survive: matchers, a reason, an end, and where wanted recurring windows.

Pure: `now` is Unix seconds, passed in; who keeps the silences (a database) writes `to_row` and reads `from_row`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypedDict

import msgspec

from agent.core.labels import Labels, Matcher, select
from alerting.intervals import TimeInterval, contains, next_change
from alerting.matching import parse_matchers, show_matchers

_KEPT_S = 5 * 86400.0  # how long an ended silence is still listed


@dataclass(frozen=True, slots=True)
class Silence:
    """What matches is not told between `starts_at` and `ends_at` (within the windows only, where there are any)."""

    id: str
    matchers: tuple[Matcher, ...]
    starts_at: float
    ends_at: float
    reason: str
    created_by: str = ""
    windows: tuple[TimeInterval, ...] = ()
    ends_on_resolve: bool = False  # over as soon as everything it muted is resolved
    has_muted: frozenset[str] = frozenset()  # fingerprints it muted that still fire

    def is_active(self, now: float) -> bool:
        """Does it mute now?"""
        return self.starts_at <= now < self.ends_at and (not self.windows or contains(self.windows, now))

    def until(self, now: float) -> float:
        """When it stops muting, as far as can be known now."""
        change = next_change(self.windows, now) if self.windows else None
        return self.ends_at if change is None else min(self.ends_at, change)

    def state(self, now: float) -> str:
        """`pending`, `active` or `expired`; `waiting` between two windows."""
        if now < self.starts_at:
            return "pending"
        if now >= self.ends_at:
            return "expired"
        return "active" if self.is_active(now) else "waiting"

    def matches(self, labels: Labels) -> bool:
        """Is this alert one of those it mutes?"""
        return select(labels, self.matchers)

    def overlaps(self, other: Silence) -> bool:
        """Does it mute the same alerts at a time when the other does, as far as matchers and ends tell?"""
        is_same = sorted(map(str, self.matchers)) == sorted(map(str, other.matchers))
        return is_same and self.starts_at < other.ends_at and other.starts_at < self.ends_at


class SilenceRow(TypedDict):
    """A silence in plain values, as JSON keeps it."""

    id: str
    matchers: str
    starts_at: float
    ends_at: float
    reason: str
    created_by: str
    windows: list[dict[str, Any]]
    ends_on_resolve: bool
    has_muted: list[str]


def new_silence(
    matchers: str | Iterable[str],
    starts_at: float,
    ends_at: float,
    reason: str,
    created_by: str = "",
    windows: Sequence[TimeInterval] = (),
    ends_on_resolve: bool = False,
) -> Silence:
    """A silence with an id of its own. Raise ValueError for one that mutes everything or never, or has no reason."""
    parsed = parse_matchers(matchers)
    if not parsed:
        raise ValueError('no matchers: this would silence everything; write at least one, like instance="db1"')
    if all(matcher.matches("") for matcher in parsed):
        raise ValueError(
            f"{show_matchers(parsed)}: matches alerts without these labels too, so it would silence everything"
        )
    if not reason.strip():
        raise ValueError('no reason; say why with -m "..."')
    if ends_at <= starts_at:
        raise ValueError("a silence must end after its start")
    identity = f"{show_matchers(parsed)} {starts_at!r} {ends_at!r} {reason} {created_by} {tuple(windows)!r}"
    id = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return Silence(id, parsed, starts_at, ends_at, reason.strip(), created_by, tuple(windows), ends_on_resolve)


def to_row(silence: Silence) -> SilenceRow:
    """In plain values."""
    return {
        "id": silence.id,
        "matchers": show_matchers(silence.matchers),
        "starts_at": silence.starts_at,
        "ends_at": silence.ends_at,
        "reason": silence.reason,
        "created_by": silence.created_by,
        "windows": [asdict(window) for window in silence.windows],
        "ends_on_resolve": silence.ends_on_resolve,
        "has_muted": sorted(silence.has_muted),
    }


def from_row(row: SilenceRow) -> Silence:
    """Back from plain values. Raise ValueError or KeyError for what `to_row` did not write."""
    windows = tuple(msgspec.convert(row["windows"], list[TimeInterval]))
    return Silence(
        row["id"], parse_matchers(row["matchers"]), row["starts_at"], row["ends_at"], row["reason"], row["created_by"],
        windows, row["ends_on_resolve"], frozenset(row["has_muted"]),
    )  # fmt: skip


@dataclass(slots=True)
class Silences:
    """All silences there are, by id."""

    by_id: dict[str, Silence] = field(default_factory=dict)

    def add(self, silence: Silence) -> None:
        """A new silence, or another version of one."""
        self.by_id[silence.id] = silence

    def expire(self, id: str, now: float) -> Silence:
        """End one now. Raise KeyError when there is none of that id, or it is over."""
        silence = self.by_id[id]
        if now >= silence.ends_at:
            raise KeyError(id)
        ended = replace(silence, starts_at=min(silence.starts_at, now), ends_at=now)
        self.by_id[id] = ended
        return ended

    def muting(self, labels: Labels, now: float) -> list[Silence]:
        """The silences that mute an alert with these labels now, the one that lasts longest first."""
        found = [one for one in self.by_id.values() if one.is_active(now) and one.matches(labels)]
        return sorted(found, key=lambda one: -one.until(now))

    def note(self, silence: Silence, fingerprint: str) -> None:
        """Remember what a silence mutes, for those that end on resolve."""
        if silence.ends_on_resolve and fingerprint not in silence.has_muted:
            self.by_id[silence.id] = replace(silence, has_muted=silence.has_muted | {fingerprint})

    def resolved(self, fingerprint: str, now: float) -> list[Silence]:
        """An alert is over: end the silences that waited for that and mute nothing else. Return them."""
        ended = []
        for silence in list(self.by_id.values()):
            if fingerprint in silence.has_muted:
                rest = silence.has_muted - {fingerprint}
                self.by_id[silence.id] = replace(silence, has_muted=rest)
                if not rest and now < silence.ends_at:
                    ended.append(self.expire(silence.id, now))
        return ended

    def next_change(self, now: float) -> float | None:
        """When a silence next begins or ends to mute; None when none will."""
        moments = []
        for silence in self.by_id.values():
            if now < silence.starts_at:
                moments.append(silence.starts_at)
            elif now < silence.ends_at:
                moments.append(silence.until(now))
        return min(moments, default=None)

    def forget(self, now: float) -> list[str]:
        """Drop those that ended days ago; return their ids."""
        old = [id for id, silence in self.by_id.items() if now - silence.ends_at > _KEPT_S]
        for id in old:
            del self.by_id[id]
        return old
