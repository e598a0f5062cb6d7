"""PagerDuty, Events API v2: one incident a host and group, closed when the group is over.

Limits (PagerDuty's reference): dedup_key 255 characters, summary 1,024, the whole event 512 KB.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from agent.core.labels import value_of
from agent.core.options import option, required
from agent.core.secrets import Secret
from agent.core.units import Seconds
from alerting.notify import render
from alerting.notify.http import check, post_json
from alerting.notify.message import Notification, SentReceipt
from alerting.notify.payload import rfc3339

_SEVERITIES = {"critical": "critical", "page": "critical", "error": "error", "warning": "warning", "info": "info"}
_LONGEST_SUMMARY, _LONGEST_DETAILS = 1024, 400_000
_KEY = re.compile(r"[0-9a-f]{64}")  # of ours


@dataclass(slots=True)
class PagerDuty:
    """An Events API v2 integration of a service."""

    routing_key: Secret = required("Integration key of the service.")
    default_severity: str = option("error", "Severity of alerts whose severity label says nothing PagerDuty knows.")
    api_url: str = option("https://events.pagerduty.com/v2/enqueue", "Events API.")
    ca_file: str = option("", "Certificate authority to trust instead of the system's.")
    deadline: Seconds = option(15.0, "Longest time for one request.", minimum=1.0)

    kind: ClassVar[str] = "pagerduty"
    can_summarize: ClassVar[bool] = False

    def send(self, notification: Notification, previous: str | None) -> SentReceipt:
        # an incident is closed under the key that opened it, whatever the host was called then
        key = previous if previous and _KEY.fullmatch(previous) else dedup_key(notification)
        event = self._event(notification, key) | {"routing_key": self.routing_key.reveal()}
        answer = check(
            "pagerduty", post_json(self.api_url, event, self.deadline, ca_file=self.ca_file), (self.routing_key,)
        )
        return SentReceipt(key, f"http status {answer.status}")

    def preview(self, notification: Notification) -> str:
        return json.dumps(self._event(notification, dedup_key(notification)), indent=2, ensure_ascii=False)

    def _event(self, notification: Notification, key: str) -> dict[str, Any]:
        event: dict[str, Any] = {"dedup_key": key}
        if notification.status == "resolved" and notification.kind != "digest":
            return event | {"event_action": "resolve"}
        words = [value_of(alert.labels, "severity").lower() for alert in notification.firing]
        known = [_SEVERITIES[word] for word in words if word in _SEVERITIES]
        order = list(dict.fromkeys(_SEVERITIES.values()))
        labels = notification.common_labels
        payload = {
            "summary": render.shorten(render.title(notification), _LONGEST_SUMMARY),
            "source": value_of(labels, "instance") or notification.source or "vigilhost",
            "severity": min(known, key=order.index, default=self.default_severity),
            "timestamp": rfc3339(min((alert.starts_at for alert in notification.firing), default=notification.at)),
            "group": value_of(labels, "job"),
            "class": value_of(labels, "alertname"),
            "custom_details": {
                "alerts": render.text(notification, _LONGEST_DETAILS // 4),
                "firing": len(notification.firing),
                "resolved": len(notification.resolved),
            },
        }
        client = {"client": "vigilhost"} | ({"client_url": url} if (url := notification.external_url) else {})
        return (
            event
            | client
            | {"event_action": "trigger", "payload": {key: one for key, one in payload.items() if one != ""}}
        )


def dedup_key(notification: Notification) -> str:
    """The same for every message of a host about a group, so that trigger and resolve meet.

    SHA-256 of host and group key: group keys hold no host where a route groups by none, and hosts share a service.
    """
    return hashlib.sha256(f"{notification.source}\n{notification.group_key}".encode("utf-8", "replace")).hexdigest()
