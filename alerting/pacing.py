"""How patiently messages are delivered: when a receiver may be sent to again, and when a message is tried again."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from agent.core.errors import Retryable
from agent.core.options import option
from agent.core.units import Seconds

_RATE_WINDOW_S: Final = 60.0
_SHORTEST_WAIT_ASKED_S: Final = 1.0  # of a Retry-After; 0, or a moment that is over, is taken for this
_LONGEST_WAIT_ASKED_S: Final = 600.0  # longer ones are taken for this
_LASTING_RETRY_S: Final = 600.0  # someone must act first


@dataclass(slots=True)
class OutboxOptions:
    """How patiently messages are delivered."""

    rate: int = option(30, "Messages a minute to one receiver, at most.", minimum=1)
    summarize_above: int = option(
        20, "Waiting messages of one receiver from which on one summary replaces them.", minimum=2
    )
    first_retry: Seconds = option(5.0, "Wait after the first failure; it doubles with each one.", minimum=0.1)
    longest_retry: Seconds = option(300.0, "Longest wait between two tries.", minimum=1.0)
    keep_undelivered: Seconds = option(7 * 86400.0, "How long a message is tried before it is given up.", minimum=60.0)
    keep_delivered: Seconds = option(
        30 * 86400.0, "How long delivered messages and decisions are listed.", minimum=60.0
    )
    most_decisions: int = option(50_000, "Sentences kept for `alerts log`.", minimum=100)


class Pacing:
    """Over the tables `receivers` and `messages` of the outbox, in its transactions. Times are Unix seconds."""

    def __init__(self, connection: sqlite3.Connection, options: OutboxOptions) -> None:
        self._db = connection
        self._options = options

    def may_send(self, receiver: str, now: float) -> bool:
        """Is nothing under way to it, and has it had its rest?"""
        busy = self._db.execute(
            "SELECT 1 FROM messages WHERE receiver = ? AND state = 'sending' LIMIT 1", (receiver,)
        ).fetchone()
        return not busy and self.free_at(receiver, now) <= now

    def free_at(self, receiver: str, now: float) -> float:
        """When failures before, rests asked for and the rate allow another message; in the past: now."""
        row = self._db.execute("SELECT blocked_until FROM receivers WHERE receiver = ?", (receiver,)).fetchone()
        return max(row[0] if row else 0.0, self._rate_free_at(receiver, now))

    def sent(self, receiver: str, rest: float, now: float) -> None:
        """It took a message, and wants no other for `rest` seconds."""
        self._db.execute("INSERT OR REPLACE INTO receivers VALUES (?, 0, ?)", (receiver, now + rest))

    def failed(self, receiver: str, error: Retryable, attempt: int, now: float) -> float:
        """It did not take a message at this attempt. The seconds until the message is tried again."""
        row = self._db.execute("SELECT failures FROM receivers WHERE receiver = ?", (receiver,)).fetchone()
        failures = (row[0] if row else 0) + 1
        if error.after is None:
            wait = _LASTING_RETRY_S if error.is_lasting else self._backoff(failures)
            own_wait = self._backoff(attempt)
        else:
            wait, own_wait = self._asked(error.after, failures), self._asked(error.after, attempt)
        self._db.execute("INSERT OR REPLACE INTO receivers VALUES (?, ?, ?)", (receiver, failures, now + wait))
        return max(wait, own_wait)

    def _asked(self, after: float, failures: int) -> float:
        """The seconds the other side asks for; when it fails again all the same, no fewer than without its advice."""
        wait = min(max(after, _SHORTEST_WAIT_ASKED_S), _LONGEST_WAIT_ASKED_S)
        return wait if failures == 1 else max(wait, self._backoff(failures))

    def _backoff(self, failures: int) -> float:
        return float(min(self._options.first_retry * 2 ** min(failures - 1, 30), self._options.longest_retry))

    def _rate_free_at(self, receiver: str, now: float) -> float:
        """When the rate allows another message."""
        row = self._db.execute(
            "SELECT done_at FROM messages WHERE receiver = ? AND done_at > ? AND state IN ('sent', 'rejected')"
            " ORDER BY done_at DESC LIMIT 1 OFFSET ?",
            (receiver, now - _RATE_WINDOW_S, self._options.rate - 1),
        ).fetchone()
        return row[0] + _RATE_WINDOW_S if row else 0.0
