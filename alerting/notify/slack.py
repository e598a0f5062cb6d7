"""Slack: an incoming webhook, or a bot whose message is kept up to date and turns green when all is over.

Limits (Slack's reference): header 150 characters, section 3,000, 50 blocks, one message a second and channel. Not in
the reference: all blocks together beyond some 13,000 characters are refused as msg_blocks_too_long (slackapi/bolt-js
issue 2509).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from agent.core.errors import Rejected, Retryable
from agent.core.options import option
from agent.core.secrets import Secret
from agent.core.units import Seconds
from alerting.notify import render
from alerting.notify.http import Answer, asked_wait, check, post_json
from alerting.notify.message import Notification, SentReceipt

_MOST_SECTIONS = 40
_REST_S = 1.0
_LONGEST_SECTION = 3000
_LONGEST_HEADER = 150
_LONGEST_MESSAGE = 10_000  # of all sections together
_PASSING = frozenset({"ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable",
                      "request_timeout"})  # fmt: skip
_MESSAGE = re.compile(r"([A-Z0-9]+) ([0-9]+\.[0-9]+)(?: (.*))?")  # its channel's id, its ts, our `channel`


@dataclass(slots=True)
class Slack:
    """Give a webhook, or a bot token and a channel."""

    webhook_url: Secret = option(Secret(""), "Address of an incoming webhook.")
    bot_token: Secret = option(Secret(""), "Token of a bot with chat:write; needs `channel`.")
    channel: str = option("", "Channel the bot writes to.", example='"#alerts"')
    api_url: str = option("https://slack.com/api", "Slack's API.")
    ca_file: str = option("", "Certificate authority to trust instead of the system's.")
    deadline: Seconds = option(15.0, "Longest time for one request.", minimum=1.0)

    kind: ClassVar[str] = "slack"
    can_summarize: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if bool(self.webhook_url) == bool(self.bot_token):
            raise ValueError("slack: give either webhook_url or bot_token")
        if self.bot_token and not self.channel:
            raise ValueError("slack.channel: missing; a bot needs a channel, like '#alerts'")

    def send(self, notification: Notification, previous: str | None) -> SentReceipt:
        message = slack_message(notification)
        if self.webhook_url:
            answer = check("slack", self._post(self.webhook_url.reveal(), message), (self.webhook_url,))
            return SentReceipt(detail=f"http status {answer.status}", rest=_REST_S)
        if previous and self._update(previous, message, notification):
            return SentReceipt(previous, "updated", _REST_S)
        told = self._call("chat.postMessage", {"channel": self.channel, **message})
        return SentReceipt(f"{told.get('channel')} {told.get('ts')} {self.channel}", "posted", _REST_S)

    def preview(self, notification: Notification) -> str:
        return f"{render.title(notification)}\n\n{render.text(notification, _LONGEST_SECTION)}"

    def _update(self, previous: str, message: dict[str, Any], notification: Notification) -> bool:
        """Bring our message up to date and say so in its thread. False where that cannot be: it is told anew.

        `previous` may be another service's or of another channel, where the receiver was changed meanwhile.
        """
        found = _MESSAGE.fullmatch(previous)
        if found is None or found[3] not in {None, self.channel}:
            return False
        reply = {"thread_ts": found[2], "reply_broadcast": notification.status == "firing"}
        try:
            self._call("chat.update", {"channel": found[1], "ts": found[2], **message})
            self._call("chat.postMessage", {"channel": found[1], "text": render.title(notification), **reply})
        except Rejected:  # deleted, archived, too old to edit: the post that follows says what is really wrong
            return False
        return True

    def _call(self, method: str, message: dict[str, Any]) -> dict[str, Any]:
        token = {"Authorization": f"Bearer {self.bot_token.reveal()}"}
        answer = check("slack", self._post(f"{self.api_url}/{method}", message, token), (self.bot_token,))
        told = answer.told()
        if told.get("ok"):
            return told
        reason = str(told.get("error", "unknown_error"))
        if reason in _PASSING:
            raise Retryable(f"slack: {method}: {reason}", kind=reason, after=asked_wait(answer))
        raise Rejected(f"slack: {method}: {reason}", kind=reason)

    def _post(self, url: str, message: dict[str, Any], headers: dict[str, str] | None = None) -> Answer:
        kind = {"Content-Type": "application/json; charset=utf-8"}
        return post_json(url, message, self.deadline, kind | (headers or {}), ca_file=self.ca_file)


def slack_message(notification: Notification) -> dict[str, Any]:
    """Title as the text of the notice, and a coloured attachment with one section an alert."""
    title = render.title(notification)
    sections = _digest(notification) if notification.kind == "digest" else render.alert_blocks(notification)
    shown: list[dict[str, Any]] = []
    room = _LONGEST_MESSAGE
    for section in sections[:_MOST_SECTIONS]:
        block = _section(escape(section))
        room -= len(block["text"]["text"])
        if room < 0:
            break
        shown.append(block)
    missing = len(sections) - len(shown) + notification.truncated_alerts
    if missing:
        shown.append(_section(f"... and {missing} more"))
    header = {"type": "header", "text": {"type": "plain_text", "text": render.shorten(title, _LONGEST_HEADER)}}
    color = "#808b96" if notification.kind == "digest" else "#c0392b" if notification.status == "firing" else "#1e8449"
    return {"text": escape(title), "attachments": [{"color": color, "blocks": [header, *shown]}]}


def _digest(notification: Notification) -> list[str]:
    """Each part of it with as many lines as go into a section."""
    parts = [block.splitlines() for block in render.digest_blocks(notification)]
    return [render.fit(lines, _LONGEST_SECTION, lambda words: len(escape(words)), gap="\n") for lines in parts]


def _section(text: str) -> dict[str, Any]:
    cut = render.shorten(text, _LONGEST_SECTION)
    # a cut must not go through an escaped character
    head, mark, tail = cut.rpartition("&") if cut != text else ("", "", "")
    whole = f"{head}…" if mark and ";" not in tail else cut
    return {"type": "section", "text": {"type": "mrkdwn", "text": whole}}


def escape(text: str) -> str:
    """Slack's three special characters; without them nothing can mention a channel or a person."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
