"""ntfy: a topic and a priority. Limit: a message of 4,096 bytes; a longer one would become an attachment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from agent.core.labels import value_of
from agent.core.options import option, required
from agent.core.secrets import Secret
from agent.core.units import Seconds
from alerting.notify import render
from alerting.notify.http import check, post_json
from alerting.notify.message import Notification, SentReceipt

_LONGEST_MESSAGE_BYTES = 4096
_GRAVEST = frozenset({"critical", "page"})


@dataclass(slots=True)
class Ntfy:
    """A topic on ntfy.sh or a server of one's own."""

    topic: str = required("Topic to publish to.", example="my-hosts-2f9c")
    server_url: str = option("https://ntfy.sh", "The server.")
    token: Secret = option(Secret(""), "Access token, where the topic is protected.")
    priority: int = option(4, "Priority of firing alerts, 1 to 5; those critical or page have 5.", minimum=1, maximum=5)
    ca_file: str = option("", "Certificate authority to trust instead of the system's.")
    deadline: Seconds = option(15.0, "Longest time for one request.", minimum=1.0)

    kind: ClassVar[str] = "ntfy"
    can_summarize: ClassVar[bool] = True

    def send(self, notification: Notification, previous: str | None) -> SentReceipt:  # noqa: ARG002
        headers = {"Authorization": f"Bearer {self.token.reveal()}"} if self.token else {}
        message = self._message(notification)
        answer = post_json(self.server_url, message, self.deadline, headers, ca_file=self.ca_file)
        told = check("ntfy", answer, (self.token,)).told()
        return SentReceipt(str(told["id"]) if "id" in told else None, "published")

    def preview(self, notification: Notification) -> str:
        message = self._message(notification)
        return f"{message['title']} (priority {message['priority']})\n\n{message['message']}"

    def _message(self, notification: Notification) -> dict[str, Any]:
        is_firing = notification.status == "firing" and notification.kind != "digest"
        is_critical = any(value_of(alert.labels, "severity") in _GRAVEST for alert in notification.firing)
        message: dict[str, Any] = {
            "topic": self.topic,
            "title": render.title(notification),
            "message": render.text(notification, _LONGEST_MESSAGE_BYTES, _bytes),
            "priority": (5 if is_critical else self.priority) if is_firing else 3,
            "tags": ["rotating_light"]
            if is_firing
            else ["memo" if notification.kind == "digest" else "white_check_mark"],
        }
        return message | ({"click": notification.external_url} if notification.external_url else {})


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
