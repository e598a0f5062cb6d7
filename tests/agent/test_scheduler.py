from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from agent.core.clock import NS, FakeClock
from agent.core.errors import SourceError, SourceMissing
from agent.core.model import Failed, Group, Reading, Tick, gauge
from agent.scheduler import Scheduler
from agent.timetable import Task
from tests.core.test_isolation import no_thread

VALUE = Group("value", (gauge("n", "count", "Runs so far.", influx="n"),), ("of",))
START = 1_700_000_000  # a multiple of 5, not of 30


@dataclass
class Source:
    """A collector that does what a test tells it."""

    name: str
    interval: float = 1.0
    behave: Callable[[int], Iterable[Reading | Failed]] | None = None
    groups: ClassVar[tuple[Group, ...]] = (VALUE,)
    timeout: float = 5.0
    runs: int = 0
    closed: bool = False

    def collect(self) -> Iterable[Reading | Failed]:
        self.runs += 1
        return self.behave(self.runs) if self.behave else [VALUE.row((self.name,), (self.runs,))]

    def close(self) -> None:
        self.closed = True


@dataclass
class Run:
    """A scheduler on a fake clock and what it published."""

    clock: FakeClock
    scheduler: Scheduler
    ticks: list[Tick] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)

    async def advance(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass in steps, waiting after each for the lanes to finish what was started."""
        left = seconds
        while left > 1e-9:
            await self.clock.advance(min(step, left))
            await self.settle()
            left -= step

    async def settle(self) -> None:
        assert await eventually(self.scheduler.is_at_rest)

    def slots(self, name: str) -> list[float]:
        return [tick.time_ns / NS - START for tick in self.ticks if tick.collector == name]


@asynccontextmanager
async def running(*sources: Source, at: float = START, tasks: list[Task] | None = None) -> AsyncIterator[Run]:
    clock = FakeClock(at)
    ticks: list[Tick] = []
    forgotten: list[str] = []
    scheduler = Scheduler(clock, lambda tick, _: ticks.append(tick), forgotten.append)
    run = Run(clock, scheduler, ticks, forgotten)
    scheduler.set_tasks([Task(source) for source in sources] if tasks is None else tasks)
    loop_task = asyncio.create_task(scheduler.run())
    await clock.advance(0)
    await run.settle()
    yield run
    loop_task.cancel()


async def eventually(condition: Callable[[], bool], deadline_s: float = 5.0) -> bool:
    loop = asyncio.get_running_loop()
    until = loop.time() + deadline_s
    while not condition():
        if loop.time() > until:
            return False
        await asyncio.sleep(0.0005)
    return True


async def test_the_first_reading_comes_at_once_and_the_others_on_full_intervals() -> None:
    async with running(Source("a", 5.0), at=START + 2.25) as run:
        await run.advance(13)
        assert run.slots("a") == [2, 5, 10, 15]


async def test_an_offset_moves_the_slots() -> None:
    async with running(tasks=[Task(Source("a", 5.0), offset_ns=2 * NS)]) as run:
        await run.advance(13)
        assert run.slots("a") == [0, 2, 7, 12]


async def test_jitter_delays_the_run_and_not_the_stamp() -> None:
    task = Task(Source("a", 5.0), jitter_ns=NS)
    async with running(tasks=[task]) as run:
        await run.advance(11.5, step=0.1)
        assert run.slots("a") == [0, 5, 10]
        assert 0 <= task.delay_ns < NS


@dataclass
class Far(Source):
    own_lane: ClassVar[bool] = True


async def test_one_with_a_lane_of_its_own_begins_when_the_shared_ones_are_done() -> None:
    task = Task(Far("far", 5.0))
    async with running(tasks=[task, Task(Source("a", 5.0))]) as run:
        await run.advance(5)
        assert (run.slots("a"), run.slots("far")) == ([0, 5], [0])
        await run.advance(0.02, step=0.01)
        assert run.slots("far") == [0, 5]
        assert task.stats.lateness_s == 0


async def test_the_lane_wakes_by_itself_and_the_loop_sleeps_through_the_slot() -> None:
    sources = [Source(f"c{at}", 1.0) for at in range(20)]
    async with running(*sources) as run:
        await run.advance(2)
        wakes = run.clock.wakes
        await run.advance(40)
        assert run.clock.wakes == wakes
        assert all(run.slots(source.name) == list(range(43)) for source in sources)


async def test_a_collector_that_raises_leaves_the_others_running_and_comes_back_by_itself() -> None:
    def twice_broken(run: int) -> list[Reading]:
        if run in (2, 3):
            raise ZeroDivisionError("a bug")
        return [VALUE.row(("x",), (run,))]

    async with running(Source("bad", behave=twice_broken), Source("good")) as run:
        await run.advance(4)
        assert run.slots("good") == [0, 1, 2, 3, 4]
        assert run.slots("bad") == [0, 3, 4]
        stats = run.scheduler.tasks["bad"].stats
        assert (stats.failures, stats.error) == (2, "")


async def test_a_missing_source_rests_for_a_minute() -> None:
    def missing(run: int) -> list[Reading]:
        raise SourceMissing("/sys/class/hwmon: no such file or directory")

    source = Source("hwmon", behave=missing)
    async with running(source) as run:
        await run.advance(59)
        assert source.runs == 1
        await run.advance(2)
        assert source.runs == 2
        stats = run.scheduler.tasks["hwmon"].stats
        assert stats.is_missing
        assert stats.failures == 0


async def test_failed_targets_travel_beside_the_readings() -> None:
    def partly(run: int) -> list[Reading | Failed]:
        return [VALUE.row(("/",), (1,)), Failed("/mnt", "no answer")]

    async with running(Source("disk", behave=partly)) as run:
        assert run.ticks[0].failed == (Failed("/mnt", "no answer"),)
        assert [reading.tags for reading in run.ticks[0].readings] == [("/",)]


async def test_a_source_error_is_counted_and_its_text_kept() -> None:
    def broken(run: int) -> list[Reading]:
        raise SourceError("/proc/meminfo: permission denied")

    async with running(Source("memory", behave=broken)) as run:
        await run.advance(2)
        stats = run.scheduler.tasks["memory"].stats
        assert (stats.failures, stats.error) == (3, "/proc/meminfo: permission denied")


async def test_a_stuck_collector_is_left_behind_and_never_started_twice() -> None:
    gate, hung = threading.Event(), threading.Event()

    def hang(run: int) -> list[Reading]:
        if run == 2:
            hung.set()
            gate.wait()
        return [VALUE.row(("x",), (run,))]

    stuck = Source("stuck", behave=hang, timeout=0.5)
    async with running(stuck, Source("after", 1.0)) as run:
        await run.clock.advance(1)
        assert await eventually(hung.is_set)
        assert await eventually(lambda: run.scheduler.abandoned_lanes == 1)
        await run.settle()
        await run.advance(5)
        assert run.slots("after") == [0, 1, 2, 3, 4, 5, 6], "what waited behind it ran on a fresh lane, none was lost"
        assert stuck.runs == 2
        stats = run.scheduler.tasks["stuck"].stats
        assert (stats.timeouts, stats.skipped) == (1, 5)
        gate.set()
        assert await eventually(lambda: not run.scheduler.tasks["stuck"].is_running)
        await run.advance(1)
        assert run.slots("stuck") == [0, 7], "it is back, and what it said too late is not used"


async def test_where_no_thread_can_be_had_collectors_fail_and_are_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as crowded:
        crowded.setattr(threading.Thread, "start", no_thread)
        async with running(Source("a"), Source("b")) as run:
            await run.advance(2)
            stats = run.scheduler.tasks["a"].stats
            assert (stats.failures, stats.error) == (3, "no thread to run on: can't start new thread")
            crowded.undo()
            await run.advance(2)
            assert run.slots("a") == run.slots("b") == [3, 4]


@pytest.mark.parametrize(
    ("reading", "said"),
    [
        (Reading(VALUE, ("x",), (1, 2)), "TypeError: value: 2 values; give a tuple of 1 for n"),
        (Reading(VALUE, (), (1,)), "TypeError: value: tags are (); give a tuple of texts for of"),
        (Reading(VALUE, ["x"], (1,)), "TypeError: value: tags are ['x']; give a tuple of texts for of"),  # type: ignore[arg-type]
        (
            Reading(VALUE, ("x",), ("1",)),
            "TypeError: value: n is '1', a str; give an int, float or bool, or None where it is absent",
        ),
    ],
)
async def test_a_reading_that_is_not_as_declared_is_that_collectors_failure(reading: Reading, said: str) -> None:
    async with running(Source("before"), Source("bad", behave=lambda run: [reading]), Source("after")) as run:
        await run.advance(2)
        assert run.slots("before") == run.slots("after") == [0, 1, 2]
        assert run.slots("bad") == []
        assert run.scheduler.tasks["bad"].stats.error == said


async def test_readings_that_nobody_can_take_are_that_collectors_failure() -> None:
    async with running(Source("before"), Source("bad"), Source("after")) as run:
        take = run.scheduler._publish

        def choosy(tick: Tick, fresh_until: float) -> None:
            if tick.collector == "bad":
                raise OverflowError("too large")
            take(tick, fresh_until)

        run.scheduler._publish = choosy
        await run.advance(2)
        assert run.slots("before") == run.slots("after") == [0, 1, 2]
        assert run.scheduler.tasks["bad"].stats.error == "OverflowError: too large"


async def test_a_collector_that_waits_for_others_is_late() -> None:
    def slow(run: int) -> list[Reading]:
        threading.Event().wait(0.05)
        return []

    async with running(Source("a", 1.0, slow), Source("behind", 5.0)) as run:
        await run.advance(5)
        assert run.scheduler.tasks["behind"].stats.lateness_s >= 0.05
        assert run.scheduler.tasks["a"].stats.lateness_s < run.scheduler.tasks["behind"].stats.lateness_s


async def test_all_are_tried_once_each_has_run_failed_or_missed_its_deadline() -> None:
    def broken(run: int) -> list[Reading]:
        raise SourceError("/proc/meminfo: permission denied")

    async with running(Source("quick"), Source("broken", behave=broken)) as run:
        assert run.scheduler.has_tried_all
        run.scheduler.set_tasks([*run.scheduler.tasks.values(), Task(Source("new"))])
        assert not run.scheduler.has_tried_all
    gate = threading.Event()

    def hang(run: int) -> list[Reading]:
        gate.wait()
        return []

    async with running(Source("stuck", behave=hang, timeout=0.5)) as run:
        assert run.scheduler.has_tried_all
        assert run.scheduler.tasks["stuck"].stats.runs == 0
        gate.set()


async def test_a_late_wake_up_skips_slots_and_replays_none() -> None:
    async with running(Source("a", 1.0)) as run:
        run.clock.step_wall(4)
        await run.advance(2)
        assert run.slots("a") == [0, 5, 6]
        assert run.scheduler.tasks["a"].stats.skipped == 4


@pytest.mark.parametrize("jump_s", [86_400, -86_400, 3600, -3600])
async def test_a_jump_of_the_wall_clock_realigns(jump_s: int) -> None:
    async with running(Source("a", 1.0), Source("b", 5.0)) as run:
        await run.advance(2)
        run.clock.step_wall(jump_s)
        await run.advance(12)
        after = [slot - jump_s for slot in run.slots("a") if abs(slot - jump_s) < 100]
        assert after == sorted(after)
        assert len(after) in (11, 12), "at most one slot is lost"
        assert [slot - jump_s for slot in run.slots("b")][-2:] == [5, 10]
        assert run.scheduler.tasks["a"].stats.skipped == 0, "a jump is no delay"
        assert run.scheduler.clock_jumps == 2


async def test_tasks_may_change_twice_before_the_scheduler_looks() -> None:
    task = Task(Source("a", 1.0))
    async with running(tasks=[task]) as run:
        run.scheduler.set_tasks([task])
        run.scheduler.set_tasks([task])
        await run.settle()
        await run.advance(70)  # beyond the minute after which it would look by itself
        assert run.slots("a") == list(range(71))


async def test_once_it_was_cancelled_nothing_more_is_collected_or_published() -> None:
    source = Source("a", 1.0)
    async with running(source) as run:
        await run.advance(2)
    await run.clock.advance(0)  # the task takes note that it was cancelled
    runs = source.runs
    await run.clock.advance(5)
    assert await eventually(lambda: not run.scheduler.tasks["a"].is_running)
    assert (source.runs, run.slots("a")) == (runs, [0, 1, 2])


async def test_a_kept_task_keeps_its_timetable_when_others_come_and_go() -> None:
    old, gone = Task(Source("old", 1.0)), Task(Source("gone", 1.0))
    async with running(tasks=[old, gone]) as run:
        await run.advance(2)
        run.scheduler.set_tasks([old, Task(Source("new", 1.0))])
        await run.settle()
        await run.advance(2)
        assert run.slots("old") == [0, 1, 2, 3, 4]
        assert run.slots("gone") == [0, 1, 2]
        assert run.slots("new") == [2, 3, 4]
        assert run.forgotten == ["gone"]
        assert gone.collector.closed  # type: ignore[attr-defined]


async def test_readings_beyond_the_cap_are_dropped_and_counted() -> None:
    many = Source("many", behave=lambda run: [VALUE.row((str(at),), (at,)) for at in range(10)])
    async with running(tasks=[Task(many, max_readings=3)]) as run:
        await run.advance(1)
        assert [len(tick.readings) for tick in run.ticks] == [3, 3]
        assert run.scheduler.tasks["many"].stats.dropped == 14
