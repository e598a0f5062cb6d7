"""The life of one alert: pending while its condition is young, firing, resolved. Pure: `now` is Unix seconds.

Facts: Prometheus' alerting rules, `for` and `keep_firing_for`. Ours: an alert whose inputs are gone because their
collector failed is held as it is, and its clocks stand still meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple, TypeAlias

from agent.core.labels import Labels

Phase: TypeAlias = Literal["pending", "firing", "resolved"]

RESOLVED_KEPT_S: Final = 900.0
EPOCH_S: Final = 60.0  # a jump of the wall clock by more is another time


class Breach(NamedTuple):
    """The condition holds: the value of the expression and the annotations made of it."""

    value: float
    annotations: Labels


class Timing(NamedTuple):
    """Of a rule, in seconds."""

    hold: float = 0.0
    keep_firing_for: float = 0.0


@dataclass(frozen=True, slots=True)
class Instance:
    """One alert of a rule; `labels` are its identity.

    `active_at`: since when the condition holds. `absent_since`: first evaluation without it, while kept firing.
    `stale_since`: since when it is held for want of data. All None while they do not apply.
    """

    labels: Labels
    annotations: Labels
    value: float
    phase: Phase
    active_at: float
    fired_at: float | None = None
    resolved_at: float | None = None
    absent_since: float | None = None
    stale_since: float | None = None

    @property
    def is_active(self) -> bool:
        """Pending or firing."""
        return self.phase != "resolved"


def step(
    before: Instance | None, labels: Labels, breach: Breach | None, now: float, timing: Timing, is_blind: bool = False
) -> Instance | None:
    """The alert after an evaluation; None when there is nothing to remember.

    `breach` None: the expression yields no such series; with `is_blind` that says nothing, for its inputs are gone.
    """
    if breach is not None:
        return _breached(before, labels, breach, now, timing)
    if before is None:
        return None
    if before.phase == "resolved":
        ended = now if before.resolved_at is None else before.resolved_at
        return before if now - ended <= RESOLVED_KEPT_S else None
    if is_blind:
        return before if before.stale_since is not None else replace(before, stale_since=now)
    if before.phase == "pending":
        return None
    return _absent(before, now, timing)


def _breached(before: Instance | None, labels: Labels, breach: Breach, now: float, timing: Timing) -> Instance:
    if before is None or before.phase == "resolved":
        after = Instance(labels, breach.annotations, breach.value, "pending", now)
    else:
        seen = _awake(before, now)
        after = replace(seen, annotations=breach.annotations, value=breach.value, absent_since=None)
    if after.phase == "pending" and now - after.active_at >= timing.hold:
        after = replace(after, phase="firing", fired_at=now)
    return after


def _absent(before: Instance, now: float, timing: Timing) -> Instance:
    seen = _awake(before, now)
    since = now if seen.absent_since is None else seen.absent_since
    if timing.keep_firing_for and now - since < timing.keep_firing_for:
        return replace(seen, absent_since=since)
    return replace(seen, phase="resolved", resolved_at=now, absent_since=None)


def _awake(before: Instance, now: float) -> Instance:
    """Data is back: the time without it does not count."""
    if before.stale_since is None:
        return before
    return shifted(replace(before, stale_since=None), now - before.stale_since)


def shifted(before: Instance, seconds: float) -> Instance:
    """The alert with its running clocks moved: `seconds` went by in which nobody looked, or the wall clock jumped.

    What is told (since when it fires) stays, unless it would lie in the future of a clock that was set back.
    """
    moved = replace(
        before,
        active_at=before.active_at + seconds if before.phase == "pending" else before.active_at,
        absent_since=None if before.absent_since is None else before.absent_since + seconds,
    )
    if seconds >= 0:
        return moved
    return replace(
        moved,
        active_at=before.active_at + seconds,
        fired_at=None if before.fired_at is None else before.fired_at + seconds,
        resolved_at=None if before.resolved_at is None else before.resolved_at + seconds,
        stale_since=None if before.stale_since is None else before.stale_since + seconds,
    )
