"""When collectors run: slots aligned to the wall clock, timed by the monotonic clock, coalesced into few wake-ups.

A slot is the moment a collector is due (a 5 s collector: :00, :05, ...); its readings carry the slot's time. All
collectors due together go to the shared lane in one hop. A collector that is late skips slots, never overlaps itself
and never replays. When the wall clock jumps, slots are aligned anew.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic, perf_counter, thread_time

import structlog

from agent.core.clock import NS, Clock
from agent.core.collector import Collector
from agent.core.errors import SourceError, SourceMissing
from agent.core.isolation import Batch, Job, Lane, call_soon
from agent.core.model import Failed, Reading, Tick

log = structlog.get_logger("scheduler")

MISSING_RECHECK_S = 60.0  # how soon a source that the host lacks is looked for again
DEFAULT_TIMEOUT_S = 5.0  # one collect on the shared lane; local files answer within milliseconds
_JUMP_NS = 60 * NS  # later than this (and than ten intervals) is a clock jump or a suspend, not a delay
_FRESH_INTERVALS, _FRESH_MARGIN_S = 3, 5.0


@dataclass(slots=True)
class Stats:
    """What is known of one collector's runs."""

    runs: int = 0
    failures: int = 0
    skipped: int = 0
    timeouts: int = 0
    dropped: int = 0  # readings beyond the collector's cap
    duration_s: float = 0.0  # of the last run
    cpu_s: float = 0.0  # of all runs together, on the lane's thread
    lateness_s: float = 0.0  # how long after its slot the last run began
    last_success_ns: int = 0  # slot of the last run that gave readings; 0 = never
    readings: int = 0  # of the last successful run
    error: str = ""  # of the last run; empty when it succeeded
    is_missing: bool = False  # the host has no such source
    failed: tuple[Failed, ...] = ()  # targets of the last successful run that could not be read


@dataclass(slots=True, eq=False)
class Task:
    """A collector and its timetable, in nanoseconds."""

    collector: Collector
    offset_ns: int = 0
    jitter_ns: int = 0
    max_readings: int = 10_000  # beyond this the rest of a Tick is dropped and counted
    stats: Stats = field(default_factory=Stats)
    next_ns: int = 0  # the next slot
    delay_ns: int = 0  # this slot's share of the jitter
    is_running: bool = False
    pause_until: float = 0.0  # monotonic; a missing source rests
    outcome: list[Reading | Failed] | BaseException | None = None
    name: str = field(init=False)
    interval_ns: int = field(init=False)
    due_ns: int = 0  # the next slot and its share of the jitter
    asleep_from_ns: int = 0  # before this the wall clock must have gone back; until due_ns there is nothing to do

    def __post_init__(self) -> None:
        self.name = self.collector.name
        self.interval_ns = round(self.collector.interval * NS)

    @property
    def timeout_s(self) -> float:
        return float(getattr(self.collector, "timeout", DEFAULT_TIMEOUT_S))

    def slot_at(self, now_ns: int) -> int:
        """The last slot at or before `now_ns`."""
        return (now_ns - self.offset_ns) // self.interval_ns * self.interval_ns + self.offset_ns

    def aim(self, slot_ns: int) -> None:
        """Make `slot_ns` the next slot."""
        self.next_ns = slot_ns
        self.delay_ns = random.randrange(self.jitter_ns) if self.jitter_ns else 0
        self.due_ns = slot_ns + self.delay_ns
        self.asleep_from_ns = self.due_ns - self.interval_ns - self.jitter_ns - NS

    def collect(self) -> None:
        """Run on a lane: keep readings or the exception in `outcome`, and what it cost."""
        begun, cpu = perf_counter(), thread_time()
        try:
            self.outcome = list(self.collector.collect())
        except Exception as error:  # noqa: BLE001 - one broken collector leaves the others running
            self.outcome = error
        self.stats.duration_s = perf_counter() - begun
        self.stats.cpu_s += thread_time() - cpu


Publish = Callable[[Tick, float], None]


class Scheduler:
    """Runs tasks until `stop`. `publish(tick, fresh_until)` gets every Tick on the event loop's thread."""

    def __init__(self, clock: Clock, publish: Publish, forget: Callable[[str], None] = lambda _: None) -> None:
        self._clock = clock
        self._publish = publish
        self._forget = forget
        self.tasks: dict[str, Task] = {}
        self.clock_jumps = 0
        self.published = 0
        self.loop_lag_s = 0.0  # how late the loop woke for the last slot
        self.abandoned_lanes = 0
        self.last_slot_at = clock.monotonic()  # monotonic; the watchdog asks whether slots still come
        self._shared = Lane("collect")
        self._own: dict[str, Lane] = {}
        self._sleeping: asyncio.Task[None] | None = None
        self._has_changed = False
        self._newly_missing: list[str] = []

    @property
    def has_tried_all(self) -> bool:
        """Each task has run at least once or missed its deadline."""
        return all(task.stats.runs or task.stats.timeouts for task in self.tasks.values())

    def set_tasks(self, tasks: Iterable[Task]) -> None:
        """Take these tasks from now on; a Task object that was there before keeps its timetable and state."""
        wanted = {task.name: task for task in tasks}
        for name, old in self.tasks.items():
            if wanted.get(name) is not old:
                self._retire(old, is_replaced=name in wanted)
        now_ns = self._clock.wall_ns()
        for task in wanted.values():
            if task.next_ns == 0:
                task.aim(now_ns // NS * NS)  # the first reading comes at once, not an interval from now
                task.delay_ns = 0
                task.due_ns = task.next_ns
        self.tasks = wanted
        self._has_changed = True
        if self._sleeping is not None:
            self._sleeping.cancel()

    def _retire(self, task: Task, *, is_replaced: bool) -> None:
        if not is_replaced:
            self._forget(task.name)
        if lane := self._own.pop(task.name, None):
            lane.close()
        close = getattr(task.collector, "close", None)
        if close is not None and not task.is_running:
            close()

    async def run(self) -> None:
        """Fire slots until cancelled."""
        while True:
            await self._sleep_to_next()
            now_ns = self._clock.wall_ns()
            self.last_slot_at = self._clock.monotonic()
            due = [
                slot
                for task in self.tasks.values()
                if not task.asleep_from_ns <= now_ns < task.due_ns
                and (slot := self._take_slot(task, now_ns)) is not None
            ]
            if due:
                # Once this task sleeps again: the lane then finds the interpreter free instead of waiting for it.
                asyncio.get_running_loop().call_soon(self._fire, due)

    async def _sleep_to_next(self) -> None:
        """Until the nearest slot, a change of the tasks, or a minute (a stepped wall clock is seen by then)."""
        now_ns = self._clock.wall_ns()
        nearest = min((task.due_ns for task in self.tasks.values()), default=now_ns + 60 * NS)
        wait_s = min(60.0, max(0.0, (nearest - now_ns) / NS))
        self._has_changed = False
        until = self._clock.monotonic() + wait_s
        me = self._sleeping = asyncio.current_task()  # a task of its own for each sleep would cost 60 us a second
        try:
            await self._clock.sleep_until(until)
            self.loop_lag_s = self._clock.monotonic() - until
        except asyncio.CancelledError:
            if not self._has_changed or me is None or me.uncancel():
                raise
        finally:
            self._sleeping = None

    def _take_slot(self, task: Task, now_ns: int) -> tuple[Task, int] | None:
        """The slot the task should run for now, with its timetable moved on; None when it is not due or must skip."""
        interval = task.interval_ns
        behind = now_ns - task.due_ns
        if behind < 0:
            if -behind > interval + task.jitter_ns + NS:  # the wall clock went back
                self._realign(task, now_ns)
            return None
        slot = task.next_ns
        if behind > max(_JUMP_NS, 10 * interval):
            self._realign(task, now_ns)
            slot = task.slot_at(now_ns)
        elif behind >= interval:
            slot = task.slot_at(now_ns)
            task.stats.skipped += max(0, (slot - task.next_ns) // interval)
        task.aim(task.slot_at(max(slot, now_ns)) + interval)
        if task.is_running:
            task.stats.skipped += 1
            return None
        if self._clock.monotonic() < task.pause_until:
            return None
        task.stats.lateness_s = (now_ns - slot - task.delay_ns) / NS
        return task, slot

    def _realign(self, task: Task, now_ns: int) -> None:
        self.clock_jumps += 1
        log.warning("scheduler.clock_jumped", collector=task.name, by_s=round((now_ns - task.next_ns) / NS, 1))
        task.aim(task.slot_at(now_ns) + task.interval_ns)

    # -- running a slot ----------------------------------------------------------------------------------------------

    def _fire(self, due: Sequence[tuple[Task, int]]) -> None:
        shared = [(task, slot) for task, slot in due if not getattr(task.collector, "own_lane", False)]
        shared.sort(key=lambda item: item[0].interval_ns)  # the frequent ones are quick and must not wait for the slow
        if shared:
            self._submit(self._shared, shared)
        for task, slot in due:
            if getattr(task.collector, "own_lane", False):
                lane = self._own.setdefault(task.name, Lane(f"collect-{task.name}"))
                self._submit(lane, [(task, slot)])

    def _submit(self, lane: Lane, items: Sequence[tuple[Task, int]]) -> None:
        loop = asyncio.get_running_loop()
        slots = dict(items)
        jobs: dict[Job, Task] = {}
        for task in slots:
            task.is_running = True
            job = Job(task.collect, task.timeout_s)
            job.on_late = lambda task=task: call_soon(loop, self._came_back, task)
            jobs[job] = task
        batch = Batch(deque(jobs), lambda: call_soon(loop, self._finish, flight))
        flight = _Flight(lane, batch, jobs, slots)
        flight.watch = loop.call_later(min(job.timeout for job in jobs), self._look_after, flight)
        lane.submit(batch)

    def _finish(self, flight: _Flight) -> None:
        """On the loop: every job of the batch is done."""
        if flight.watch is not None:
            flight.watch.cancel()
        for job, task in flight.jobs.items():
            if job.finished_at is not None:
                self._settle(task, flight.slots[task])
        if self._newly_missing:
            names = " ".join(sorted(self._newly_missing))
            log.info("collectors.nothing_to_measure", collectors=names, why="vigilhost collectors tells")
            self._newly_missing.clear()

    def _look_after(self, flight: _Flight) -> None:
        """On the loop: a deadline has passed. Leave a stuck lane behind and carry on with the jobs it held up."""
        now = monotonic()  # lanes stamp jobs with the machine's clock, whatever clock tests give
        stuck = flight.batch.overdue(now)
        if stuck is None:
            wait_s = max(0.01, flight.batch.due_at(now) - now)
            flight.watch = asyncio.get_running_loop().call_later(wait_s, self._look_after, flight)
            return
        held_up = flight.batch.abandon(stuck)
        if held_up is None:  # it came to an end this very moment
            flight.watch = asyncio.get_running_loop().call_later(0.01, self._look_after, flight)
            return
        self.abandoned_lanes += 1
        self._replace(flight.lane)
        for job, task in flight.jobs.items():
            if job.finished_at is not None and job is not stuck:
                self._settle(task, flight.slots[task])
        task = flight.jobs[stuck]
        task.stats.timeouts += 1
        self._fail(task, f"no answer within {stuck.timeout:g} s")
        if held_up:
            again = [(flight.jobs[job], flight.slots[flight.jobs[job]]) for job in held_up]
            self._submit(self._shared, again)

    def _replace(self, lane: Lane) -> None:
        if lane is self._shared:
            self._shared = Lane("collect")
        for name, own in list(self._own.items()):
            if own is lane:
                del self._own[name]

    def _came_back(self, task: Task) -> None:
        """On the loop: a collect that was given up has returned after all; its readings are too old to use."""
        task.is_running = False
        task.outcome = None
        log.info("collector.came_back", collector=task.name)

    # -- what came of it ---------------------------------------------------------------------------------------------

    def _settle(self, task: Task, slot_ns: int) -> None:
        task.is_running = False
        outcome, task.outcome = task.outcome, None
        task.stats.runs += 1
        if isinstance(outcome, SourceMissing):
            self._missing(task, str(outcome))
        elif isinstance(outcome, SourceError):
            self._fail(task, str(outcome))
        elif isinstance(outcome, BaseException):
            self._fail(task, f"{type(outcome).__name__}: {outcome}", outcome)
        elif self.tasks.get(task.name) is task:  # else it was replaced while it ran
            self._succeed(task, slot_ns, outcome or [])

    def _succeed(self, task: Task, slot_ns: int, items: list[Reading | Failed]) -> None:
        stats = task.stats
        if stats.error:
            log.info("collector.recovered", collector=task.name, after=stats.error)
        failed = tuple(item for item in items if isinstance(item, Failed))
        readings = self._capped(task, [item for item in items if isinstance(item, Reading)])
        stats.error, stats.is_missing = "", False
        stats.last_success_ns, stats.readings, stats.failed = slot_ns, len(readings), failed
        self.published += 1
        fresh_s = _FRESH_INTERVALS * task.collector.interval + _FRESH_MARGIN_S
        self._publish(Tick(slot_ns, task.name, readings, failed), self._clock.monotonic() + fresh_s)

    @staticmethod
    def _capped(task: Task, readings: list[Reading]) -> list[Reading]:
        excess = len(readings) - task.max_readings
        if excess <= 0:
            return readings
        if not task.stats.dropped:
            log.warning("collector.too_many_series", collector=task.name, readings=len(readings), cap=task.max_readings)
        task.stats.dropped += excess
        return readings[: task.max_readings]

    def _missing(self, task: Task, reason: str) -> None:
        if not task.stats.is_missing:
            self._newly_missing.append(task.name)
        task.stats.is_missing, task.stats.error = True, reason
        task.pause_until = self._clock.monotonic() + MISSING_RECHECK_S

    def _fail(self, task: Task, reason: str, error: BaseException | None = None) -> None:
        """Log the first failure of a row, with a traceback where it is a bug; count the rest."""
        stats = task.stats
        stats.failures += 1
        if not stats.error or stats.is_missing:
            log.warning("collector.failed", collector=task.name, reason=reason, exc_info=error)
        stats.error, stats.is_missing = reason, False


@dataclass(slots=True, eq=False)
class _Flight:
    """A batch on its lane, and whose slots it serves."""

    lane: Lane
    batch: Batch
    jobs: dict[Job, Task]
    slots: dict[Task, int]
    watch: asyncio.TimerHandle | None = None
