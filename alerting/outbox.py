"""The durable outbox: every message is a row until it is delivered, and every decision a sentence.

At least once: a message is marked before it is sent and again afterwards, so that a crash in between can double only
the one in flight, under the same message id. What waits is always the present state: a new message about a group
takes the place of the waiting one. Times are Unix seconds, `now` is passed in. Not thread-safe: one owner.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

from agent.core.errors import Rejected, Retryable
from agent.core.units import format_duration
from alerting.grouping import Decision
from alerting.kept_message import clean, decode, encode
from alerting.notify.merge import merged, summary
from alerting.notify.message import SUMMARY_KEY, Notification, Notifier, SentReceipt
from alerting.pacing import OutboxOptions, Pacing

SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY,
    message_id TEXT NOT NULL UNIQUE,
    receiver TEXT NOT NULL,
    group_key TEXT NOT NULL,
    payload BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'sending', 'sent', 'superseded', 'rejected', 'expired')),
    attempts INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    next_try_at REAL NOT NULL,
    done_at REAL,
    provider_id TEXT,
    error TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX IF NOT EXISTS messages_queued ON messages (receiver, group_key) WHERE state = 'queued';
CREATE INDEX IF NOT EXISTS messages_sending ON messages (receiver) WHERE state = 'sending';
CREATE INDEX IF NOT EXISTS messages_done ON messages (receiver, done_at) WHERE done_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS threads (
    receiver TEXT NOT NULL, group_key TEXT NOT NULL, provider_id TEXT NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (receiver, group_key)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS receivers (
    receiver TEXT PRIMARY KEY, failures INTEGER NOT NULL, blocked_until REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS decisions (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, receiver TEXT NOT NULL, group_key TEXT NOT NULL,
    fingerprint TEXT NOT NULL, sentence TEXT NOT NULL
) STRICT;
"""


class Claimed(NamedTuple):
    """A message to send now, and the provider's id of the last one of its thread."""

    id: int
    notification: Notification
    previous: str | None
    attempt: int


class Entry(NamedTuple):
    """A line of `alerts log`."""

    at: float
    receiver: str
    group_key: str
    fingerprint: str
    sentence: str


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


class Outbox:
    """Messages on their way. `connection` may be shared with who keeps other state: see `transaction`.

    It must be opened with `isolation_level=None`; transactions are ours. Raise ValueError when it is not.
    """

    def __init__(self, connection: sqlite3.Connection, options: OutboxOptions | None = None) -> None:
        if connection.isolation_level is not None:
            raise ValueError("outbox: the connection begins transactions by itself; open it with isolation_level=None")
        self._db = connection
        self._options = options or OutboxOptions()
        self._pacing = Pacing(connection, self._options)
        self._db.executescript(SCHEMA)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; inside another transaction, part of that one."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # In.

    def record(self, decisions: Collection[Decision]) -> None:
        """Keep the sentences, and put what is to be sent into the outbox, in one transaction."""
        with self.transaction():
            for decision in decisions:
                if decision.notification is None:
                    self.say(
                        decision.at, decision.receiver, decision.group_key, decision.sentence, decision.fingerprint
                    )
                else:
                    self.put(decision.notification, decision.at)

    def put(self, notification: Notification, now: float) -> str:
        """Queue a message; one about the same group that still waits is superseded. Return its message id."""
        with self.transaction():
            waiting = self._db.execute(
                "SELECT id, payload, next_try_at, attempts FROM messages"
                " WHERE receiver = ? AND group_key = ? AND state = 'queued'",
                (notification.receiver, notification.group_key),
            ).fetchall()
            next_try_at, attempts = now, 0
            for id, payload, old_next, old_attempts in waiting:
                notification = merged(decode(payload), notification)
                next_try_at, attempts = max(next_try_at, old_next), max(attempts, old_attempts)
                self._end(id, "superseded", now)
                self.say(now, notification.receiver, notification.group_key,
                         "not sent: superseded by a newer state of the group before it could be delivered")  # fmt: skip
            message = replace(notification, message_id=notification.message_id or uuid.uuid4().hex)
            self._db.execute(
                "INSERT INTO messages (message_id, receiver, group_key, payload, state, attempts, created_at,"
                " next_try_at) VALUES (?, ?, ?, ?, 'queued', ?, ?, ?)",
                (message.message_id, message.receiver, message.group_key, encode(message), attempts, now, next_try_at),
            )
            self.say(now, message.receiver, message.group_key, f"queued for {message.receiver}: {message.reason}")
        return message.message_id

    def say(self, at: float, receiver: str, group_key: str, sentence: str, fingerprint: str = "") -> None:
        """A line for `alerts log`."""
        values = tuple(clean(one) for one in (receiver, group_key, fingerprint, sentence))
        self._db.execute(
            "INSERT INTO decisions (at, receiver, group_key, fingerprint, sentence) VALUES (?, ?, ?, ?, ?)",
            (at, *values),
        )

    # Out.

    def recover(self, now: float) -> int:
        """At start: what was in flight when the agent died is queued again, under its old message id."""
        with self.transaction():
            lost = self._db.execute("SELECT id, payload, attempts FROM messages WHERE state = 'sending'").fetchall()
            self._db.execute("UPDATE messages SET state = 'queued', next_try_at = ? WHERE state = 'sending'", (now,))
            for id, payload, attempts in lost:
                note = decode(payload)
                self.say(now, note.receiver, note.group_key, "sending again: the agent ended while it was under way")
                self._requeue_behind(Claimed(id, note, None, attempts), now)
        return len(lost)

    def claim(
        self, now: float, summarizing: Collection[str] = (), receivers: Collection[str] | None = None
    ) -> list[Claimed]:
        """The next message for each receiver that has none under way, is not blocked and below its rate.

        `summarizing`: receivers for which many waiting messages may become one. `receivers`: only these.
        """
        claimed = []
        with self.transaction():
            self._expire(now)
            for (receiver,) in self._db.execute(
                "SELECT DISTINCT receiver FROM messages WHERE state = 'queued'"
            ).fetchall():
                if (receivers is not None and receiver not in receivers) or not self._pacing.may_send(receiver, now):
                    continue
                if receiver in summarizing:
                    self._summarize(receiver, now)
                row = self._db.execute(
                    "SELECT id, payload, attempts, group_key FROM messages WHERE receiver = ? AND state = 'queued'"
                    " AND next_try_at <= ? ORDER BY attempts, id LIMIT 1",
                    (receiver, now),
                ).fetchone()
                if row:
                    id, payload, attempts, group_key = row
                    self._db.execute(
                        "UPDATE messages SET state = 'sending', attempts = ? WHERE id = ?", (attempts + 1, id)
                    )
                    claimed.append(Claimed(id, decode(payload), self._thread(receiver, group_key), attempts + 1))
        return claimed

    def done(self, claimed: Claimed, outcome: Outcome, now: float) -> None:
        """Record what came of an attempt."""
        with self.transaction():
            if isinstance(outcome, SentReceipt):
                self._delivered(claimed, outcome, now)
            elif isinstance(outcome, Retryable):
                self._failed(claimed, outcome, now)
            else:
                self._end(claimed.id, "rejected", now, str(outcome))
                note = claimed.notification
                self.say(now, note.receiver, note.group_key, f"not delivered: {note.receiver} refused it: {outcome}")

    def next_due(self, now: float) -> float | None:
        """When `claim` will next have a message; None when none waits."""
        moments = []
        for receiver, first in self._db.execute(
            "SELECT receiver, min(next_try_at) FROM messages WHERE state = 'queued' AND receiver NOT IN"
            " (SELECT receiver FROM messages WHERE state = 'sending') GROUP BY receiver"
        ):
            moments.append(max(first, self._pacing.free_at(receiver, now)))
        return min(moments, default=None)

    # Asked by people.

    def log(self, limit: int = 100, receiver: str | None = None, since: float = 0.0) -> list[Entry]:
        """The latest decisions, oldest first."""
        rows = self._db.execute(
            "SELECT at, receiver, group_key, fingerprint, sentence FROM decisions"
            " WHERE at >= ? AND (? IS NULL OR receiver = ?) ORDER BY id DESC LIMIT ?",
            (since, receiver, receiver, limit),
        )
        return [Entry(*row) for row in rows][::-1]

    def counts(self) -> dict[str, int]:
        """Messages by state."""
        return dict(self._db.execute("SELECT state, count(*) FROM messages GROUP BY state"))

    def refused(self, since: float) -> list[tuple[str, str]]:
        """Receiver and error of messages refused or given up since then: a reason for an alert of our own."""
        rows = self._db.execute(
            "SELECT receiver, error FROM messages WHERE state IN ('rejected', 'expired') AND done_at >= ?", (since,)
        )
        return [(receiver, error) for receiver, error in rows]

    def prune(self, now: float) -> None:
        """Forget delivered messages, threads and decisions that are old or too many."""
        oldest = now - self._options.keep_delivered
        with self.transaction():
            self._db.execute("DELETE FROM messages WHERE done_at < ?", (oldest,))
            self._db.execute("DELETE FROM threads WHERE at < ?", (oldest,))
            self._db.execute(
                "DELETE FROM decisions WHERE at < ? OR id <= (SELECT max(id) FROM decisions) - ?",
                (oldest, self._options.most_decisions),
            )

    # Inside.

    def _end(self, id: int, state: str, now: float, error: str = "", provider_id: str | None = None) -> None:
        self._db.execute(
            "UPDATE messages SET state = ?, done_at = ?, error = ?, provider_id = ? WHERE id = ?",
            (state, now, clean(error), provider_id, id),
        )

    def _delivered(self, claimed: Claimed, receipt: SentReceipt, now: float) -> None:
        note = claimed.notification
        self._end(claimed.id, "sent", now, provider_id=receipt.provider_id)
        self._pacing.sent(note.receiver, receipt.rest, now)
        has_thread = note.kind == "alerts" and note.group_key != SUMMARY_KEY and note.status == "firing"
        if not has_thread or not receipt.provider_id:
            self._db.execute(
                "DELETE FROM threads WHERE receiver = ? AND group_key = ?", (note.receiver, note.group_key)
            )
        else:
            self._db.execute(
                "INSERT OR REPLACE INTO threads VALUES (?, ?, ?, ?)",
                (note.receiver, note.group_key, receipt.provider_id, now),
            )
        tries = f" at try {claimed.attempt}" if claimed.attempt > 1 else ""
        detail = f" ({receipt.detail})" if receipt.detail else ""
        self.say(now, note.receiver, note.group_key, f"delivered to {note.receiver}{tries}: {note.reason}{detail}")

    def _failed(self, claimed: Claimed, error: Retryable, now: float) -> None:
        note = claimed.notification
        wait = self._pacing.failed(note.receiver, error, claimed.attempt, now)
        self._db.execute(
            "UPDATE messages SET state = 'queued', next_try_at = ?, error = ? WHERE id = ?",
            (now + wait, clean(str(error)), claimed.id),
        )
        retry = format_duration(float(round(wait, 1)))
        self.say(now, note.receiver, note.group_key, f"not delivered yet: {error}; next try in {retry}")
        self._requeue_behind(claimed, now)

    def _requeue_behind(self, claimed: Claimed, now: float) -> None:
        """A newer message of the group came while this one was under way: it takes over."""
        note = claimed.notification
        newer = self._db.execute(
            "SELECT id, payload FROM messages WHERE receiver = ? AND group_key = ? AND state = 'queued' AND id > ?",
            (note.receiver, note.group_key, claimed.id),
        ).fetchone()
        if newer:
            self._end(claimed.id, "superseded", now)
            self._db.execute(
                "UPDATE messages SET payload = ?, attempts = ?,"
                " next_try_at = (SELECT next_try_at FROM messages WHERE id = ?) WHERE id = ?",
                (encode(merged(note, decode(newer[1]))), claimed.attempt, claimed.id, newer[0]),
            )

    def _thread(self, receiver: str, group_key: str) -> str | None:
        row = self._db.execute(
            "SELECT provider_id FROM threads WHERE receiver = ? AND group_key = ?", (receiver, group_key)
        ).fetchone()
        return row[0] if row else None

    def _expire(self, now: float) -> None:
        old = self._db.execute(
            "SELECT id, receiver, group_key, error FROM messages WHERE state = 'queued' AND created_at < ?",
            (now - self._options.keep_undelivered,),
        ).fetchall()
        for id, receiver, group_key, error in old:
            self._end(id, "expired", now, error)
            kept = format_duration(self._options.keep_undelivered)
            self.say(now, receiver, group_key, f"given up: {receiver} could not be reached for {kept}: {error}")

    def _summarize(self, receiver: str, now: float) -> None:
        """Too many groups wait: one message about all of them takes their place."""
        due = (
            "WHERE receiver = ? AND state = 'queued' AND next_try_at <= ? AND group_key NOT LIKE '%:digest'",
            (receiver, now),
        )
        (count,) = self._db.execute(f"SELECT count(*) FROM messages {due[0]}", due[1]).fetchone()  # noqa: S608
        if count <= self._options.summarize_above:
            return
        rows = self._db.execute(f"SELECT payload FROM messages {due[0]} ORDER BY id", due[1])  # noqa: S608
        note = replace(summary((decode(row[0]) for row in rows), receiver, now), message_id=uuid.uuid4().hex)
        self._db.execute(f"UPDATE messages SET state = 'superseded', done_at = ? {due[0]}", (now, *due[1]))  # noqa: S608
        self._db.execute(
            "INSERT INTO messages (message_id, receiver, group_key, payload, state, created_at, next_try_at)"
            " VALUES (?, ?, ?, ?, 'queued', ?, ?)",
            (note.message_id, receiver, note.group_key, encode(note), now, now),
        )
        self.say(now, receiver, note.group_key, f"{count} waiting messages became one summary")
