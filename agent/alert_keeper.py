"""Keeps alerting: evaluates rules on one thread, decides and delivers on others, and has no timer but what is due."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar, cast

import structlog

from agent.alert_forwarder import Forwarder, TakesAll
from agent.alert_metrics import ALERTING, RECEIVER
from agent.core.clock import NS, Clock
from agent.core.errors import Retryable
from agent.core.isolation import Worker, call_soon
from agent.core.labels import Labels, labels_of
from agent.core.model import Reading
from agent.core.problems import ConfigError, Place, Problem
from agent.core.query import Querier
from agent.heartbeat import Heartbeat
from agent.rule_sets import load_rules
from alerting.book import Book
from alerting.dependencies import Dependencies
from alerting.desk import Desk, Policy, sample_notification
from alerting.engine import EPOCH_S, Engine, Evaluation, Recorder
from alerting.inhibition import is_for_people
from alerting.judge import Surroundings, told
from alerting.notify.message import Alert, DigestNote, Notifier, SentReceipt
from alerting.options import AlertingOptions
from alerting.outbox import Claimed, Outcome, attempt
from alerting.rule_files import RuleSet
from alerting.rule_scheduler import RuleScheduler

T = TypeVar("T")
log = structlog.get_logger("alerting")

FILE_NAME: Final = "alerts.sqlite"
_EVALUATION_TIMEOUT_S: Final = 120.0
_DESK_TIMEOUT_S: Final = 30.0
_CLOSE_TIMEOUT_S: Final = 4.0
_LONGEST_SLEEP_S: Final = 60.0
_AFTER_A_FAULT_S: Final = 5.0
_SETTLE_S: Final = 90.0  # after a start the groups of before speak at the latest
_FIXED: Final = ("enabled", "external_url", "external_labels")  # what a reload cannot change


class RememberingKeeper(Protocol):
    """History, as far as alerting needs it."""

    def querier(self) -> Querier: ...

    def record(self, source: str, time_ms: int, samples: dict[Labels, float]) -> None: ...


class AlertKeeper:
    """Rules, their alerts and the messages about them. Belongs to the event loop."""

    def __init__(
        self,
        options: AlertingOptions,
        rules_dir: str,
        state_dir: str,
        clock: Clock,
        history: RememberingKeeper,
        dependencies: Dependencies,
        instance: str,
    ) -> None:
        """`instance`: the name of this host, on alerts about the agent and to receivers that several hosts share.

        Rules with faults are said and left out.
        """
        self.options = options
        self._rules_dir = rules_dir
        self._clock = clock
        self._path = os.path.join(state_dir, FILE_NAME)
        self.querier = history.querier()
        self._rules_worker = Worker("rules")
        self._desk_worker = Worker("alerts")
        self._senders: dict[str, Worker] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._forwarders: dict[str, tuple[Forwarder, asyncio.Task[None]]] = {}
        self._wake = asyncio.Event()
        self._opened = asyncio.Event()
        self._evaluated: set[str] = set()
        self._evaluated_at: float | None = None
        self._ahead_ns: int | None = None
        self._trouble = ""
        self._queued = 0
        self._instance = instance
        self._own_labels = labels_of({"instance": instance})
        recorder: Recorder = history
        self._around = around = Surroundings(labels_of(options.external_labels), options.external_url.rstrip("/"))
        self.engine = Engine(
            self.querier, recorder, dependencies, around, own_labels=self._own_labels, interval=options.rules.interval,
            monotonic=clock.monotonic,
        )  # fmt: skip
        self.desk: Desk | None = None
        self.rules = load_rules(options.rules, rules_dir)
        self.heartbeat: Heartbeat | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # Life.

    async def run(self, troubles: Callable[[], Sequence[str]] = tuple) -> None:
        """Until cancelled. `troubles`: what of the agent does not work, besides alerting, in sentences."""
        self._loop = asyncio.get_running_loop()
        for problem in self.rules.errors:
            log.error("rules.left_out", problem=str(problem))
        for problem in self.rules.warnings:
            log.warning("rules.doubtful", problem=str(problem))
        while self.desk is None:
            try:
                self.desk = await self._desk_worker.call(self._open, _DESK_TIMEOUT_S)
            except (sqlite3.Error, TimeoutError, OSError) as error:
                self._fault("alerts.cannot_open", error)
                await self._clock.sleep_until(self._clock.monotonic() + _LONGEST_SLEEP_S)
        self._opened.set()
        self._forward_to(self.desk)
        scheduler = RuleScheduler(
            self.engine, self._clock, self._call, self._deliver, self._failed, self.options.rules.interval
        )
        tasks = [asyncio.create_task(scheduler.run(), name="rules"), asyncio.create_task(self._tell(), name="alerts")]
        if self.options.heartbeat.url:
            self.heartbeat = Heartbeat(self.options.heartbeat, lambda: [*troubles(), *self.troubles()], self._clock)
            tasks.append(asyncio.create_task(self.heartbeat.run(), name="heartbeat"))
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            self._forward_to(None)

    def _open(self) -> Desk:
        now = self.now()
        desk = Desk(Book(self._path), self.options.policy(self._instance), now)
        for remark in desk.remarks:
            log.error("alerts.forgotten", what=remark)
        if desk.set_aside:
            log.error("alerts.set_aside", file=desk.set_aside, consequence="alerts, silences and messages begin anew")
        if desk.trouble:
            log.error("alerts.memory_only", reason=desk.trouble, consequence="a restart forgets what is told")
        saved = desk.saved_rules()
        self.engine.restore(saved.alerts, saved.seen_at, now)
        self.engine.load(self.rules.groups, now)
        self.engine.drop_orphans(now)
        return desk

    async def close(self) -> None:
        """Let what is being sent come back, for a moment; what is not back is sent again after the next start."""
        if self._sending:
            await asyncio.wait(self._sending, timeout=_CLOSE_TIMEOUT_S)
        if self.desk is not None:
            try:
                await self._desk_worker.call(self.desk.close, _CLOSE_TIMEOUT_S)
            except (sqlite3.Error, TimeoutError) as error:
                log.error("alerts.left_open", reason=str(error))
        for worker in (self._rules_worker, self._desk_worker, *self._senders.values()):
            worker.close()
        if self.heartbeat is not None:
            self.heartbeat.close()

    def now(self) -> float:
        """Unix seconds."""
        return self._clock.wall_ns() / NS

    # Judging, on the thread of the rules.

    def _call(self, blocking: Callable[[], T]) -> Awaitable[T]:
        return self._rules_worker.call(blocking, _EVALUATION_TIMEOUT_S)

    def _deliver(self, done: Evaluation) -> None:
        assert self.desk is not None and self._loop is not None  # noqa: PT018 - run has made them
        self.desk.take(done.alerts, self.engine.snapshot(), done.at)
        for error in done.errors:
            log.warning("rule.failed", reason=error)
        call_soon(self._loop, self._evaluation_done, done)

    def _evaluation_done(self, done: Evaluation) -> None:
        self._evaluated.add(done.group)
        self._evaluated_at = self._clock.monotonic()
        if done.alerts:
            for forwarder, _ in self._forwarders.values():
                forwarder.poke()
        if done.alerts or (self.desk is not None and not self.desk.is_settled and self._has_settled()):
            self._wake.set()

    def _has_settled(self) -> bool:
        return self._evaluated >= self.engine.groups.keys()

    def _failed(self, group: str, error: Exception) -> None:
        self._fault("rules.cannot_evaluate", error, group=group)

    def _fault(self, event: str, error: Exception, **facts: object) -> None:
        """Something that a person must see; the same again is not said again."""
        reason = str(error) or type(error).__name__
        if reason != self._trouble:
            log.error(event, reason=reason, **facts)
        self._trouble = reason

    # Telling, on the thread of the desk and one for each receiver.

    async def on_desk(self, step: Callable[[Desk], T]) -> T:
        """Something of the desk, away from the event loop. Raise sqlite3.Error or TimeoutError."""
        desk = self.desk
        if desk is None:
            raise TimeoutError("alerting is still starting")
        return await self._desk_worker.call(lambda: step(desk), _DESK_TIMEOUT_S)

    async def _tell(self) -> None:
        started = self._clock.monotonic()
        while True:
            self._wake.clear()
            try:
                seconds = self._look_at_the_clock()
                if abs(seconds) > EPOCH_S:
                    await self.on_desk(lambda desk, by=seconds: desk.clock_was_set(by))  # type: ignore[misc]
                is_settled = self._has_settled() or self._clock.monotonic() - started > _SETTLE_S
                claimed, due = await self.on_desk(lambda desk, on=is_settled: self._turn(desk, on))  # type: ignore[misc]
            except (sqlite3.Error, TimeoutError) as error:
                self._fault("alerts.cannot_tell", error)
                await self._clock.sleep_until(self._clock.monotonic() + _AFTER_A_FAULT_S)
                continue
            self._trouble = ""
            for one in claimed:
                self._in_background(self._send(one))
            await self._sleep(due, bool(claimed))

    def _turn(self, desk: Desk, is_settled: bool) -> tuple[list[Claimed], float | None]:
        now = self.now()
        if is_settled:
            desk.settle(now)
        claimed = desk.work(now)
        self._queued = desk.counts().get("queued", 0) if claimed or self._queued else 0
        return claimed, desk.next_due(now)

    def _look_at_the_clock(self) -> float:
        """By how many seconds the wall clock has been set since the last look."""
        ahead_ns = self._clock.wall_ns() - round(self._clock.monotonic() * NS)
        before, self._ahead_ns = self._ahead_ns, ahead_ns
        return 0.0 if before is None else (ahead_ns - before) / NS

    async def _sleep(self, due: float | None, has_claimed: bool) -> None:
        """Until something is due or somebody wakes us."""
        wait = _LONGEST_SLEEP_S if due is None else min(due - self.now(), _LONGEST_SLEEP_S)
        if wait <= 0 and not has_claimed:
            wait = 1.0  # what is due cannot be done now: its receiver is busy
        sleeping = asyncio.ensure_future(self._clock.sleep_until(self._clock.monotonic() + max(wait, 0.01)))
        waking = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({sleeping, waking}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            waking.cancel()

    async def _send(self, claimed: Claimed) -> None:
        desk, receiver = self.desk, claimed.notification.receiver
        assert desk is not None  # it gave the message out
        notifier = desk.policy.notifiers.get(receiver)
        if notifier is None:
            outcome: Outcome = Retryable("no receiver of that name any more", kind="gone")
        else:
            outcome = await self._attempt(receiver, notifier, claimed)
        before = desk.deliveries.get(receiver)
        was_failing = before is not None and before.failing_since is not None
        if isinstance(outcome, SentReceipt):
            log.info("notify.sent", receiver=receiver, reason=claimed.notification.reason)
        elif not (was_failing and isinstance(outcome, Retryable)):  # `alerts log` has every try, /metrics counts them
            log.warning("notify.failed", receiver=receiver, reason=str(outcome), attempt=claimed.attempt,
                        exc_info=outcome.__cause__)  # fmt: skip
        await self.on_desk(lambda desk: desk.done(claimed, outcome, self.now()))
        self._wake.set()

    async def _attempt(self, receiver: str, notifier: Notifier, claimed: Claimed) -> Outcome:
        worker = self._senders.setdefault(receiver, Worker(f"notify {receiver}"))
        patience = 10 * float(getattr(notifier, "deadline", 30.0)) + 30.0  # it keeps a deadline for each request
        try:
            return await worker.call(partial(attempt, notifier, claimed), patience)
        except TimeoutError as error:
            return Retryable(f"{receiver}: {str(error) or 'it has not come back'}", kind="timeout")

    async def try_out(self, receiver: str) -> dict[str, Any]:
        """Send a test to a receiver, past routes and outbox: what was rendered, and what came of it. Raise KeyError."""
        policy = self.options.policy(self._instance) if self.desk is None else self.desk.policy
        notifier = policy.notifiers[receiver]
        labels = labels_of({**dict(self._own_labels), "alertname": "Test", "severity": "info"})
        note = sample_notification(receiver, policy, labels, self.now(), uuid.uuid4().hex)
        outcome = await self._attempt(receiver, notifier, Claimed(0, note, None, 1))
        is_sent = isinstance(outcome, SentReceipt)
        detail = outcome.detail if isinstance(outcome, SentReceipt) else str(outcome)
        return {"receiver": receiver, "sent": is_sent, "detail": detail, "rendered": notifier.preview(note)}

    def note(self, is_good: bool, text: str) -> None:
        """A line for the next digests, such as the result of a backup."""
        self._in_background(self._note(DigestNote(self.now(), is_good, text)))

    async def _note(self, note: DigestNote) -> None:
        await self._opened.wait()
        await self.on_desk(lambda desk: desk.note(note))

    def look(self) -> None:
        """Something has changed: see at once what is due."""
        self._wake.set()

    # Configuration.

    def read(self, options: AlertingOptions, rules_dir: str) -> RuleSet:
        """What a reload would take over. Raise ConfigError when it cannot be; nothing has changed then."""
        for name in _FIXED:
            if getattr(options, name) != getattr(self.options, name):
                text = "cannot change while the agent runs; restart it"
                raise ConfigError([Problem(Place("alerting"), f"alerting.{name}", text)])
        for part, name in (("rules", "interval"), ("heartbeat", "url")):
            if getattr(getattr(options, part), name) != getattr(getattr(self.options, part), name):
                text = "cannot change while the agent runs; restart it"
                raise ConfigError([Problem(Place("alerting"), f"alerting.{part}.{name}", text)])
        rules = load_rules(options.rules, rules_dir)
        if rules.errors:
            raise ConfigError(rules.errors)
        return rules

    def take_over(self, options: AlertingOptions, rules: RuleSet) -> None:
        """Go on with these, in a moment; alerts of rules that stay go on as they are."""
        self.options, self.rules = options, rules
        self._in_background(self._take_over(options, rules))

    async def _take_over(self, options: AlertingOptions, rules: RuleSet) -> None:
        await self._opened.wait()
        await self.on_desk(lambda desk: desk.reload(options.policy(self._instance), self.now()))
        await self._call(lambda: self.engine.load(rules.groups, self.now()))
        self._forward_to(self.desk)
        self._wake.set()

    def _forward_to(self, desk: Desk | None) -> None:
        """Hand everything to the receivers that route by themselves; None: to none any more."""
        for forwarder, running in self._forwarders.values():
            running.cancel()
            forwarder.close()
        self._forwarders = {}
        policy = desk.policy if desk is not None else Policy()
        for name in policy.forwards:
            notifier = cast("TakesAll", policy.notifiers[name])
            forwarder = Forwarder(name, notifier, self._told, self.options.rules.interval, self._clock)
            self._forwarders[name] = forwarder, asyncio.create_task(forwarder.run(), name=f"forward {name}")

    def _told(self) -> list[Alert]:
        """What fires, and what was lately resolved."""
        found = [(state.rule, one) for state, one in self.engine.alerts() if one.phase != "pending"]
        return [told(rule, one, self._around) for rule, one in found if is_for_people(one.labels)]

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside everything else; a file or a thread that fails is said."""

        async def guarded() -> None:
            try:
                await work
            except (sqlite3.Error, TimeoutError) as error:
                self._fault("alerts.cannot_tell", error)

        task = asyncio.create_task(guarded())
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    # What others ask.

    def troubles(self) -> list[str]:
        """What of judging and telling does not work now, in sentences; for the heartbeat and /health."""
        found = [self._trouble] if self._trouble else []
        patience = 3 * self.options.rules.interval + _EVALUATION_TIMEOUT_S
        if self._evaluated_at is not None and self._clock.monotonic() - self._evaluated_at > patience:
            found.append("rules have not been evaluated lately")
        for name, each in self.desk.deliveries.items() if self.desk is not None else ():
            if each.failing_since is not None and name in self.options.receivers:
                found.append(f"receiver {name}: {each.error}")
        forwarders = self._forwarders.items()
        return found + [f"receiver {name}: {one.error}" for name, (one, _) in forwarders if one.error]

    def summary(self) -> dict[str, Any]:
        """For /health; costs nothing."""
        if self.desk is None:
            return {"state": "failing" if self._trouble else "starting", "error": self._trouble}
        troubles = self.troubles() + ([self.desk.trouble] if self.desk.trouble else [])
        states = [state for group in list(self.engine.groups.values()) for state in group.rules]
        phases = [one.phase for _, one in self.engine.alerts()]
        return {
            "state": "failing" if troubles else "ok",
            "error": "; ".join(troubles),
            "rules": len(states),
            "rule_errors": {state.rule.name: state.health.error for state in states if state.health.state == "err"},
            "left_out": len(self.rules.errors),
            "firing": phases.count("firing"),
            "pending": phases.count("pending"),
            "groups": self.desk.groups,
            "queued": self._queued,
            "receivers": {
                name: {"sent": each.sent, "refused": each.refused, "failures": each.failed, "error": each.error}
                for name, each in self.desk.deliveries.items()
            },
        }  # fmt: skip

    def readings(self) -> Iterator[Reading]:
        """The same as readings."""
        if self.desk is None:
            return
        groups = list(self.engine.groups.values())
        health = [state.health.state for group in groups for state in group.rules]
        phases = [one.phase for _, one in self.engine.alerts()]
        yield ALERTING.row((), (
            len(health), health.count("err"), phases.count("firing"), phases.count("pending"),
            sum(group.duration for group in groups), self.engine.failures, sum(group.missed for group in groups),
            self._queued, bool(self.desk.trouble),
        ))  # fmt: skip
        for name, each in list(self.desk.deliveries.items()):
            yield RECEIVER.row((name,), (each.sent, each.refused, each.failed, each.failing_since is not None))
