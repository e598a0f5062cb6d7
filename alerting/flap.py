"""Flap damping: an alert that comes and goes becomes one message, and is held as firing until it has calmed down.

Stands before the grouping: alerts in, alerts out. Pure: `now` is Unix seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from alerting.notify.message import Alert


@dataclass(frozen=True, slots=True)
class FlapPolicy:
    """`changes` beginnings and ends within `window` seconds are flapping; 0 never calls it that.

    The hold starts at `first_hold` and doubles, up to `longest_hold`, while the alert keeps changing in it.
    """

    changes: int = 6
    window: float = 1800.0
    first_hold: float = 900.0
    longest_hold: float = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class FlapState:
    """One alert as it really is, and when it changed."""

    alert: Alert
    changes: tuple[float, ...] = ()
    hold: float = 0.0  # seconds; 0 while it is not held
    held_until: float = 0.0
    changed_in_hold: bool = False

    def told(self) -> Alert:
        """What the outside gets to see."""
        return replace(self.alert, state="firing", ends_at=None, is_flapping=True) if self.hold else self.alert


def observe(state: FlapState | None, alert: Alert, now: float, policy: FlapPolicy) -> FlapState:
    """The state after seeing the alert as it is now."""
    is_change = alert.is_firing if state is None else alert.state != state.alert.state
    before = () if state is None else state.changes
    changes = tuple(at for at in before if now - at < policy.window) + ((now,) if is_change else ())
    if state is not None and state.hold:
        return replace(state, alert=alert, changes=changes, changed_in_hold=state.changed_in_hold or is_change)
    if policy.changes and is_change and len(changes) >= policy.changes:
        return FlapState(alert, changes, policy.first_hold, now + policy.first_hold)
    return FlapState(alert, changes)


def release(state: FlapState, now: float, policy: FlapPolicy) -> FlapState:
    """The state when a hold is over: twice as long if it changed meanwhile, else free."""
    if not state.hold or now < state.held_until:
        return state
    if state.changed_in_hold:
        hold = min(state.hold * 2, policy.longest_hold)
        return replace(state, hold=hold, held_until=now + hold, changed_in_hold=False)
    return FlapState(state.alert)


@dataclass(slots=True)
class FlapDamper:
    """The states of all alerts that changed lately."""

    policy: FlapPolicy = FlapPolicy()
    states: dict[str, FlapState] = field(default_factory=dict)

    def pass_on(self, alerts: Iterable[Alert], now: float) -> list[Alert]:
        """The alerts as they shall be told."""
        told = []
        for alert in alerts:
            state = observe(self.states.get(alert.fingerprint), alert, now, self.policy)
            if state.alert.is_firing or state.changes or state.hold:
                self.states[alert.fingerprint] = state
            else:
                self.states.pop(alert.fingerprint, None)
            told.append(state.told())
        return told

    def due(self, now: float) -> list[Alert]:
        """Alerts that calmed down, as they really are; forgets what has been quiet for long."""
        freed = []
        for key, state in list(self.states.items()):
            after = release(state, now, self.policy)
            if state.hold and not after.hold:
                freed.append(after.told())
            quiet = not after.hold and all(now - at >= self.policy.window for at in after.changes)
            if quiet and not after.alert.is_firing:
                del self.states[key]
            else:
                self.states[key] = after
        return freed

    def next_due(self) -> float | None:
        """When the next hold ends; None while nothing is held."""
        return min((state.held_until for state in self.states.values() if state.hold), default=None)
