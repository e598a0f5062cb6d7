from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from agent.core.clock import FakeClock
from agent.core.model import Failed, Group, Reading, gauge
from agent.rule_inputs import RuleInputs
from agent.scheduler import Scheduler
from agent.timetable import Task

MEM = Group("mem", (
    gauge("total", "bytes", "x", influx="total", prom="node_memory_MemTotal_bytes"),
    gauge("*", "bytes", "x", prom="node_memory_*_bytes"),
    gauge("used", "bytes", "x", influx="used"),
    gauge("text", "info", "x", influx="text", type=str),
))  # fmt: skip


@dataclass
class Memory:
    name: ClassVar[str] = "memory"
    groups: ClassVar[tuple[Group, ...]] = (MEM,)
    interval: float = 1.0
    items: list[Reading | Failed] = field(default_factory=list)

    def collect(self) -> Iterable[Reading | Failed]:
        return self.items


@pytest.fixture
def task() -> Task:
    return Task(Memory())


@pytest.fixture
def inputs(task: Task) -> tuple[RuleInputs, FakeClock]:
    clock = FakeClock()
    scheduler = Scheduler(clock, lambda *_: None)
    scheduler.tasks[task.name] = task
    return RuleInputs(scheduler, clock), clock


@pytest.mark.parametrize(
    ("metric", "feeders"),
    [
        ("node_memory_MemTotal_bytes", ["memory"]),
        ("node_memory_Whatever_bytes", ["memory"]),
        ("mem_used", ["memory"]),
        ("mem_text", []),
        ("node_load1", []),
    ],
)
def test_a_metric_comes_from_the_collector_that_declares_it(
    inputs: tuple[RuleInputs, FakeClock], metric: str, feeders: list[str]
) -> None:
    assert list(inputs[0].feeders(metric)) == feeders


def test_a_reload_may_take_a_collector_away(task: Task) -> None:
    clock = FakeClock()
    scheduler = Scheduler(clock, lambda *_: None)
    found = RuleInputs(scheduler, clock)
    for tasks, feeders in ([], []), ([task], ["memory"]), ([], []):
        scheduler.set_tasks(tasks)
        assert list(found.feeders("mem_used")) == feeders


def test_a_collector_that_fails_is_known_with_its_reason_and_since_when(
    inputs: tuple[RuleInputs, FakeClock], task: Task
) -> None:
    found, clock = inputs
    task.stats.runs = 5
    assert found.failing() == []
    task.stats.error = "cannot read /proc/meminfo"
    (first,) = found.failing()
    clock.step_wall(30)
    (again,) = found.failing()
    assert (again.collector, again.reason, again.target) == ("memory", "cannot read /proc/meminfo", "")
    assert again.since == first.since


def test_a_target_that_fails_is_told_beside_those_that_work(inputs: tuple[RuleInputs, FakeClock], task: Task) -> None:
    task.stats.runs = 5
    task.stats.failed = (Failed("/mnt", "hangs"),)
    assert [(one.collector, one.target, one.reason) for one in inputs[0].failing()] == [("memory", "/mnt", "hangs")]


def test_what_the_host_lacks_is_no_failure(inputs: tuple[RuleInputs, FakeClock], task: Task) -> None:
    task.stats.error, task.stats.is_missing = "no such file", True
    assert inputs[0].failing() == []


def test_after_a_start_a_collector_has_a_while_to_deliver_twice(
    inputs: tuple[RuleInputs, FakeClock], task: Task
) -> None:
    found, clock = inputs
    task.stats.runs = 1
    assert [(one.reason, one.is_starting) for one in found.failing()] == [("it has not delivered twice yet", True)]
    task.stats.runs = 2
    assert found.failing() == []
    task.stats.runs = 1
    clock.step_wall(50)
    assert found.failing() == []
