"""One try to deliver one message, and what came of it."""

from __future__ import annotations

from typing import NamedTuple

from agent.core.errors import Rejected, Retryable
from alerting.notify.message import Notification, Notifier, SentReceipt


class Claimed(NamedTuple):
    """A message to send now, and the provider's id of the last one of its thread."""

    id: int
    notification: Notification
    previous: str | None
    attempt: int


Outcome = SentReceipt | Retryable | Rejected


def attempt(notifier: Notifier, claimed: Claimed) -> Outcome:
    """Send one message, blocking. What is raised for it to be tried again or never again comes back as a value.

    A notifier's own mistake comes back too, as a Retryable with it as the cause: the receiver must not stay blocked.
    """
    try:
        return notifier.send(claimed.notification, claimed.previous)
    except (Retryable, Rejected) as error:
        return error
    except Exception as error:  # noqa: BLE001
        failure = Retryable(
            f"{notifier.kind}: it failed in itself: {type(error).__name__}", kind="bug", is_lasting=True
        )
        failure.__cause__ = error
        return failure
