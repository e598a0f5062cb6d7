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
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from agent.core.errors import Retryable
from agent.core.labels import Labels
from alerting import desk_state
from alerting.book import Book
from alerting.flap import FlapDamper, FlapPolicy
from alerting.grouping import Decision, Dispatcher
from alerting.inhibition import Inhibitor, InhibitRule, is_for_people
from alerting.intervals import TimeInterval
from alerting.muting import Muting
from alerting.notify.message import Alert, DigestNote, Notification, Notifier, SentReceipt, printable
from alerting.outbox import Claimed, Entry, Outbox, Outcome
from alerting.pacing import OutboxOptions
from alerting.routing import Route
from alerting.rule_store import RuleStore, Saved
from alerting.silences import Silence, Silences
from alerting.state import Instance

T = TypeVar("T")
RulesSnapshot = Mapping[str, Mapping[Labels, Instance]]

NOBODY: Final = Route("{}", "nobody", "")  # the tree where there is no receiver
_TIDY_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Policy:
    """Who is told what, when and how. `notifiers` by the name of their receiver; `zone`: of times people read.

    `source`: this host, as receivers that several hosts tell know it. `forwards`: receivers that get all alerts past
    the routes, because they route by themselves.
    """

    root: Route = NOBODY
    notifiers: Mapping[str, Notifier] = field(default_factory=dict)
    inhibit_rules: tuple[InhibitRule, ...] = ()
    intervals: Mapping[str, tuple[TimeInterval, ...]] = field(default_factory=dict)
    flap: FlapPolicy = FlapPolicy()
    outbox: OutboxOptions = field(default_factory=OutboxOptions)
    external_url: str = ""
    zone: str = "UTC"
    source: str = ""
    forwards: tuple[str, ...] = ()

    @property
    def summarizing(self) -> frozenset[str]:
        """Receivers to whom one message may stand for many."""
        return frozenset(name for name, one in self.notifiers.items() if one.can_summarize)


@dataclass(slots=True)
class Deliveries:
    """What became of the messages of one receiver since the start. `error`: of the last try, "" when it went well."""

    sent: int = 0
    refused: int = 0
    failed: int = 0
    error: str = ""
    failing_since: float | None = None  # Unix seconds


class Desk:
    """Opens on what the last one left in the book: messages, groups, silences, what flaps."""

    def __init__(self, book: Book, policy: Policy, now: float) -> None:
        self._lock = threading.RLock()
        self._book = book
        self._policy = policy
        self._tidied_at = now
        self.deliveries: dict[str, Deliveries] = {}
        self.remarks: list[str] = []  # what could not be read of the last one's state, in sentences
        self._saved: dict[str, bytes] = {name: book.read(name) for name in ("groups", "flaps", "silences")}
        self._keep_to(book.connection)
        self._recall(now)
        # Groups of before the start wait until the rules have said how things are now.
        self.is_settled = len(self._dispatcher) == 0
        self._transact(lambda: self._outbox.recover(now))
        self._transact(lambda: self._drop_unreachable(now))

    # What is remembered.

    def _keep_to(self, connection: sqlite3.Connection) -> None:
        self._outbox = Outbox(connection, self._policy.outbox)
        self._rules = RuleStore(connection)
        self._rules.load()  # so that it knows what is in there

    def _recall(self, now: float) -> None:
        """Take up what was saved last; what cannot be read is left out and said."""
        policy = self._policy
        self._damper = FlapDamper(policy.flap, self._read("flaps", desk_state.flaps_from_json, {}))
        no_silences: tuple[dict[str, Silence], int] = ({}, 0)
        silences, lost = self._read("silences", desk_state.silences_from_json, no_silences)
        if lost:
            self.remarks.append(f"{lost} silences cannot be read")
        told = [state.told() for state in self._damper.states.values()]
        self._muting = Muting(
            Inhibitor(policy.inhibit_rules, told), policy.intervals, Silences(silences), zone=policy.zone
        )
        no_groups: tuple[bytes, list[Alert]] = (b"", [])
        groups, homeless = self._read("groups", lambda saved: desk_state.regrouped(saved, policy.root), no_groups)
        self._dispatcher = self._new_dispatcher()
        if groups:
            homeless += self._dispatcher.restore(groups)
        self._dispatcher.update(homeless, now)

    def _new_dispatcher(self) -> Dispatcher:
        return Dispatcher(self._policy.root, self._policy.external_url, zone=self._policy.zone)

    def _read(self, name: str, decode: Callable[[bytes], T], otherwise: T) -> T:
        try:
            return decode(self._saved[name])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.remarks.append(f"the {name} of before cannot be read: {error}")
            return otherwise

    def _save(self) -> dict[str, bytes]:
        """Write what differs from last time; return what is saved now."""
        now = {
            "groups": self._dispatcher.snapshot(),
            "flaps": desk_state.flaps_as_json(self._damper.states),
            "silences": desk_state.silences_as_json(self._muting.silences.by_id),
        }
        for name, value in now.items():
            if value != self._saved[name]:
                self._book.write(name, value)
        return now

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
                return self._try(step, keeps)

    def _try(self, step: Callable[[], T], keeps: bool) -> T:
        connection = self._book.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = step()
            saved = self._save() if keeps else self._saved
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._rules.forget()
            self._recall(0.0)  # nothing was saved: as it was before
            raise
        self._saved = saved
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
                self._record(self._pass_on(self._damper.pass_on(found, at), at))

        self._transact(step, keeps=bool(found))

    def _pass_on(self, alerts: Collection[Alert], now: float) -> list[Decision]:
        self._muting.inhibitor.update(alerts)
        decisions = self._dispatcher.update([one for one in alerts if is_for_people(one.labels)], now)
        for alert in alerts:
            if not alert.is_firing and self._muting.silences.resolved(alert.fingerprint, now):
                self._dispatcher.look_again(now)
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
                self.is_settled = True
                self._dispatcher.look_again(now)

    def note(self, note: DigestNote) -> None:
        """A line for the next digests."""
        self._transact(lambda: self._dispatcher.note(note, note.at))

    # Sending.

    def work(self, now: float) -> list[Claimed]:
        """Decide what is due, and give out what is to be sent now: at most one message for each receiver."""
        with self._lock:
            if self._book.come_home(now):
                self._keep_to(self._book.connection)
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
        moments = (self._damper.next_due(), self._dispatcher.next_due() if self.is_settled else None)
        return any(moment is not None and moment <= now for moment in moments)

    def _decide(self, now: float) -> None:
        decisions = self._pass_on(self._damper.due(now), now)
        if self.is_settled:
            decisions += self._dispatcher.due(now, self._muting.judge)
        self._record(decisions)

    def _tidy(self, now: float) -> None:
        self._outbox.prune(now)
        self._muting.silences.forget(now)

    def done(self, claimed: Claimed, outcome: Outcome, now: float) -> None:
        """What came of sending one."""
        with self._lock:
            self._count(claimed.notification.receiver, outcome, now)
            self._transact(lambda: self._outbox.done(claimed, outcome, now), keeps=False)

    def _count(self, receiver: str, outcome: Outcome, now: float) -> None:
        counts = self.deliveries.setdefault(receiver, Deliveries())
        if isinstance(outcome, SentReceipt):
            counts.sent, counts.error, counts.failing_since = counts.sent + 1, "", None
            return
        counts.error = str(outcome)
        counts.failing_since = now if counts.failing_since is None else counts.failing_since
        if isinstance(outcome, Retryable):
            counts.failed += 1
        else:
            counts.refused += 1

    def next_due(self, now: float) -> float | None:
        """When `work` will next have something to do; None while nothing waits."""
        with self._lock:
            moments = [self._damper.next_due(), self._outbox.next_due(now)]
            if self.is_settled:
                moments.append(self._dispatcher.next_due())
            if self._book.trouble:
                moments.append(now + 60.0)
            return min((moment for moment in moments if moment is not None), default=None)

    # What people do.

    def silence(self, silence: Silence, now: float) -> Silence:
        """Add a silence."""

        def step() -> None:
            self._muting.silences.add(silence)
            self._say(now, f"silence {silence.id} added: {silence.reason}")
            self._dispatcher.look_again(now)

        self._transact(step)
        return silence

    def unsilence(self, id: str, now: float) -> Silence:
        """End a silence. Raise KeyError when there is none of that id, or it is over."""

        def step() -> Silence:
            ended = self._muting.silences.expire(id, now)
            self._say(now, f"silence {id} ended")
            self._dispatcher.look_again(now)
            return ended

        return self._transact(step)

    def _say(self, now: float, sentence: str) -> None:
        self._outbox.say(now, "", "", sentence)

    @property
    def policy(self) -> Policy:
        return self._policy

    def silences(self) -> list[Silence]:
        """All there are, the ended ones of the last days included."""
        with self._lock:
            return list(self._muting.silences.by_id.values())

    def quiet(self, labels: Labels, now: float) -> str:
        """Why an alert with these labels would not be told now, in a sentence; "" when it would."""
        with self._lock:
            if not is_for_people(labels):
                return "for nobody: it only keeps others quiet"
            alert = printable(Alert(labels))
            reasons = [self._muting.judge(alert, route, now) for route in self._policy.root.matching(alert.labels)]
            return "; ".join(dict.fromkeys(mute.sentence for mute in reasons if mute is not None))

    def receivers(self, labels: Labels) -> list[str]:
        """Who is told of an alert with these labels."""
        routes = self._policy.root.matching(labels) if is_for_people(labels) else []
        return list(dict.fromkeys(route.receiver for route in routes if route.receiver))

    def log(self, limit: int = 100, receiver: str | None = None, since: float = 0.0) -> list[Entry]:
        """The latest decisions, oldest first. Raise sqlite3.Error."""
        with self._lock:
            return self._outbox.log(limit, receiver, since)

    def counts(self) -> dict[str, int]:
        """Messages by state. Raise sqlite3.Error."""
        with self._lock:
            return self._outbox.counts()

    @property
    def groups(self) -> int:
        return len(self._dispatcher)

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
            self._policy = policy
            self._outbox = Outbox(self._book.connection, policy.outbox)
            self._recall(now)
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
            self._outbox.say(now, receiver, "", f"given up: no receiver is called {receiver} any more; {count} waited")

    def clock_was_set(self, seconds: float) -> None:
        """The wall clock jumped: timers go on as if it had not; silences and time intervals follow the new time."""
        with self._lock:
            self._saved["groups"] = desk_state.groups_shifted(self._saved["groups"], seconds)
            self._damper.states = desk_state.flaps_shifted(self._damper.states, seconds)
            self._saved["flaps"] = desk_state.flaps_as_json(self._damper.states)
            self._dispatcher = self._new_dispatcher()
            self._dispatcher.restore(self._saved["groups"])

            def step() -> None:
                connection = self._book.connection
                for name in ("groups", "flaps"):
                    self._book.write(name, self._saved[name])
                connection.execute(
                    "UPDATE messages SET next_try_at = next_try_at + ?, created_at = created_at + ?"
                    " WHERE state = 'queued'", (seconds, seconds)
                )  # fmt: skip
                connection.execute("UPDATE messages SET done_at = done_at + ? WHERE done_at IS NOT NULL", (seconds,))
                connection.execute("UPDATE receivers SET blocked_until = blocked_until + ?", (seconds,))

            self._transact(step)

    def close(self) -> None:
        with self._lock:
            self._book.close()


def sample_notification(receiver: str, policy: Policy, labels: Labels, now: float, message_id: str) -> Notification:
    """What `notify test` sends: an alert that says of itself that it is none."""
    alert = Alert(
        labels, (("description", "Somebody asked for it; nothing is wrong."), ("summary", "This is a test")),
        starts_at=now,
    )  # fmt: skip
    return Notification(
        receiver, "{}:test", (alert,), now, labels, policy.external_url, policy.zone, policy.source, now, message_id,
        kind="test", reason="a test that somebody asked for",
    )  # fmt: skip
