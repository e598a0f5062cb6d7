"""Webhook: Alertmanager's JSON, version 4, or a body of one's own; signed where a secret is given."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import ClassVar

from agent.core.errors import Rejected
from agent.core.options import option, required
from agent.core.secrets import Secret
from agent.core.units import Seconds
from alerting.notify.http import check, request
from alerting.notify.message import Notification, SentReceipt
from alerting.notify.payload import expand, webhook_json
from alerting.templates.expander import Template
from alerting.templates.values import TemplateError


@dataclass(slots=True)
class Webhook:
    """POST to an address. With `hmac_secret` two headers prove origin and age, see `signature`."""

    url: Secret = required("Address that takes the POST.", example="https://hooks.example.com/alerts")
    headers: dict[str, Secret] = option(
        dict, "Further request headers.", example="{X-Api-Key: {file: /etc/vigilhost/hook.key}}"
    )
    bearer_token: Secret = option(Secret(""), "Token for `Authorization: Bearer`.")
    hmac_secret: Secret = option(Secret(""), "Key of the signature in X-Vigilhost-Signature.")
    body: str = option("", "Go template of the body; empty: Alertmanager's JSON, version 4.")
    content_type: str = option("application/json", "Content-Type of the request.")
    max_alerts: int = option(0, "Alerts in one message, 0 for all.", minimum=0)
    ca_file: str = option("", "Certificate authority to trust instead of the system's.")
    deadline: Seconds = option(15.0, "Longest time for one request.", minimum=1.0)

    kind: ClassVar[str] = "webhook"
    can_summarize: ClassVar[bool] = True

    def send(self, notification: Notification, previous: str | None) -> SentReceipt:  # noqa: ARG002
        body = self._body(notification).encode("utf-8", "replace")
        own = {name: value.reveal() for name, value in self.headers.items()}
        headers = {"Content-Type": self.content_type, "User-Agent": "vigilhost", **own,
                   "X-Vigilhost-Message-Id": notification.message_id}  # fmt: skip
        if self.bearer_token:
            headers["Authorization"] = f"Bearer {self.bearer_token.reveal()}"
        if self.hmac_secret:
            stamp = str(int(notification.sent_at))
            headers |= {
                "X-Vigilhost-Timestamp": stamp,
                "X-Vigilhost-Signature": signature(self.hmac_secret, stamp, body),
            }
        answer = request("POST", self.url.reveal(), body, headers, self.deadline, self.ca_file)
        check("webhook", answer, (self.url, self.bearer_token, self.hmac_secret, *self.headers.values()))
        return SentReceipt(detail=f"http status {answer.status}")

    def preview(self, notification: Notification) -> str:
        return self._body(notification)

    def _body(self, notification: Notification) -> str:
        if not self.body:
            return json.dumps(webhook_json(notification, self.max_alerts), ensure_ascii=False, indent=None)
        try:
            return expand(Template(self.body, is_rule=False), notification)
        except TemplateError as error:
            raise Rejected(f"webhook.body: {error}", kind="template") from error


def signature(secret: Secret, stamp: str, body: bytes) -> str:
    """`sha256=` and the hex HMAC-SHA256 of `timestamp.body`."""
    return "sha256=" + hmac.new(secret.reveal().encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
