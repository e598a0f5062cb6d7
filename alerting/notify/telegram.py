"""Telegram: a bot writes to a chat; what follows answers the first message. Limit: 4,096 UTF-16 units."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any, ClassVar

from agent.core.options import option, required
from agent.core.secrets import Secret
from agent.core.units import Seconds
from alerting.notify import render
from alerting.notify.http import check, post_json
from alerting.notify.message import Notification, SentReceipt

_LONGEST_MESSAGE = 4096
_REST_S = 1.0  # a bot may write one message a second to a chat


@dataclass(slots=True)
class Telegram:
    """A bot's token and a chat it is a member of."""

    bot_token: Secret = required("Token from BotFather.")
    chat_id: str = required("Number of the chat, or @channel.", example='"-1001234567890"')
    thread_id: int = option(0, "Topic within the chat; 0 for none.", minimum=0)
    api_url: str = option("https://api.telegram.org", "Telegram's API.")
    ca_file: str = option("", "Certificate authority to trust instead of the system's.")
    deadline: Seconds = option(15.0, "Longest time for one request.", minimum=1.0)

    kind: ClassVar[str] = "telegram"
    can_summarize: ClassVar[bool] = True

    def send(self, notification: Notification, previous: str | None) -> SentReceipt:
        message: dict[str, Any] = {
            "chat_id": self.chat_id,
            "text": telegram_text(notification),
            "parse_mode": "HTML",
            "link_preview_options": {"is_disabled": True},
            "disable_notification": notification.status == "resolved",
        }
        if self.thread_id:
            message["message_thread_id"] = self.thread_id
        first = self._first_of(previous)
        if first is not None:
            message["reply_parameters"] = {"message_id": first, "allow_sending_without_reply": True}
        url = f"{self.api_url}/bot{self.bot_token.reveal()}/sendMessage"
        answer = check("telegram", post_json(url, message, self.deadline, ca_file=self.ca_file), (self.bot_token,))
        if first is not None:
            return SentReceipt(previous, "posted", _REST_S)
        result = answer.told().get("result")
        number = result.get("message_id") if isinstance(result, dict) else None
        return SentReceipt(None if number is None else f"{self._chat} {number}", "posted", _REST_S)

    @property
    def _chat(self) -> str:
        return f"{self.chat_id}/{self.thread_id}"

    def _first_of(self, previous: str | None) -> int | None:
        """The number of the message that `previous` names, where it is one of this chat and not another service's."""
        chat, _, number = (previous or "").rpartition(" ")
        return int(number) if chat == self._chat and number.isdecimal() else None

    def preview(self, notification: Notification) -> str:
        return html.unescape(telegram_text(notification).replace("<b>", "").replace("</b>", ""))


def telegram_text(notification: Notification) -> str:
    """Title in bold and text, cut before it is escaped, so that no tag and no character is cut in two."""
    title = render.title(notification)
    left = _LONGEST_MESSAGE - render.utf16_length(title) - 2
    text = render.text(notification, left, render.utf16_length)
    return f"<b>{html.escape(title)}</b>\n\n{html.escape(text)}"
