"""Keeps alerting: judges rules on one thread and has what comes of it told, and has no timer but what is due."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final, Protocol, TypeVar

import structlog

from agent.alert_forwarder import Forwarders
from agent.alert_metrics import ALERTING, RECEIVER
from agent.alert_teller import Teller
from agent.core.clock import NS, Clock
from agent.core.isolation import Worker, call_soon
from agent.core.labels import Labels, labels_of
from agent.core.model import Reading
from agent.core.problems import ConfigError, Place, Problem
from agent.core.query import Querier
from agent.heartbeat import Heartbeat
from agent.rule_sets import load_rules
from agent.troubles import Troubles
from alerting.book import Book
from alerting.deliveries import Deliveries
from alerting.dependencies import Dependencies
from alerting.desk import Desk
from alerting.engine import Engine, Evaluation, Recorder
from alerting.inhibition import is_for_people
from alerting.judge import Surroundings, told
from alerting.notify.message import Alert
from alerting.options import AlertingOptions
from alerting.policy import Policy
from alerting.rule_files import RuleSet
from alerting.rule_scheduler import RuleScheduler

T = TypeVar("T")
log = structlog.get_logger("alerting")

FILE_NAME: Final = "alerts.sqlite"
_EVALUATION_TIMEOUT_S: Final = 120.0
_CANNOT_EVALUATE: Final = "rules.cannot_evaluate"
# What a reload cannot change.
_FIXED: Final = ("external_url", "external_labels")
_FIXED_PARTS: Final = (("rules", "interval"), ("heartbeat", "url"))


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
        self._clock = clock
        self._path = os.path.join(state_dir, FILE_NAME)
        self.querier = history.querier()
        self._rules_worker = Worker("rules")
        self._evaluated: set[str] = set()
        self._judged: deque[Evaluation] = deque()  # from the thread of the rules to the event loop
        self._evaluated_at: float | None = None
        self._instance = instance
        own_labels = labels_of({"instance": instance})
        recorder: Recorder = history
        self._around = around = Surroundings(labels_of(options.external_labels), options.external_url.rstrip("/"))
        self.engine = Engine(
            self.querier, recorder, dependencies, around, own_labels=own_labels, interval=options.rules.interval,
            monotonic=clock.monotonic,
        )  # fmt: skip
        self.rules = load_rules(options.rules, rules_dir)
        self._troubles = Troubles(clock, "alerting")
        self._forwarders = Forwarders(self._told, clock, self._troubles)
        self.teller = Teller(clock, self._troubles, self._has_settled, own_labels)
        self.heartbeat: Heartbeat | None = None
        self._has_reloaded = asyncio.Event()  # and what was read is not in force yet
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def desk(self) -> Desk | None:
        """None until it is open."""
        return self.teller.desk

    @property
    def is_open(self) -> bool:
        """Rules are loaded and alerts of before known, or it is known that they cannot be."""
        return self.desk is not None or bool(self._troubles)

    # Life.

    async def run(self, troubles: Callable[[], Sequence[str]] = tuple) -> None:
        """Until cancelled. `troubles`: what of the agent does not work, besides alerting, in sentences."""
        self._loop = asyncio.get_running_loop()
        for problem in self.rules.errors:
            log.error("rules.left_out", problem=str(problem))
        for problem in self.rules.warnings:
            log.warning("rules.doubtful", problem=str(problem))
        desk = await self.teller.open(self._open)
        self._forwarders.take_over(desk.policy, self.options.rules.interval)
        scheduler = RuleScheduler(
            self.engine, self._clock, self._call, self._deliver, self._failed, self.options.rules.interval
        )
        turns: dict[str, Callable[[], Awaitable[None]]] = {
            "rules.stopped": scheduler.turn,
            "alerts.cannot_tell": self.teller.turn,
            "alerts.cannot_reload": self._take_over_next,
        }
        if self.options.heartbeat.url:
            self.heartbeat = Heartbeat(self.options.heartbeat, lambda: [*troubles(), *self.troubles()], self._clock)
            turns["heartbeat.stopped"] = self.heartbeat.turn
        tasks = [
            asyncio.create_task(self._troubles.keep_doing(event, turn), name=event) for event, turn in turns.items()
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            self._forwarders.take_over(Policy(), self.options.rules.interval)

    def _open(self) -> Desk:
        """On the thread of the desk. Raise sqlite3.Error or OSError."""
        now = self.now()
        desk = Desk(Book(self._path), self._policy(), now)
        if desk.set_aside:
            log.error("alerts.set_aside", file=desk.set_aside, consequence="alerts, silences and messages begin anew")
        if desk.trouble:
            log.error("alerts.memory_only", reason=desk.trouble, consequence="a restart forgets what is told")
        saved = desk.saved_rules()
        for remark in desk.remarks:
            log.error("alerts.forgotten", what=remark)
        self.engine.restore(saved.alerts, saved.seen_at, now)
        self.engine.load(self.rules.groups, now)
        self.engine.drop_orphans(now)
        return desk

    async def close(self) -> None:
        """Let what is being sent come back, for a moment; what is not back is sent again after the next start."""
        await self.teller.close()
        self._rules_worker.close()
        if self.heartbeat is not None:
            self.heartbeat.close()

    def now(self) -> float:
        """Unix seconds."""
        return self._clock.wall_ns() / NS

    # Judging, on the thread of the rules.

    async def _call(self, blocking: Callable[[], T]) -> T:
        try:
            return await self._rules_worker.call(blocking, _EVALUATION_TIMEOUT_S)
        finally:
            self._take_note()

    def _deliver(self, done: Evaluation) -> None:
        assert self.desk is not None and self._loop is not None  # noqa: PT018 - run has made them
        self.desk.take(done.alerts, self.engine.snapshot(), done.at)
        for error in done.errors:
            log.warning("rule.failed", reason=error)
        self._judged.append(done)
        if done.alerts:  # the event loop is not woken for each group that has nothing to tell
            call_soon(self._loop, self._take_note)

    def _take_note(self) -> None:
        """On the event loop, of what was judged since the last time."""
        while self._judged:
            done = self._judged.popleft()
            self._evaluated.add(done.group)
            self._evaluated_at = self._clock.monotonic()
            self._troubles.clear(_CANNOT_EVALUATE, done.group)
            if done.alerts:
                self._forwarders.poke()
            if done.alerts or (self.desk is not None and not self.desk.is_settled and self._has_settled()):
                self.teller.look()

    def _has_settled(self) -> bool:
        return self._evaluated >= self.engine.groups.keys()

    def _failed(self, group: str, error: Exception) -> None:
        self._troubles.fault(_CANNOT_EVALUATE, error, group)

    # Configuration.

    def read(self, options: AlertingOptions, rules_dir: str) -> RuleSet:
        """What a reload would take over. Raise ConfigError when it cannot be; nothing has changed then."""
        fixed = [(name, getattr(options, name), getattr(self.options, name)) for name in _FIXED]
        for part, name in _FIXED_PARTS:
            new, old = getattr(options, part), getattr(self.options, part)
            fixed.append((f"{part}.{name}", getattr(new, name), getattr(old, name)))
        for path, new, old in fixed:
            if new != old:
                text = "cannot change while the agent runs; restart it"
                raise ConfigError([Problem(Place("alerting"), f"alerting.{path}", text)])
        rules = load_rules(options.rules, rules_dir)
        if rules.errors:
            raise ConfigError(rules.errors)
        return rules

    def take_over(self, options: AlertingOptions, rules: RuleSet) -> None:
        """Go on with these, in a moment; alerts of rules that stay go on as they are."""
        self.options, self.rules = options, rules
        if self.heartbeat is not None:
            self.heartbeat.take_over(options.heartbeat)
        self._has_reloaded.set()

    async def _take_over_next(self) -> None:
        """Wait for a reload and carry it out, one that came meanwhile instead of it. May be repeated."""
        await self._has_reloaded.wait()
        options, rules = self.options, self.rules
        policy = self._policy()
        await self.teller.on_desk(lambda desk: desk.reload(policy, self.now()))
        await self._call(lambda: self.engine.load(rules.groups, self.now()))
        self._troubles.keep_only(_CANNOT_EVALUATE, self.engine.groups)
        self._forwarders.take_over(policy, options.rules.interval)
        self.teller.look()
        if self.options is options and self.rules is rules:
            self._has_reloaded.clear()

    def _policy(self) -> Policy:
        return self.options.policy(self._instance)

    def _told(self) -> list[Alert]:
        """What fires, and what was lately resolved."""
        found = [(state.rule, one) for state, one in self.engine.alerts() if one.phase != "pending"]
        return [told(rule, one, self._around) for rule, one in found if is_for_people(one.labels)]

    # What others ask.

    async def try_out(self, receiver: str) -> dict[str, Any]:
        """Send a test to a receiver: what was rendered, and what came of it. Raise KeyError."""
        return await self.teller.try_out(receiver, self._policy() if self.desk is None else self.desk.policy)

    def troubles(self) -> list[str]:
        """What of judging and telling does not work now, in sentences; for the heartbeat and /health."""
        found = list(self._troubles)
        patience = 3 * self.options.rules.interval + _EVALUATION_TIMEOUT_S
        if self._evaluated_at is not None and self._clock.monotonic() - self._evaluated_at > patience:
            found.append("rules have not been evaluated lately")
        if late := self.teller.late():
            found.append(late)
        for name, each in self._deliveries().items():
            if each.failing_since is not None:
                found.append(f"receiver {name}: {each.error}")
        return found + self._forwarders.errors()

    def _deliveries(self) -> dict[str, Deliveries]:
        """By receiver; before the desk is open nothing was delivered, which is a number too."""
        if self.desk is not None:
            return self.desk.deliveries
        return {name: Deliveries() for name in self.options.receivers}

    def summary(self) -> dict[str, Any]:
        """For /health; costs nothing."""
        troubles = self.troubles()
        if self.desk is None:
            return {"state": "failing" if troubles else "starting", "error": "; ".join(troubles)}
        if self.desk.trouble:
            troubles.append(self.desk.trouble)
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
            "queued": self.teller.queued,
            "receivers": {
                name: {"sent": each.sent, "refused": each.refused, "failures": each.failed, "error": each.error}
                for name, each in self.desk.deliveries.items()
            },
        }  # fmt: skip

    def readings(self) -> Iterator[Reading]:
        """The same as readings."""
        for name, each in self._deliveries().items():
            yield RECEIVER.row((name,), (each.sent, each.refused, each.failed, each.failing_since is not None))
        if self.desk is None:
            return
        groups = list(self.engine.groups.values())
        health = [state.health.state for group in groups for state in group.rules]
        phases = [one.phase for _, one in self.engine.alerts()]
        yield ALERTING.row((), (
            len(health), health.count("err"), phases.count("firing"), phases.count("pending"),
            sum(group.duration for group in groups), self.engine.failures, sum(group.missed for group in groups),
            self.teller.queued, bool(self.desk.trouble),
        ))  # fmt: skip
