"""A notification as the outbox keeps it: JSON, whatever bytes its labels hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from alerting.notify.message import Notification


def encode(notification: Notification) -> bytes:
    """As it is kept."""
    try:
        return msgspec.json.encode(notification)
    except UnicodeEncodeError:
        return msgspec.json.encode(_walk(msgspec.to_builtins(notification), clean))


def decode(payload: bytes) -> Notification:
    """As it was. Raise msgspec.DecodeError."""
    return msgspec.json.decode(payload, type=Notification)


def clean(words: str) -> str:
    """Bytes that are no UTF-8 (kept as surrogates in labels) become question marks: no receiver takes them."""
    return words.encode("utf-8", "replace").decode()


def _walk(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, (list, tuple)):
        return [_walk(one, change) for one in value]
    if isinstance(value, dict):
        return {key: _walk(one, change) for key, one in value.items()}
    return value
