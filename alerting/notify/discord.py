"""Discord: a webhook with one embed, edited when all is over.

Limits (Discord's reference): title 256 characters, description 4,096, content 2,000; 429 says how long to wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from agent.core.errors import Rejected
from agent.core.options import option, required
from agent.core.secrets import Secret
from agent.core.units import Seconds
from alerting.notify import render
from alerting.notify.http import Answer, asked_wait, check, post_json
from alerting.notify.message import Notification, SentReceipt

_LONGEST_TITLE, _LONGEST_TEXT, _LONGEST_CONTENT = 256, 4096, 2000


@dataclass(slots=True)
class Discord:
    """A channel's webhook."""

    webhook_url: Secret = required("Address of the channel's webhook.")
    mention: str = option("", "Text in front of firing alerts, such as <@&role id>.")
    username: str = option("", "Name shown instead of the webhook's.")
    ca_file: str = option("", "Certificate authority to trust instead of the system's.")
    deadline: Seconds = option(15.0, "Longest time for one request.", minimum=1.0)

    kind: ClassVar[str] = "discord"
    can_summarize: ClassVar[bool] = True

    def send(self, notification: Notification, previous: str | None) -> SentReceipt:
        url = self.webhook_url.reveal().rstrip("/")
        message = self._message(notification)
        if previous and previous.isdigit() and notification.status == "resolved" and notification.kind == "alerts":
            try:
                answer = self._call("PATCH", f"{url}/messages/{previous}", message)
                return SentReceipt(previous, "edited", _rest(answer))
            except Rejected:
                pass  # deleted, or another channel's: the post that follows says what is really wrong
        answer = self._call("POST", f"{url}?wait=true", message)
        told = answer.told()
        return SentReceipt(str(told["id"]) if "id" in told else None, "posted", _rest(answer))

    def preview(self, notification: Notification) -> str:
        (embed,) = self._message(notification)["embeds"]
        return f"{embed['title']}\n\n{embed['description']}"

    def _call(self, method: str, url: str, message: dict[str, Any]) -> Answer:
        answer = post_json(url, message, self.deadline, method=method, ca_file=self.ca_file)
        return check("discord", answer, (self.webhook_url,))

    def _message(self, notification: Notification) -> dict[str, Any]:
        is_firing = notification.status == "firing" and notification.kind != "digest"
        color = 0x808B96 if notification.kind == "digest" else 0xC0392B if is_firing else 0x1E8449
        text = render.text(notification, _LONGEST_TEXT, render.utf16_length)
        embed: dict[str, Any] = {
            "title": render.shorten(render.title(notification), _LONGEST_TITLE, render.utf16_length),
            "description": text,
            "color": color,
        }
        content = self.mention if is_firing else ""
        # labels may hold @everyone; only what the operator wrote mentions anybody
        allowed = ["roles", "users", "everyone"] if content else []
        named = {"username": self.username} if self.username else {}
        return {
            "content": render.shorten(content, _LONGEST_CONTENT),
            "embeds": [embed],
            "allowed_mentions": {"parse": allowed},
            **named,
        }


def _rest(answer: Answer) -> float:
    """Seconds to leave the webhook alone: it says when this was the last request of its window."""
    return (asked_wait(answer) or 0.0) if answer.headers.get("x-ratelimit-remaining") == "0" else 0.0
