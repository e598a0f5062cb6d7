"""The notification as data: Alertmanager's webhook JSON, version 4, and what templates of messages see."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from agent.core.labels import Labels
from alerting.notify.message import Alert, DigestEntry, DigestNote, Notification
from alerting.templates.expander import Helpers, Template
from alerting.templates.values import MethodList, MethodMap, StringMap, Struct, Time

_NEVER = "0001-01-01T00:00:00Z"  # Go's zero time: the end of what has not ended


def rfc3339(moment: float) -> str:
    """Unix seconds as RFC 3339 in UTC, to the millisecond as Alertmanager's clients write it."""
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
    return text.rstrip("0").rstrip(".") + "Z" if "." in text else text + "Z"


def webhook_json(notification: Notification, most_alerts: int = 0) -> dict[str, Any]:
    """Alertmanager's webhook body; a digest, which Alertmanager has not, says more beside.

    `most_alerts`: beyond them alerts are only counted; 0 is no limit.
    """
    alerts = [*notification.firing, *notification.resolved]
    shown = alerts[:most_alerts] if most_alerts else alerts
    more = _digest_json(notification) if notification.kind == "digest" else {}
    return {
        "receiver": notification.receiver,
        "status": notification.status,
        "alerts": [alert_json(alert) for alert in shown],
        "groupLabels": dict(notification.group_labels),
        "commonLabels": dict(notification.common_labels),
        "commonAnnotations": dict(notification.common_annotations),
        "externalURL": notification.external_url,
        "version": "4",
        "groupKey": notification.group_key,
        "truncatedAlerts": notification.truncated_alerts + len(alerts) - len(shown),
        **more,
    }


def _digest_json(notification: Notification) -> dict[str, Any]:
    """What was over as well, how often, and the notes."""
    return {
        "kind": notification.kind,
        "digest": [
            alert_json(entry.alert) | {"fired": entry.fired, "resolved": entry.resolved}
            for entry in notification.entries
        ],
        "notes": [{"at": rfc3339(note.at), "good": note.is_good, "text": note.text} for note in notification.notes],
    }


def alert_json(alert: Alert) -> dict[str, Any]:
    """One alert of the webhook body."""
    return {
        "status": alert.state,
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
        "startsAt": rfc3339(alert.starts_at),
        "endsAt": _NEVER if alert.ends_at is None else rfc3339(alert.ends_at),
        "generatorURL": alert.generator_url,
        "fingerprint": alert.fingerprint,
    }


def exec_json(notification: Notification) -> bytes:
    """The webhook body and what Alertmanager's has not: for scripts of ours."""
    body = webhook_json(notification) | {
        "kind": notification.kind, "reason": notification.reason, "source": notification.source,
        "messageId": notification.message_id,
    }  # fmt: skip
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def expand(template: Template, notification: Notification) -> str:
    """A template of a message, with Alertmanager's data. Raise TemplateError."""
    return template.expand(message_data(notification), Helpers(external_url=notification.external_url))


def message_data(notification: Notification) -> Struct:
    """`.Status`, `.Alerts.Firing`, `.CommonLabels.SortedPairs` and the others, as in Alertmanager's templates."""
    return Struct("template.Data", {
        "Receiver": notification.receiver,
        "Status": notification.status,
        "Alerts": _alerts([*notification.firing, *notification.resolved]),
        "GroupLabels": _pairs(notification.group_labels),
        "CommonLabels": _pairs(notification.common_labels),
        "CommonAnnotations": _pairs(notification.common_annotations),
        "ExternalURL": notification.external_url,
        "GroupKey": notification.group_key,
        "Source": notification.source,
        "Reason": notification.reason,
        "Kind": notification.kind,
        "TruncatedAlerts": notification.truncated_alerts,
        "Entries": [_entry(entry) for entry in notification.entries],
        "Notes": [_note(note) for note in notification.notes],
    })  # fmt: skip


def _entry(entry: DigestEntry) -> Struct:
    return Struct("template.Entry", {
        "Alert": _alert(entry.alert),
        "Fired": entry.fired,
        "Resolved": entry.resolved,
        "FirstAt": _time(entry.first_at),
    })  # fmt: skip


def _note(note: DigestNote) -> Struct:
    return Struct("template.Note", {"At": _time(note.at), "Good": note.is_good, "Text": note.text})


def _alerts(alerts: Sequence[Alert]) -> MethodList:
    shown = [_alert(alert) for alert in alerts]
    return MethodList(shown, {
        "Firing": lambda: [one for one in shown if one.fields["Status"] == "firing"],
        "Resolved": lambda: [one for one in shown if one.fields["Status"] == "resolved"],
    })  # fmt: skip


def _alert(alert: Alert) -> Struct:
    ends_at = Time(-62_135_596_800 * 10**9) if alert.ends_at is None else _time(alert.ends_at)
    return Struct("template.Alert", {
        "Status": alert.state,
        "Labels": _pairs(alert.labels),
        "Annotations": _pairs(alert.annotations),
        "StartsAt": _time(alert.starts_at),
        "EndsAt": ends_at,
        "GeneratorURL": alert.generator_url,
        "Fingerprint": alert.fingerprint,
        "Value": alert.value,
    })  # fmt: skip


def _time(moment: float) -> Time:
    return Time(round(moment * 1e9))


def _pairs(labels: Labels) -> MethodMap:
    ordered = sorted(labels, key=lambda pair: (pair[0] != "alertname", pair))
    methods: Mapping[str, Any] = {
        "SortedPairs": lambda: [Struct("template.Pair", {"Name": name, "Value": value}) for name, value in ordered],
        "Names": lambda: [name for name, _ in ordered],
        "Values": lambda: [value for _, value in ordered],
        "Remove": lambda names: StringMap(pair for pair in labels if pair[0] not in names),
    }
    return MethodMap(dict(labels), methods)
