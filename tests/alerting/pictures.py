"""Small words for the alerting tests: alerts by name, moments by wall clock, time lines as pictures."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from agent.core.labels import labels_of
from alerting.grouping import Decision, Dispatcher
from alerting.muting import Judge, nothing_muted
from alerting.notify.message import Alert, Notification

T0 = 1_700_000_000.0  # Tue 2023-11-14 22:13:20 UTC


def alert(name: str = "DiskFull", starts_at: float = T0, **labels: str) -> Alert:
    """A firing alert."""
    summary = (("summary", f"{name} on {labels.get('instance', 'db1')}"),)
    return Alert(labels_of({"alertname": name, **labels}), summary, starts_at=starts_at)


def at(text: str, zone: str = "UTC") -> float:
    """Unix time of `2024-03-31 02:30` in a zone."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def sent(decisions: list[Decision]) -> list[Notification]:
    """The notifications among the decisions."""
    return [one.notification for one in decisions if one.notification]


def run(dispatcher: Dispatcher, until: float, judge: Judge = nothing_muted) -> list[Decision]:
    """Let time pass up to `until`, deciding at exactly the moments the dispatcher asks for."""
    decisions: list[Decision] = []
    while (due := dispatcher.next_due()) is not None and due <= until:
        decisions += dispatcher.due(due, judge)
    return decisions
