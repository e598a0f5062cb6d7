"""Who is told what, when and how: the configuration of alerting as the desk has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.core.labels import Labels
from alerting.flap import FlapPolicy
from alerting.inhibition import InhibitRule
from alerting.intervals import TimeInterval
from alerting.notify.message import Alert, Notification, Notifier
from alerting.pacing import OutboxOptions
from alerting.routing import Route

NOBODY: Final = Route("{}", "nobody", "")  # the tree where there is no receiver


@dataclass(frozen=True, slots=True)
class Policy:
    """Who is told what, when and how. `notifiers` by the name of their receiver; `zone`: of times people read.

    `source`: this host, as receivers that several hosts tell know it. `forwards`: receivers that get all alerts past
    the routes, because they route by themselves.
    """

    root: Route = NOBODY
    notifiers: Mapping[str, Notifier] = field(default_factory=dict)
    inhibit_rules: tuple[InhibitRule, ...] = ()
    intervals: Mapping[str, tuple[TimeInterval, ...]] = field(default_factory=dict)
    flap: FlapPolicy = FlapPolicy()
    outbox: OutboxOptions = field(default_factory=OutboxOptions)
    external_url: str = ""
    zone: str = "UTC"
    source: str = ""
    forwards: tuple[str, ...] = ()

    @property
    def summarizing(self) -> frozenset[str]:
        """Receivers to whom one message may stand for many."""
        return frozenset(name for name, one in self.notifiers.items() if one.can_summarize)


def sample_notification(receiver: str, policy: Policy, labels: Labels, now: float, message_id: str) -> Notification:
    """What `notify test` sends: an alert that says of itself that it is none."""
    alert = Alert(
        labels, (("description", "Somebody asked for it; nothing is wrong."), ("summary", "This is a test")),
        starts_at=now,
    )  # fmt: skip
    return Notification(
        receiver, "{}:test", (alert,), now, labels, policy.external_url, policy.zone, policy.source, now, message_id,
        kind="test", reason="a test that somebody asked for",
    )  # fmt: skip
