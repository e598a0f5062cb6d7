"""When groups are evaluated. Times are seconds since T0, a multiple of every interval used here.

The clock begins when the readings of T0 are there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import pytest

from agent.core.clock import FakeClock
from agent.promql_language import PromQL
from agent.rules_lab import RulesLab
from agent.troubles import Troubles
from alerting.dependencies import NothingKnown
from alerting.engine import COLLECTORS_KEY, Engine, Evaluation
from alerting.rule_files import parse_rules
from alerting.rule_scheduler import RuleScheduler, Slots

T = TypeVar("T")
T0 = 1_700_000_040.0

RULES = """
groups:
- {name: quick, interval: 1s, rules: [{record: quick, expr: '1'}]}
- {name: slow, interval: 30s, rules: [{record: slow, expr: '1'}]}
"""
SLOW = Slots.of(30)


@dataclass
class Run:
    """A scheduler over a lab; `block` makes the next evaluations wait."""

    clock: FakeClock = field(default_factory=lambda: FakeClock(T0))
    done: list[tuple[str, float]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    block: asyncio.Event | None = None
    refuse: bool = False
    refused: str = ""  # a group whose outcome is not taken
    calls: int = 0

    def __post_init__(self) -> None:
        self.clock.step_wall(0.25)  # exactly, which T0 + 0.25 as a float is not
        lab = RulesLab()
        self.engine = Engine(lab, lab, NothingKnown())
        self.engine.load(parse_rules(RULES, "f", PromQL()).groups, T0)
        self.scheduler = RuleScheduler(self.engine, self.clock, self.call, self.deliver, self.fail, 15)

    async def call(self, blocking: Callable[[], T]) -> T:
        if self.block is not None:
            await self.block.wait()
        self.calls += 1
        return blocking()

    def deliver(self, done: Evaluation) -> None:
        if self.refuse or done.group == self.refused:
            raise OSError("disk full")
        self.done.append((done.group, done.at - T0))

    def fail(self, group: str, error: Exception) -> None:
        self.failed.append(f"{group}: {error}")

    def of(self, group: str) -> list[float]:
        return [at for key, at in self.done if key == group]


@pytest.fixture
async def run() -> Run:
    return Run()


def running(run: Run) -> asyncio.Task[None]:
    return asyncio.create_task(Troubles(run.clock, "alerting").keep_doing("rules", run.scheduler.turn))


async def passing(run: Run, *seconds: float) -> None:
    task = running(run)
    for one in seconds:
        await run.clock.advance(one)
    task.cancel()


def test_slots_do_not_depend_on_the_start() -> None:
    for now_ms in (1, 29_999, 30_000, 1_700_000_012_345):
        slot = SLOW.newest(now_ms)
        assert slot % 30_000 == SLOW.offset_ms
        assert 0 <= now_ms - slot < 30_000
    assert SLOW.offset_ms % 1000 == 0
    assert Slots.of(1).offset_ms == Slots.of(0.5).offset_ms == 0


async def test_each_group_at_the_slots_of_its_interval(run: Run) -> None:
    await passing(run, 60)
    assert run.of("f;quick") == [float(second) for second in range(61)]
    offset = SLOW.offset_ms / 1000
    assert run.of("f;slow") == [at for at in (offset - 30, offset, offset + 30, offset + 60) if 0 <= at <= 60]
    assert len(run.of(COLLECTORS_KEY)) == 4
    assert run.failed == []


async def test_missed_slots_are_counted_and_not_made_up_for(run: Run) -> None:
    run.block = asyncio.Event()
    task = running(run)
    await run.clock.advance(7.5)
    run.block.set()
    await run.clock.advance(2)
    task.cancel()
    assert run.of("f;quick") == [0, 7, 8, 9]
    assert run.engine.groups["f;quick"].missed == 6


async def test_a_wall_clock_set_back_begins_anew(run: Run) -> None:
    task = running(run)
    await run.clock.advance(3)
    run.clock.step_wall(-3600)
    await run.clock.advance(3)
    task.cancel()
    assert run.of("f;quick") == [0, 1, 2, 3, -3596, -3595, -3594]


async def test_a_step_back_of_seconds_evaluates_nothing_twice(run: Run) -> None:
    task = running(run)
    await run.clock.advance(5)
    run.clock.step_wall(-3)
    await run.clock.advance(5)
    task.cancel()
    assert run.of("f;quick") == [0, 1, 2, 3, 4, 5, 6, 7]


async def test_what_could_not_be_delivered_is_told_anew_and_stops_nothing(run: Run) -> None:
    run.refuse = True
    await passing(run, 2)
    assert run.failed[:2] == [f"{key}: disk full" for key in ("f;quick", "f;quick")]
    assert run.engine.groups["f;quick"].rules[0].told_at is None
    run.refuse = False
    await passing(run, 2)
    assert run.of("f;quick") == [3, 4]


async def test_groups_that_are_due_together_are_one_call(run: Run) -> None:
    await passing(run, 60)
    assert run.calls == 61 + len([at for at in run.of("f;slow") if at not in run.of("f;quick")])
    assert len(run.done) > run.calls


async def test_one_group_that_fails_leaves_the_others_be(run: Run) -> None:
    run.refused = "f;quick"
    await passing(run, 60)
    assert run.of("f;quick") == []
    assert len(run.of("f;slow")) == 2
    assert set(run.failed) == {"f;quick: disk full"}


async def test_groups_come_and_go(run: Run) -> None:
    task = running(run)
    await run.clock.advance(2)
    run.engine.load(parse_rules(RULES.replace("quick", "other"), "f", PromQL()).groups, T0 + 2)
    await run.clock.advance(3)
    task.cancel()
    assert run.of("f;quick") == [0, 1, 2]
    assert run.of("f;other") in ([3, 4, 5], [4, 5])
