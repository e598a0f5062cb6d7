"""Grouping: when is which group told? A pure state machine: alerts in, decisions out, `now` passed in.

A group is told first `group_wait` after it began (at once when its alert is older than that), then `group_interval`
after the last time when alerts came along, exactly `repeat_interval` after the last time when nothing changed, and
`resolve_wait` after an alert ended. An alert that was muted and no longer is counts as new.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from agent.core.labels import Labels, show
from agent.core.units import format_duration
from alerting.digest import Digest
from alerting.muting import Judge, Mute, nothing_muted
from alerting.notify.message import Alert, DigestEntry, DigestNote, Notification, printable
from alerting.routing import Route

_MUTED = "muted"  # told as firing once, and muted now


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about a group, in one sentence; with a notification when something is to be sent."""

    at: float
    receiver: str
    group_key: str
    sentence: str
    notification: Notification | None = None
    fingerprint: str = ""  # of the alert it concerns, where it concerns one


@dataclass(slots=True)
class Group:
    """The alerts of one route that share the route's labels. Times in Unix seconds."""

    labels: Labels
    next_at: float
    alerts: dict[str, Alert] = field(default_factory=dict)  # by fingerprint
    told: dict[str, str] = field(default_factory=dict)  # what the receiver knows: firing, flapping, muted
    muted: dict[str, str] = field(default_factory=dict)  # why an alert was not told, as last logged
    flushed_at: float | None = None  # None until looked at for the first time
    sent_at: float | None = None


class Dispatcher:
    """All groups of all routes. `resolve_wait`: seconds to gather ends in; `zone`: of the times people read."""

    def __init__(self, root: Route, external_url: str = "", resolve_wait: float = 1.0, zone: str = "UTC") -> None:
        self._routes = {route.id: route for route in root.walk()}
        self._root = root
        self._external_url = external_url
        self._zone = zone
        self._resolve_wait = resolve_wait
        self._groups: dict[tuple[str, Labels], Group] = {}
        self._digests: dict[str, Digest] = {}

    def __len__(self) -> int:
        return len(self._groups)

    # Alerts come in.

    def update(self, alerts: Iterable[Alert], now: float) -> list[Decision]:
        """Take alerts in their present state; the decisions are those already clear (nothing is sent from here)."""
        decisions: list[Decision] = []
        for alert in map(printable, alerts):
            for route in self._root.matching(alert.labels):
                if route.digest is not None:
                    self._digest(route, now).observe(alert)
                    continue
                decision = self._take(alert, route, now)
                if decision is not None:
                    decisions.append(decision)
        return decisions

    def note(self, note: DigestNote, now: float) -> None:
        """A line for every digest, such as the result of a backup."""
        for route in self._routes.values():
            if route.digest is not None:
                self._digest(route, now).note(note)

    def _digest(self, route: Route, now: float) -> Digest:
        assert route.digest is not None  # asked by the callers
        return self._digests.setdefault(route.id, Digest(route.digest.next_at(now)))

    def _take(self, alert: Alert, route: Route, now: float) -> Decision | None:
        labels = route.group_labels(alert.labels)
        group = self._groups.get((route.id, labels))
        if alert.is_firing:
            due = max(now, alert.starts_at + route.group_wait)
            if group is None:
                group = self._groups[route.id, labels] = Group(labels, due)
            elif _is_news(group, alert):
                waits_for = 0.0 if group.flushed_at is None else group.flushed_at + route.group_interval
                group.next_at = min(group.next_at, max(due, waits_for))
            group.alerts[alert.fingerprint] = alert
            return None
        if group is None or alert.fingerprint not in group.alerts:
            return None
        if alert.fingerprint in group.told:
            if group.alerts[alert.fingerprint].is_firing:
                group.next_at = min(group.next_at, now + self._resolve_wait)
            group.alerts[alert.fingerprint] = alert
            return None
        why = group.muted.get(alert.fingerprint)
        self._drop(route, group, alert.fingerprint)
        sentence = f"not sent: {alert.name or 'the alert'} was over before it was told" + (f" ({why})" if why else "")
        return Decision(now, route.receiver, route.group_key(labels), sentence, fingerprint=alert.fingerprint)

    def _drop(self, route: Route, group: Group, fingerprint: str) -> None:
        group.alerts.pop(fingerprint, None)
        group.told.pop(fingerprint, None)
        group.muted.pop(fingerprint, None)
        if not group.alerts:
            self._groups.pop((route.id, group.labels), None)

    # Decisions go out.

    def next_due(self) -> float | None:
        """When `due` will next have something to decide; None while there is nothing."""
        moments = [group.next_at for group in self._groups.values()]
        moments += [digest.next_at for digest in self._digests.values()]
        return min(moments, default=None)

    def look_again(self, now: float) -> None:
        """Something that mutes has changed (a silence came or went): judge all groups anew at once."""
        for group in self._groups.values():
            if group.flushed_at is not None:
                group.next_at = min(group.next_at, now)

    def due(self, now: float, judge: Judge = nothing_muted) -> list[Decision]:
        """Decide about every group whose time has come."""
        decisions: list[Decision] = []
        for (key, _), group in list(self._groups.items()):
            if group.next_at <= now:
                decisions += self._flush(self._routes[key], group, now, judge)
        for key, digest in self._digests.items():
            if digest.next_at <= now:
                decisions.append(self._tell_digest(self._routes[key], digest, now))
        return decisions

    def _flush(self, route: Route, group: Group, now: float, judge: Judge) -> list[Decision]:
        mutes = {one: judge(alert, route, now) for one, alert in group.alerts.items()}
        decisions = self._log_mutes(route, group, mutes, now)
        tell, rechecks = [], []
        for one, alert in group.alerts.items():
            mute = mutes[one]
            if mute is None or (not alert.is_firing and mute.kind != "time"):  # an end is told whatever is silenced
                tell.append(alert)
                continue
            if one in group.told:
                group.told[one] = _MUTED
            rechecks.append(now + route.group_interval if mute.until is None else mute.until)
        reason = self._why(route, group, tell, now)
        group.flushed_at = now
        if reason:
            decisions.append(self._tell(route, group, tell, reason, now))
        repeat_at = [] if group.sent_at is None or not tell else [group.sent_at + route.repeat_interval]
        group.next_at = min([*repeat_at, *rechecks], default=now + route.repeat_interval)
        return decisions

    def _why(self, route: Route, group: Group, tell: list[Alert], now: float) -> str:
        """Why a message is due, in a sentence; empty when none is."""
        news = Counter(_news(alert, group.told.get(alert.fingerprint)) for alert in tell)
        parts = [f"{news[word]} {word}" for word in ("new", "flapping", "no longer flapping", "resolved") if news[word]]
        if parts:
            return ", ".join(parts)
        if tell and group.sent_at is not None and now >= group.sent_at + route.repeat_interval:
            return f"still firing, repeated after {format_duration(route.repeat_interval)}"
        return ""

    def _tell(self, route: Route, group: Group, tell: list[Alert], reason: str, now: float) -> Decision:
        key = route.group_key(group.labels)
        ordered = tuple(sorted(tell, key=lambda alert: (not alert.is_firing, alert.starts_at, alert.labels)))
        notification = Notification(
            route.receiver, key, ordered, now, group.labels, self._external_url, self._zone, reason=reason,
            repeat_interval=route.repeat_interval,
        )  # fmt: skip
        group.sent_at = now
        for alert in tell:
            if alert.is_firing:
                group.told[alert.fingerprint] = _mark(alert)
            else:
                self._drop(route, group, alert.fingerprint)
        return Decision(now, route.receiver, key, f"sent to {route.receiver}: {reason}", notification)

    def _log_mutes(self, route: Route, group: Group, mutes: Mapping[str, Mute | None], now: float) -> list[Decision]:
        """One decision for each alert that is muted from now on, or for another reason than before."""
        decisions = []
        for one, mute in mutes.items():
            if mute is None:
                group.muted.pop(one, None)
            elif group.muted.get(one) != mute.sentence:
                group.muted[one] = mute.sentence
                alert = group.alerts[one]
                if alert.is_firing:
                    sentence = f"not sent: {show(alert.labels)} is {mute.sentence}"
                    decisions.append(
                        Decision(now, route.receiver, route.group_key(group.labels), sentence, fingerprint=one)
                    )
        return decisions

    def _tell_digest(self, route: Route, digest: Digest, now: float) -> Decision:
        assert route.digest is not None  # only such routes have one
        left_out = len(digest.left_out)
        entries, notes = digest.take(route.digest.next_at(now))
        key = f"{route.key}:digest"
        if not entries and not notes:
            return Decision(now, route.receiver, key, "not sent: nothing happened since the last digest")
        alerts = tuple(entry.alert for entry in entries if entry.alert.is_firing)
        notification = Notification(
            route.receiver, key, alerts, now, (), self._external_url, self._zone, kind="digest", reason="daily summary",
            truncated_alerts=left_out, entries=entries, notes=notes,
        )  # fmt: skip
        return Decision(
            now, route.receiver, key, f"sent to {route.receiver}: digest of {len(entries)} alerts", notification
        )

    # Restarts.

    def snapshot(self) -> bytes:
        """All groups and digests as JSON."""
        groups = [_SavedGroup(key, group) for (key, _), group in self._groups.items()]
        digests = {key: digest.as_state() for key, digest in self._digests.items()}
        return msgspec.json.encode({"groups": groups, "digests": digests})

    def restore(self, saved: bytes, now: float | None = None) -> list[Alert]:
        """Take up a snapshot. Alerts of routes that are gone come back, to be routed anew. Raise ValueError.

        `now`: for digests to be told when their schedule says so from now on, one that is due at once; None: as saved.
        """
        try:
            state = msgspec.json.decode(saved, type=_Saved)
        except msgspec.DecodeError as error:
            raise ValueError(f"saved groups: {error}") from error
        homeless: list[Alert] = []
        for one in state.groups:
            if one.route in self._routes and self._routes[one.route].digest is None:
                self._groups[one.route, one.group.labels] = one.group
            else:
                homeless += one.group.alerts.values()
        for key, digest in state.digests.items():
            schedule = self._routes[key].digest if key in self._routes else None
            if schedule is not None:
                next_at = digest.next_at if now is None or digest.next_at <= now else schedule.next_at(now)
                entries = {entry.alert.fingerprint: entry for entry in digest.entries}
                self._digests[key] = Digest(next_at, entries, digest.notes, digest.left_out)
        return homeless


class _SavedGroup(msgspec.Struct):
    route: str
    group: Group


class _SavedDigest(msgspec.Struct):
    next_at: float
    entries: list[DigestEntry]
    notes: list[DigestNote]
    left_out: set[str] = set()


class _Saved(msgspec.Struct):
    groups: list[_SavedGroup]
    digests: dict[str, _SavedDigest]


def _mark(alert: Alert) -> str:
    return "flapping" if alert.is_flapping else "firing"


def _news(alert: Alert, told: str | None) -> str:
    """What there is to tell about an alert of which the receiver knows `told`; empty when nothing."""
    if not alert.is_firing:
        return "resolved"
    if alert.is_flapping:
        return "flapping" if told != "flapping" else ""
    if told == "flapping":
        return "no longer flapping"
    return "new" if told != "firing" else ""


def _is_news(group: Group, alert: Alert) -> bool:
    """Does it say something the group does not know? A value or an annotation that changed is none."""
    known = group.alerts.get(alert.fingerprint)
    return known is None or not known.is_firing or known.is_flapping != alert.is_flapping
