"""May this alert be told now? Inhibition, active and mute times, silences, in this order; the first answer holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias

from agent.core.labels import show
from alerting.inhibition import Inhibitor
from alerting.intervals import TimeInterval, contains, find_zone, next_change
from alerting.notify.message import Alert
from alerting.routing import Route
from alerting.silences import Silences


@dataclass(frozen=True, slots=True)
class Mute:
    """Why an alert is not told. `until`: Unix seconds when to ask again; None when that depends on other alerts."""

    kind: Literal["inhibited", "time", "silenced"]
    sentence: str
    until: float | None = None


Judge: TypeAlias = Callable[[Alert, Route, float], Mute | None]


def nothing_muted(_alert: Alert, _route: Route, _now: float) -> Mute | None:
    """The judge of a house without rules."""
    return None


@dataclass(slots=True)
class Muting:
    """Everything that can keep an alert quiet. `judge` is what the grouping asks."""

    inhibitor: Inhibitor = field(default_factory=lambda: Inhibitor(()))
    intervals: Mapping[str, tuple[TimeInterval, ...]] = field(default_factory=dict)
    silences: Silences = field(default_factory=Silences)
    zone: str = "UTC"  # of the times in sentences

    def judge(self, alert: Alert, route: Route, now: float) -> Mute | None:
        """None when it may be told."""
        source = self.inhibitor.source_of(alert.labels) if alert.is_firing else None
        if source is not None:
            return Mute("inhibited", f"inhibited by {show(source)}")
        return self._by_time(route, now) or self._by_silence(alert, now)

    def _by_time(self, route: Route, now: float) -> Mute | None:
        active = [window for name in route.active_time_intervals for window in self.intervals[name]]
        if active and not contains(active, now):
            until = next_change(active, now)
            return Mute("time", f"outside of {_names(route.active_time_intervals)}{self._until(until)}", until)
        for name in route.mute_time_intervals:
            if contains(self.intervals[name], now):
                until = next_change(self.intervals[name], now)
                return Mute("time", f"muted by the time interval {name}{self._until(until)}", until)
        return None

    def _by_silence(self, alert: Alert, now: float) -> Mute | None:
        silences = self.silences.muting(alert.labels, now)
        if not silences:
            return None
        for silence in silences if alert.is_firing else ():
            self.silences.note(silence, alert.fingerprint)
        longest = silences[0]
        until = longest.until(now)
        return Mute("silenced", f"silenced by {longest.id}{self._until(until)}: {longest.reason}", until)

    def _until(self, moment: float | None) -> str:
        return "" if moment is None else f" until {datetime.fromtimestamp(moment, find_zone(self.zone)):%Y-%m-%d %H:%M}"


def _names(names: tuple[str, ...]) -> str:
    return "the active time " + " or ".join(names)
