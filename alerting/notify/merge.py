"""Many notifications made one: about the same group after an outage, or about many groups in a storm."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from alerting.notify.message import SUMMARY_KEY, Alert, DigestEntry, Notification

_MOST_ALERTS = 200  # in one


def merged(older: Notification, newer: Notification) -> Notification:
    """The newer one, with what the older one alone would have told: ends that nobody has heard of yet.

    Only as many as one message holds; the others are counted.
    """
    if newer.kind == "digest":
        return _merged_digest(older, newer)
    known = {alert.fingerprint for alert in newer.alerts}
    untold = tuple(alert for alert in older.alerts if not alert.is_firing and alert.fingerprint not in known)
    room = max(0, _MOST_ALERTS - len(newer.alerts))
    left_out = older.truncated_alerts + len(untold[room:])
    return replace(newer, alerts=newer.alerts + untold[:room], truncated_alerts=newer.truncated_alerts + left_out)


def _merged_digest(older: Notification, newer: Notification) -> Notification:
    entries = {entry.alert.fingerprint: entry for entry in older.entries}
    for entry in newer.entries:
        before = entries.get(entry.alert.fingerprint)
        entries[entry.alert.fingerprint] = entry if before is None else _added(before, entry)
    return replace(newer, entries=tuple(entries.values()), notes=older.notes + newer.notes)


def _added(before: DigestEntry, after: DigestEntry) -> DigestEntry:
    return replace(
        after, fired=before.fired + after.fired, resolved=before.resolved + after.resolved, first_at=before.first_at
    )


def summary(notifications: Iterable[Notification], receiver: str, now: float) -> Notification:
    """One message about many groups: firing alerts first, beyond a limit only counted."""
    firing: dict[str, Alert] = {}
    resolved: dict[str, Alert] = {}
    groups, external_url, zone = 0, "", "UTC"
    left_out = 0
    for one in notifications:
        groups += 1
        external_url, zone = one.external_url, one.zone
        left_out += one.truncated_alerts
        for alert in one.alerts:
            kept = firing if alert.is_firing else resolved
            if len(kept) < _MOST_ALERTS:
                kept[alert.fingerprint] = alert
            else:
                left_out += 1
    alerts = (*firing.values(), *resolved.values())
    return Notification(
        receiver, SUMMARY_KEY, alerts[:_MOST_ALERTS], now, (), external_url, zone,
        reason=f"{groups} groups at once", truncated_alerts=left_out + max(0, len(alerts) - _MOST_ALERTS),
    )  # fmt: skip
