"""Secrets in what the other side says: a server names the path it does not know, a program prints its environment."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from agent.core.secrets import Secret

_SHORTEST_SECRET = 4  # characters; shorter ones are no secret but a word such as `on`
_SHORTEST_PART = 6  # shorter parts of an address are words such as `hooks`


def masked(text: str, secrets: Iterable[Secret]) -> str:
    """The text with `***` for each secret and each part of one, the longest first."""
    for word in sorted({word for secret in secrets for word in _words(secret)}, key=len, reverse=True):
        text = text.replace(word, "***")
    return text


def _words(secret: Secret) -> list[str]:
    """The secret, and of an address or a header such as `Bearer x` its parts too."""
    text = secret.reveal()
    parts = urlsplit(text).path.split("/") + urlsplit(text).query.split("&") if "://" in text else text.split()
    return [part for part in (text, *parts) if len(part) >= (_SHORTEST_SECRET if part == text else _SHORTEST_PART)]
