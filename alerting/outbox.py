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

import msgspec

from agent.core.errors import Retryable
from agent.core.units import format_duration
from alerting.attempts import Claimed, Outcome
from alerting.decision_log import DecisionLog
from alerting.grouping import Decision
from alerting.kept_message import clean, decode, encode
from alerting.notify.merge import merged, summary
from alerting.notify.message import SUMMARY_KEY, Notification, SentReceipt
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
"""


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
        self.decisions = DecisionLog(connection)
        self._say = self.decisions.say
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
                    self._say(
                        decision.at, decision.receiver, decision.group_key, decision.sentence, decision.fingerprint
                    )
                else:
                    self.put(decision.notification, decision.at)

    def put(self, notification: Notification, now: float) -> str:
        """Queue a message; one about the same group that still waits is superseded. Return its message id.

        It is as old as the oldest it stands for: what cannot be delivered is given up, however often it is renewed.
        """
        with self.transaction():
            waiting = self._db.execute(
                "SELECT id, payload, next_try_at, attempts, created_at FROM messages"
                " WHERE receiver = ? AND group_key = ? AND state = 'queued'",
                (notification.receiver, notification.group_key),
            ).fetchall()
            next_try_at, attempts, created_at = now, 0, now
            for id, payload, old_next, old_attempts, old_created in waiting:
                created_at = min(created_at, old_created)
                next_try_at, attempts = max(next_try_at, old_next), max(attempts, old_attempts)
                if (older := self._decoded(id, payload, now)) is None:
                    continue
                notification = merged(older, notification)
                self._end(id, "superseded", now)
                self._say(now, notification.receiver, notification.group_key,
                         "not sent: superseded by a newer state of the group before it could be delivered")  # fmt: skip
            message = replace(notification, message_id=notification.message_id or uuid.uuid4().hex)
            self._db.execute(
                "INSERT INTO messages (message_id, receiver, group_key, payload, state, attempts, created_at,"
                " next_try_at) VALUES (?, ?, ?, ?, 'queued', ?, ?, ?)",
                (message.message_id, message.receiver, message.group_key, encode(message), attempts, created_at,
                 next_try_at),
            )  # fmt: skip
            self._say(now, message.receiver, message.group_key, f"queued for {message.receiver}: {message.reason}")
        return message.message_id

    # Out.

    def recover(
        self, now: float, under_way: Collection[str] = (), why: str = "the agent ended while it was under way"
    ) -> int:
        """Queue again, under its old id, what is `lost`. `why`: what became of it, for the log."""
        lost = self.lost(under_way)
        with self.transaction():
            for id in lost:
                self._send_again(id, now, why)
        return len(lost)

    def lost(self, under_way: Collection[str]) -> list[int]:
        """The rows that are marked as in flight and are not: all but the ids in `under_way`."""
        marked = self._db.execute("SELECT id, message_id FROM messages WHERE state = 'sending'").fetchall()
        return [id for id, message_id in marked if message_id not in under_way]

    def _send_again(self, id: int, now: float, why: str) -> None:
        payload, attempts = self._db.execute("SELECT payload, attempts FROM messages WHERE id = ?", (id,)).fetchone()
        if (note := self._decoded(id, payload, now)) is None:
            return
        self._db.execute("UPDATE messages SET state = 'queued', next_try_at = ? WHERE id = ?", (now, id))
        self._say(now, note.receiver, note.group_key, f"sending again: {why}")
        self._requeue_behind(Claimed(id, note, None, attempts), now)

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
                if row and (note := self._decoded(row[0], row[1], now)) is not None:
                    id, _, attempts, group_key = row
                    self._db.execute(
                        "UPDATE messages SET state = 'sending', attempts = ? WHERE id = ?", (attempts + 1, id)
                    )
                    claimed.append(Claimed(id, note, self._thread(receiver, group_key), attempts + 1))
        return claimed

    def done(self, claimed: Claimed, outcome: Outcome, now: float) -> bool:
        """Record what came of an attempt. False when it is not under way: it was recorded before."""
        with self.transaction():
            found = self._db.execute(
                "SELECT 1 FROM messages WHERE id = ? AND message_id = ? AND attempts = ? AND state = 'sending'",
                (claimed.id, claimed.notification.message_id, claimed.attempt),
            ).fetchone()
            if found is None:
                return False
            if isinstance(outcome, SentReceipt):
                self._delivered(claimed, outcome, now)
            elif isinstance(outcome, Retryable):
                self._failed(claimed, outcome, now)
            else:
                self._end(claimed.id, "rejected", now, str(outcome))
                note = claimed.notification
                self._say(now, note.receiver, note.group_key, f"not delivered: {note.receiver} refused it: {outcome}")
        return True

    def next_due(self, now: float) -> float | None:
        """When `claim` will next have a message; None when none waits."""
        moments = []
        for receiver, first in self._db.execute(
            "SELECT receiver, min(next_try_at) FROM messages WHERE state = 'queued' AND receiver NOT IN"
            " (SELECT receiver FROM messages WHERE state = 'sending') GROUP BY receiver"
        ):
            moments.append(max(first, self._pacing.free_at(receiver, now)))
        return min(moments, default=None)

    def waiting(self) -> tuple[int, float | None]:
        """How many messages wait, and since when the first of them may be sent."""
        count, since = self._db.execute(
            "SELECT count(*), min(next_try_at) FROM messages WHERE state = 'queued'"
        ).fetchone()
        return count, since

    def counts(self) -> dict[str, int]:
        """Messages by state."""
        return dict(self._db.execute("SELECT state, count(*) FROM messages GROUP BY state"))

    def prune(self, now: float) -> None:
        """Forget delivered messages, threads and decisions that are old or too many."""
        oldest = now - self._options.keep_delivered
        with self.transaction():
            self._db.execute("DELETE FROM messages WHERE done_at < ?", (oldest,))
            self._db.execute("DELETE FROM threads WHERE at < ?", (oldest,))
            self.decisions.prune(oldest, self._options.most_decisions)

    def clock_was_set(self, seconds: float) -> None:
        """The wall clock jumped: what waits waits as long as before."""
        with self.transaction():
            self._db.execute(
                "UPDATE messages SET next_try_at = next_try_at + ?, created_at = created_at + ? WHERE state = 'queued'",
                (seconds, seconds),
            )
            self._db.execute("UPDATE messages SET done_at = done_at + ? WHERE done_at IS NOT NULL", (seconds,))
            self._db.execute("UPDATE receivers SET blocked_until = blocked_until + ?", (seconds,))

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
        self._say(now, note.receiver, note.group_key, f"delivered to {note.receiver}{tries}: {note.reason}{detail}")

    def _failed(self, claimed: Claimed, error: Retryable, now: float) -> None:
        note = claimed.notification
        wait = self._pacing.failed(note.receiver, error, claimed.attempt, now)
        self._db.execute(
            "UPDATE messages SET state = 'queued', next_try_at = ?, error = ? WHERE id = ?",
            (now + wait, clean(str(error)), claimed.id),
        )
        retry = format_duration(float(round(wait, 1)))
        self._say(now, note.receiver, note.group_key, f"not delivered yet: {error}; next try in {retry}")
        self._requeue_behind(claimed, now)

    def _requeue_behind(self, claimed: Claimed, now: float) -> None:
        """A newer message of the group came while this one was under way: it takes over."""
        note = claimed.notification
        row = self._db.execute(
            "SELECT id, payload FROM messages WHERE receiver = ? AND group_key = ? AND state = 'queued' AND id > ?",
            (note.receiver, note.group_key, claimed.id),
        ).fetchone()
        if row and (newer := self._decoded(row[0], row[1], now)) is not None:
            self._end(claimed.id, "superseded", now)
            self._db.execute(
                "UPDATE messages SET payload = ?, attempts = ?, next_try_at = older.next_try_at,"
                " created_at = min(messages.created_at, older.created_at)"
                " FROM (SELECT created_at, next_try_at FROM messages WHERE id = ?) AS older WHERE id = ?",
                (encode(merged(note, newer)), claimed.attempt, claimed.id, row[0]),
            )

    def _decoded(self, id: int, payload: bytes, now: float) -> Notification | None:
        """What a row holds; one that cannot be read is given up and said, for the others behind it."""
        try:
            return decode(payload)
        except msgspec.DecodeError as error:
            self._give_up(id, error, now)
            return None

    def _give_up(self, id: int, error: Exception, now: float) -> None:
        receiver, group_key = self._db.execute(
            "SELECT receiver, group_key FROM messages WHERE id = ?", (id,)
        ).fetchone()
        self._end(id, "expired", now, str(error))
        self._say(now, receiver, group_key, f"given up: the message cannot be read: {error}")

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
            self._say(now, receiver, group_key, f"given up: {receiver} could not be reached for {kept}: {error}")

    def _summarize(self, receiver: str, now: float) -> None:
        """Too many groups wait: one message about all of them takes their place."""
        due = (
            "WHERE receiver = ? AND state = 'queued' AND next_try_at <= ? AND group_key NOT LIKE '%:digest'",
            (receiver, now),
        )
        of_them = f"SELECT count(*), min(created_at) FROM messages {due[0]}"  # noqa: S608
        count, created_at = self._db.execute(of_them, due[1]).fetchone()
        if count <= self._options.summarize_above:
            return
        rows = self._db.execute(f"SELECT id, payload FROM messages {due[0]} ORDER BY id", due[1])  # noqa: S608
        unreadable: list[tuple[int, Exception]] = []

        def readable() -> Iterator[Notification]:
            for id, payload in rows:
                try:
                    yield decode(payload)
                except msgspec.DecodeError as error:
                    unreadable.append((id, error))

        note = replace(summary(readable(), receiver, now), message_id=uuid.uuid4().hex)
        for id, error in unreadable:
            self._give_up(id, error, now)
        self._db.execute(f"UPDATE messages SET state = 'superseded', done_at = ? {due[0]}", (now, *due[1]))  # noqa: S608
        self._db.execute(
            "INSERT INTO messages (message_id, receiver, group_key, payload, state, created_at, next_try_at)"
            " VALUES (?, ?, ?, ?, 'queued', ?, ?)",
            (note.message_id, receiver, note.group_key, encode(note), created_at, now),
        )
        self._say(now, receiver, note.group_key, f"{count} waiting messages became one summary")
