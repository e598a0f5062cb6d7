"""The words of telling: Alert, Notification, and what a notifier is.

Times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, Final, Literal, Protocol, TypeAlias

from agent.core.labels import Labels, quote, value_of

State: TypeAlias = Literal["firing", "resolved"]

SUMMARY_KEY: Final = "summary"  # the group key of a message about many groups

_FNV_OFFSET = 14695981039346656037
_FNV_PRIME = 1099511628211
_64_BITS = (1 << 64) - 1


@lru_cache(maxsize=20_000)
def fingerprint(labels: Labels) -> str:
    """FNV-1a, 64 bits, over sorted `name 0xff value 0xff`, as 16 hex digits: Alertmanager's identity of an alert."""
    digest = _FNV_OFFSET
    for name, value in labels:
        for byte in b"%s\xff%s\xff" % (
            name.encode("utf-8", "surrogateescape"),
            value.encode("utf-8", "surrogateescape"),
        ):
            digest = (digest ^ byte) * _FNV_PRIME & _64_BITS
    return f"{digest:016x}"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert as it is told; its labels are its identity."""

    labels: Labels
    annotations: Labels = ()
    state: State = "firing"
    starts_at: float = 0.0  # since when it fires
    ends_at: float | None = None  # None while it fires
    value: float | None = None  # of the rule's expression, last seen
    generator_url: str = ""
    is_stale: bool = False  # its inputs are gone, so it is held in its last state
    is_flapping: bool = False  # comes and goes so often that it is held as firing

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.labels)

    @property
    def name(self) -> str:
        return value_of(self.labels, "alertname")

    @property
    def is_firing(self) -> bool:
        return self.state == "firing"

    def resolved(self, at: float) -> Alert:
        """The same alert, over since `at`."""
        return replace(self, state="resolved", ends_at=at)


def printable(alert: Alert) -> Alert:
    """The alert without bytes that are no UTF-8, which names of mounts may hold and no receiver takes."""
    words = [word for pair in (*alert.labels, *alert.annotations) for word in pair]
    if all(word.isascii() for word in words):
        return alert
    return replace(alert, labels=_printable(alert.labels), annotations=_printable(alert.annotations))


def _printable(pairs: Labels) -> Labels:
    return tuple((name, value.encode("utf-8", "replace").decode()) for name, value in pairs)


@dataclass(frozen=True, slots=True)
class DigestEntry:
    """What one alert did since the last digest."""

    alert: Alert  # as it is now
    fired: int = 0  # times it began
    resolved: int = 0  # times it ended
    first_at: float = 0.0  # when it began the first time


@dataclass(frozen=True, slots=True)
class DigestNote:
    """Something else worth a line in the digest, such as the result of a backup."""

    at: float
    is_good: bool
    text: str


Kind: TypeAlias = Literal["alerts", "digest", "test"]


@dataclass(frozen=True, slots=True)
class Notification:
    """One message to one receiver about one group of alerts, all of them in their present state."""

    receiver: str
    group_key: str
    alerts: tuple[Alert, ...]
    at: float
    group_labels: Labels = ()
    external_url: str = ""
    zone: str = "UTC"  # of the times people read
    source: str = ""  # the host that tells it; set as it is sent
    sent_at: float = 0.0  # of this attempt to send it; set as it is sent
    message_id: str = ""  # stable over every attempt to send it; set by the outbox
    kind: Kind = "alerts"
    reason: str = ""  # one sentence: why it is sent now
    truncated_alerts: int = 0  # left out of `alerts` because there were too many
    repeat_interval: float = 0.0  # seconds until it comes again while nothing changes
    entries: tuple[DigestEntry, ...] = ()  # of a digest
    notes: tuple[DigestNote, ...] = ()  # of a digest

    @property
    def status(self) -> State:
        """Firing while any alert is."""
        return "firing" if any(alert.is_firing for alert in self.alerts) else "resolved"

    @property
    def firing(self) -> list[Alert]:
        return [alert for alert in self.alerts if alert.is_firing]

    @property
    def resolved(self) -> list[Alert]:
        return [alert for alert in self.alerts if not alert.is_firing]

    @property
    def common_labels(self) -> Labels:
        return common(alert.labels for alert in self.alerts)

    @property
    def common_annotations(self) -> Labels:
        return common(alert.annotations for alert in self.alerts)

    @property
    def thread_id(self) -> str:
        """Host, receiver and group in 16 hex digits: what threads are told apart by, where hosts share a receiver."""
        return fingerprint((("group", self.group_key), ("receiver", self.receiver), ("source", self.source)))


def common(sets: Iterable[Labels]) -> Labels:
    """The pairs that all sets share."""
    remaining: set[tuple[str, str]] | None = None
    for one in sets:
        remaining = set(one) if remaining is None else remaining & set(one)
    return tuple(sorted(remaining or ()))


def show_group_labels(labels: Labels) -> str:
    """As the group key has them: {alertname="X", severity="critical"}."""
    return "{" + ", ".join(f"{name}={quote(value)}" for name, value in labels) + "}"


@dataclass(frozen=True, slots=True)
class SentReceipt:
    """What the other side said. `provider_id` finds the message again (to edit it, to answer in its thread)."""

    provider_id: str | None = None
    detail: str = ""  # one line for the log: `200 ok`
    rest: float = 0.0  # seconds to send nothing more to this receiver


class Notifier(Protocol):
    """A way to reach someone. Options are dataclass fields; it keeps no state between messages."""

    kind: ClassVar[str]
    can_summarize: ClassVar[bool]  # False where every group is an incident of its own that must be closed

    def send(self, notification: Notification, previous: str | None) -> SentReceipt:
        """Send, blocking, within the notifier's deadline. `previous`: provider id of the last message of this thread.

        Raise Retryable or Rejected.
        """
        ...

    def preview(self, notification: Notification) -> str:
        """What would be sent, for people; without secrets."""
        ...
