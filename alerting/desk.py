"""The desk: alerts in their present state come in, messages that are due go out.

Joins flap damping, inhibition, grouping, muting and the outbox. Each step is one transaction: what is in memory and
what is in the file never differ by more than the step that failed. Time is passed in, as Unix seconds; several threads
may call, one at a time gets through.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Final, TypeVar

from agent.core.labels import Labels
from alerting.attempts import Claimed, Outcome
from alerting.book import Book
from alerting.decision_log import Entry
from alerting.deliveries import Deliveries, carried_over
from alerting.desk_memory import DeskMemory
from alerting.grouping import Decision
from alerting.inhibition import is_for_people
from alerting.notify.message import Alert, DigestNote, Notification, printable
from alerting.outbox import Outbox
from alerting.policy import Policy
from alerting.rule_store import RuleStore, Saved
from alerting.silences import Silence
from alerting.state import EPOCH_S, Instance

T = TypeVar("T")
RulesSnapshot = Mapping[str, Mapping[Labels, Instance]]

_TIDY_S: Final = 3600.0


class Desk:
    """Opens on what the last one left in the book: messages, groups, silences, what flaps."""

    def __init__(self, book: Book, policy: Policy, now: float) -> None:
        self._lock = threading.RLock()
        self._book = book
        self._policy = policy
        self._tidied_at = now
        self._ahead: float | None = None  # by how much the wall clock is ahead of one that is never set
        self.deliveries = {name: Deliveries() for name in policy.notifiers}
        self.remarks: list[str] = []  # what could not be read of the last one's state, in sentences
        self._keep_to(book.connection)
        self._memory = DeskMemory(book, policy, now)
        self.remarks += self._memory.remarks
        # Groups of before the start wait until the rules have said how things are now.
        self.is_settled = len(self._memory.dispatcher) == 0
        self._transact(lambda: self._outbox.recover(now))
        self._transact(lambda: self._drop_unreachable(now))

    # What is remembered.

    def _keep_to(self, connection: sqlite3.Connection) -> None:
        self._outbox = Outbox(connection, self._policy.outbox)
        self._rules = RuleStore(connection)
        if damaged := self._rules.load().damaged:  # so that it knows what is in there
            self.remarks.append(f"{damaged} alerts of rules cannot be read")

    def _transact(self, step: Callable[[], T], *, keeps: bool = True) -> T:
        """Do the step and keep what it changed, or neither; a file that takes nothing is left for memory.

        `keeps` False: it changed nothing but the outbox, so groups and silences need not be looked at.
        """
        with self._lock:
            try:
                return self._try(step, keeps)
            except sqlite3.Error as error:
                if not self._book.leave(error):
                    raise
                self._keep_to(self._book.connection)
                self._memory.write_again(self._book)
                return self._try(step, keeps)

    def _try(self, step: Callable[[], T], keeps: bool) -> T:
        connection = self._book.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = step()
            saved = self._memory.save(self._book) if keeps else None
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._rules.forget()
            self._memory.recall(self._policy)
            raise
        if saved is not None:
            self._memory.saved = saved
        return result

    # Rules and their alerts.

    def saved_rules(self) -> Saved:
        """The alerts of all rules as they were last kept. Raise sqlite3.Error."""
        with self._lock:
            return self._rules.load()

    def take(self, alerts: Iterable[Alert], rules: RulesSnapshot, at: float) -> None:
        """What an evaluation at `at` has found: its alerts in their present state, and the state of all rules."""
        found = list(map(printable, alerts))

        def step() -> None:
            self._rules.save(rules, at)
            if found:
                self._record(self._pass_on(self._memory.damper.pass_on(found, at), at))

        self._transact(step, keeps=bool(found))

    def _pass_on(self, alerts: Collection[Alert], now: float) -> list[Decision]:
        self._memory.muting.inhibitor.update(alerts)
        decisions = self._memory.dispatcher.update([one for one in alerts if is_for_people(one.labels)], now)
        for alert in alerts:
            if not alert.is_firing and self._memory.muting.silences.resolved(alert.fingerprint, now):
                self._memory.silences_have_changed(now)
        return decisions

    def _record(self, decisions: Iterable[Decision]) -> None:
        self._outbox.record([self._deliverable(one) for one in decisions])

    def _deliverable(self, decision: Decision) -> Decision:
        if decision.notification is None or decision.receiver in self._policy.notifiers:
            return decision
        sentence = f"not sent: no receiver is configured ({decision.notification.reason})"
        return Decision(decision.at, decision.receiver, decision.group_key, sentence)

    def settle(self, now: float) -> None:
        """Every rule has been evaluated since the start: groups of before may speak."""
        with self._lock:
            if not self.is_settled:
                self._transact(lambda: self._memory.dispatcher.look_again(now))
                self.is_settled = True

    def note(self, note: DigestNote) -> None:
        """A line for the next digests."""
        self._transact(lambda: self._memory.dispatcher.note(note, note.at))

    # Sending.

    def work(self, now: float) -> list[Claimed]:
        """Decide what is due, and give out what is to be sent now: at most one message for each receiver."""
        with self._lock:
            if self._book.come_home(now):
                self._keep_to(self._book.connection)
                found, self._book.silences_at_home = self._book.silences_at_home, b""
                self._transact(lambda: self._memory.take_in_silences(found, now))
            if self._has_due(now):
                self._transact(lambda: self._decide(now))
            if abs(now - self._tidied_at) >= _TIDY_S:
                self._tidied_at = now
                self._transact(lambda: self._tidy(now))
            names = self._policy.notifiers.keys()
            if (due := self._outbox.next_due(now)) is None or due > now:
                return []
            claimed = self._transact(lambda: self._outbox.claim(now, self._policy.summarizing, names), keeps=False)
            return [one._replace(notification=self._as_sent(one.notification, now)) for one in claimed]

    def _as_sent(self, notification: Notification, now: float) -> Notification:
        """With who sends it and when, which is known only now: a message may have waited since before an upgrade."""
        return replace(notification, source=self._policy.source, sent_at=now)

    def _has_due(self, now: float) -> bool:
        of_groups = self._memory.dispatcher.next_due() if self.is_settled else None
        moments = (self._memory.damper.next_due(), of_groups, self._memory.silences_change_at)
        return any(moment is not None and moment <= now for moment in moments)

    def _decide(self, now: float) -> None:
        if self._memory.silences_change_at is not None and self._memory.silences_change_at <= now:
            self._memory.silences_have_changed(now)
        decisions = self._pass_on(self._memory.damper.due(now), now)
        if self.is_settled:
            decisions += self._memory.dispatcher.due(now, self._memory.muting.judge)
        self._record(decisions)

    def _tidy(self, now: float) -> None:
        self._outbox.prune(now)
        self._memory.muting.silences.forget(now)

    def requeue_lost(self, under_way: Collection[str], now: float) -> None:
        """Messages given out to nobody are sent again. `under_way`: the ids of those that are being sent."""
        with self._lock:
            if self._outbox.lost(under_way):
                why = "nobody heard that it was given out"
                self._transact(lambda: self._outbox.recover(now, under_way, why), keeps=False)

    def done(self, claimed: Claimed, outcome: Outcome, now: float) -> None:
        """What came of sending one. Again the same changes nothing."""
        receiver = claimed.notification.receiver

        def step() -> bool:
            is_news = self._outbox.done(claimed, outcome, now)
            if receiver not in self._policy.notifiers:
                self._drop_unreachable(now)
            return is_news

        with self._lock:
            if self._transact(step, keeps=False) and receiver in self.deliveries:
                self.deliveries[receiver].count(outcome, now)

    def works(self, receiver: str) -> None:
        """It took a message past the outbox, such as a test. Never waits."""
        if (counts := self.deliveries.get(receiver)) is not None:
            counts.recovered()

    def waiting(self) -> tuple[int, float | None]:
        """How many messages wait, and since when the first of them may be sent. Raise sqlite3.Error."""
        with self._lock:
            return self._outbox.waiting()

    def next_due(self, now: float) -> float | None:
        """When `work` will next have something to do; None while nothing waits."""
        with self._lock:
            moments = [self._memory.damper.next_due(), self._outbox.next_due(now), self._memory.silences_change_at]
            if self.is_settled:
                moments.append(self._memory.dispatcher.next_due())
            if self._book.trouble:
                moments.append(now + 60.0)
            return min((moment for moment in moments if moment is not None), default=None)

    # What people do.

    def silence(self, silence: Silence, now: float) -> Silence:
        """Add a silence."""

        def step() -> None:
            self._memory.muting.silences.add(silence)
            self._say(now, f"silence {silence.id} added: {silence.reason}")
            self._memory.silences_have_changed(now)

        self._transact(step)
        return silence

    def unsilence(self, id: str, now: float) -> Silence:
        """End a silence. Raise KeyError when there is none of that id, or it is over."""

        def step() -> Silence:
            ended = self._memory.muting.silences.expire(id, now)
            self._say(now, f"silence {id} ended")
            self._memory.silences_have_changed(now)
            return ended

        return self._transact(step)

    def _say(self, now: float, sentence: str) -> None:
        self._outbox.decisions.say(now, "", "", sentence)

    @property
    def policy(self) -> Policy:
        return self._policy

    def silences(self) -> list[Silence]:
        """All there are, the ended ones of the last days included."""
        with self._lock:
            return list(self._memory.muting.silences.by_id.values())

    def quiet(self, labels: Labels, now: float) -> str:
        """Why an alert with these labels would not be told now, in a sentence; "" when it would."""
        with self._lock:
            if not is_for_people(labels):
                return "for nobody: it only keeps others quiet"
            alert = printable(Alert(labels))
            judge, routes = self._memory.muting.judge, self._policy.root.matching(alert.labels)
            reasons = [judge(alert, route, now) for route in routes]
            return "; ".join(dict.fromkeys(mute.sentence for mute in reasons if mute is not None))

    def receivers(self, labels: Labels) -> list[str]:
        """Who is told of an alert with these labels."""
        routes = self._policy.root.matching(labels) if is_for_people(labels) else []
        return list(dict.fromkeys(route.receiver for route in routes if route.receiver))

    def log(self, limit: int = 100, receiver: str | None = None, since: float = 0.0) -> list[Entry]:
        """The latest decisions, oldest first. Raise sqlite3.Error."""
        with self._lock:
            return self._outbox.decisions.latest(limit, receiver, since)

    def counts(self) -> dict[str, int]:
        """Messages by state. Raise sqlite3.Error."""
        with self._lock:
            return self._outbox.counts()

    @property
    def groups(self) -> int:
        return len(self._memory.dispatcher)

    @property
    def trouble(self) -> str:
        """Why everything is in memory only; "" while it is in the file."""
        return self._book.trouble

    @property
    def set_aside(self) -> str:
        return self._book.set_aside

    # What changes around it.

    def reload(self, policy: Policy, now: float) -> None:
        """Go on with another policy. Alerts that now take another route begin anew there."""
        with self._lock:
            before, self._policy = self._policy, policy
            self.deliveries = carried_over(self.deliveries, before.notifiers, policy.notifiers)
            self._outbox = Outbox(self._book.connection, policy.outbox)
            self._memory.recall(policy, now)
            self._transact(lambda: self._drop_unreachable(now))

    def _drop_unreachable(self, now: float) -> None:
        """Messages to receivers that are no more are given up."""
        connection = self._book.connection
        gone: Counter[str] = Counter()
        for id, receiver in connection.execute("SELECT id, receiver FROM messages WHERE state = 'queued'").fetchall():
            if receiver not in self._policy.notifiers:
                gone[receiver] += 1
                connection.execute("UPDATE messages SET state = 'expired', done_at = ? WHERE id = ?", (now, id))
        for receiver, count in gone.items():
            sentence = f"given up: no receiver is called {receiver} any more; {count} waited"
            self._outbox.decisions.say(now, receiver, "", sentence)

    def follow_clock(self, ahead: float, now: float) -> None:
        """`ahead`: seconds by which the wall clock is ahead of one that nobody sets. See `clock_was_set`."""
        with self._lock:
            before = ahead if self._ahead is None else self._ahead
            if abs(ahead - before) > EPOCH_S:
                self.clock_was_set(ahead - before, now)
            self._ahead = ahead

    def clock_was_set(self, seconds: float, now: float) -> None:
        """The wall clock jumped: timers go on as if it had not; silences, intervals and digests follow the new time."""

        def step() -> None:
            self._memory.clock_was_set(self._policy, seconds, now)
            self._outbox.clock_was_set(seconds)

        self._transact(step)

    def close(self) -> None:
        with self._lock:
            self._book.close()
