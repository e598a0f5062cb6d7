"""When collectors run: slots aligned to the wall clock, timed by the monotonic clock, coalesced into few wake-ups.

All collectors due together go to the shared lane in one hop. A collector that is late skips slots, never overlaps
itself and never replays. When the wall clock jumps, slots are aligned anew.

The shared lane is told its next slot ahead of time and wakes by itself: the loop wakes once a slot, for what was
measured, and not also to send the lane off. Everything else, and whatever comes in between, goes the way of `run`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

import structlog

from agent.core.clock import NS, Alarm, Clock
from agent.core.errors import SourceError, SourceMissing
from agent.core.model import Failed, Reading, Tick
from agent.flights import Appointment, Flights
from agent.timetable import SHARED, Task

log = structlog.get_logger("scheduler")

MISSING_RECHECK_S = 60.0  # how soon a source that the host lacks is looked for again
_JUMP_NS = 60 * NS  # later than this (and than ten intervals) is a clock jump or a suspend, not a delay
_AHEAD_NS = 10 * NS  # a slot further away is not promised: the loop sees sooner that the wall clock was set
_FRESH_INTERVALS, _FRESH_MARGIN_S = 3, 5.0

Publish = Callable[[Tick, float], None]


class Scheduler:
    """Runs tasks until cancelled. `publish(tick, fresh_until)` gets every Tick on the event loop's thread."""

    def __init__(self, clock: Clock, publish: Publish, forget: Callable[[str], None] = lambda _: None) -> None:
        self._clock = clock
        self._publish = publish
        self._forget = forget
        self.tasks: dict[str, Task] = {}
        self._shared: list[Task] = []  # those on the shared lane
        self.clock_jumps = 0
        self.published = 0
        self.last_slot_at = clock.monotonic()  # when the shared lane last came back, or had nothing to do
        self._flights = Flights(self._settle, self._give_up, self._landed)
        self._appointment: Appointment | None = None
        self._sleeping: asyncio.Task[None] | None = None
        self._has_changed = False
        self._is_over = False
        self._newly_missing: list[str] = []

    @property
    def loop_lag_s(self) -> float:
        """How late the loop heard of the last collecting."""
        return self._flights.loop_lag_s

    @property
    def abandoned_lanes(self) -> int:
        """Threads left behind in a call that did not come back in time."""
        return self._flights.abandoned_lanes

    @property
    def has_tried_all(self) -> bool:
        """Each task has run at least once or missed its deadline."""
        return all(task.stats.runs or task.stats.timeouts for task in self.tasks.values())

    def is_at_rest(self) -> bool:
        """Nothing is due and nothing runs: all that is left is to wait."""
        now_ns = self._clock.wall_ns()
        flying = {task.lane for task in self.tasks.values() if self._flights.is_busy(task.lane)}
        if self._appointment is not None and self._appointment.alarm.is_set:
            flying.discard(SHARED)
        return not flying and all(task.due_ns > now_ns for task in self.tasks.values())

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
        self._shared = [task for task in wanted.values() if not task.has_own_lane]
        self._call_off()
        self._look_again()

    def _call_off(self) -> None:
        """Let the shared lane give back the slot that it was promised."""
        if self._appointment is not None:
            self._appointment.cancel()
            self._flights.wake(SHARED)

    def _retire(self, task: Task, *, is_replaced: bool) -> None:
        if not is_replaced:
            self._forget(task.name)
        if task.has_own_lane:
            self._flights.close(task.lane)
        task.close()

    async def run(self) -> None:
        """Fire slots until cancelled; from then on nothing is published, whatever still runs."""
        try:
            await self._run()
        finally:
            self._is_over = True
            self._call_off()

    async def _run(self) -> None:
        while True:
            await self._sleep_to_next()
            now_ns, now = self._clock.wall_ns(), self._clock.monotonic()
            if not self._flights.is_busy(SHARED):
                self.last_slot_at = now
            due = {
                task: slot
                for task in self._waiting()
                if not task.asleep_from_ns <= now_ns < task.due_ns
                and (slot := self._take_slot(task, now_ns, now)) is not None
            }
            if due:
                # Once this task sleeps again: the lane then finds the interpreter free instead of waiting for it.
                asyncio.get_running_loop().call_soon(self._fire, due)

    def _waiting(self) -> list[Task]:
        """Tasks whose next slot is the loop's business: not those of the shared lane while something flies there."""
        is_busy = self._flights.is_busy(SHARED)
        return [task for task in self.tasks.values() if task.has_own_lane or not is_busy]

    async def _sleep_to_next(self) -> None:
        """Until the nearest slot, a change of the tasks, or a minute (a stepped wall clock is seen by then)."""
        now_ns = self._clock.wall_ns()
        nearest = min((task.due_ns for task in self._waiting()), default=now_ns + 60 * NS)
        wait_s = min(60.0, max(0.0, (nearest - now_ns) / NS))
        self._has_changed = False
        me = self._sleeping = asyncio.current_task()  # a task of its own for each sleep would cost 60 us a second
        try:
            await self._clock.sleep_until(self._clock.monotonic() + wait_s)
        except asyncio.CancelledError:
            if not self._has_changed or me is None or me.uncancel():
                raise
        finally:
            self._sleeping = None

    def _look_again(self) -> None:
        """Let `run` see what has changed."""
        self._has_changed = True
        if self._sleeping is not None:
            self._sleeping.cancel()
            self._sleeping = None  # once: what is cancelled twice is taken for a scheduler that is to end

    def _take_slot(self, task: Task, now_ns: int, now: float) -> int | None:
        """The slot the task is to run for at `now`, its timetable moved on; None when it is not due or must skip."""
        interval = task.interval_ns
        behind = now_ns - task.due_ns
        if behind < 0:
            if -behind > interval + task.jitter_ns + NS:  # the wall clock went back
                self._realign(task, now_ns)
            return None
        slot, delay_ns = task.next_ns, task.delay_ns
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
        if now < task.pause_until:
            return None
        task.stats.lateness_s = (now_ns - slot - delay_ns) / NS
        return slot

    def _realign(self, task: Task, now_ns: int) -> None:
        self.clock_jumps += 1
        log.warning("scheduler.clock_jumped", collector=task.name, by_s=round((now_ns - task.next_ns) / NS, 1))
        task.aim(task.slot_at(now_ns) + task.interval_ns)

    # -- running a slot ----------------------------------------------------------------------------------------------

    def _fire(self, due: Mapping[Task, int]) -> None:
        shared = {task: slot for task, slot in due.items() if not task.has_own_lane}
        if shared:
            self._flights.submit(SHARED, _quick_first(shared), nap=self._until_next())
        for task, slot in due.items():
            if task.has_own_lane:
                self._flights.submit(task.lane, {task: slot})

    def _landed(self, lane: str, unflown: Mapping[Task, int]) -> None:
        """The lane is free. The shared one is told its next slot; where that cannot be, `run` sees to it."""
        if self._newly_missing:
            names = " ".join(sorted(self._newly_missing))
            log.info("collectors.nothing_to_measure", collectors=names, why="vigilhost collectors tells")
            self._newly_missing.clear()
        for task, slot in unflown.items():
            if self.tasks.get(task.name) is task:
                task.aim(slot)
            else:
                task.close()
        if lane == SHARED:
            self.last_slot_at = self._clock.monotonic()
            self._appointment = None
            if self._is_over:
                return
            if unflown or not self._promise():
                self._look_again()

    def _promise(self) -> bool:
        """Give the shared lane its next slot; False when there is none that it can be given yet."""
        now_ns = self._clock.wall_ns()
        due_ns = self._next_shared_ns()
        if not now_ns < due_ns <= now_ns + _AHEAD_NS or any(task.is_running for task in self._shared):
            return False  # a task left behind with its thread may come back before the slot
        then = self._clock.monotonic() + (due_ns - now_ns) / NS
        slots = {
            task: slot
            for task in self._shared
            if task.due_ns == due_ns and (slot := self._take_slot(task, due_ns, then)) is not None
        }
        if not slots:
            return False
        appointment = Appointment.at(due_ns, self._clock, slots)
        if not self._flights.submit(SHARED, _quick_first(slots), appointment, self._until_next()):
            return False
        self._appointment = appointment
        return True

    def _next_shared_ns(self) -> int:
        """When the shared lane is due next; 0 when it has nothing to do. A list costs less than a generator here."""
        return min([task.due_ns for task in self._shared], default=0)

    def _until_next(self) -> Alarm | None:
        """When the shared lane will have its slot after those it has been given; None where that is far away."""
        away_ns = self._next_shared_ns() - self._clock.wall_ns()
        return self._clock.alarm(self._clock.monotonic() + away_ns / NS) if 0 < away_ns <= _AHEAD_NS else None

    # -- what came of it ---------------------------------------------------------------------------------------------

    def _settle(self, task: Task, slot_ns: int) -> None:
        outcome, task.outcome = task.outcome, None
        task.stats.runs += 1
        if isinstance(outcome, SourceMissing):
            self._missing(task, str(outcome))
        elif isinstance(outcome, SourceError):
            self._fail(task, str(outcome))
        elif isinstance(outcome, BaseException):
            self._fail(task, f"{type(outcome).__name__}: {outcome}", outcome)
        elif self._is_over:
            pass  # sinks have been flushed for the last time, or are about to be
        elif self.tasks.get(task.name) is task:
            self._succeed(task, slot_ns, outcome or [])
        else:  # it was replaced while it ran
            task.close()

    def _give_up(self, task: Task, after_s: float) -> None:
        task.stats.timeouts += 1
        self._fail(task, f"no answer within {after_s:g} s")

    def _succeed(self, task: Task, slot_ns: int, items: list[Reading | Failed]) -> None:
        stats = task.stats
        failed = tuple(item for item in items if isinstance(item, Failed))
        readings = self._capped(task, [item for item in items if isinstance(item, Reading)])
        fresh_s = _FRESH_INTERVALS * task.collector.interval + _FRESH_MARGIN_S
        try:
            self._publish(Tick(slot_ns, task.name, readings, failed), self._clock.monotonic() + fresh_s)
        except Exception as error:  # noqa: BLE001 - values that nobody can encode are that collector's failure
            self._fail(task, f"{type(error).__name__}: {error}", error)
            return
        if stats.error:
            log.info("collector.recovered", collector=task.name, after=stats.error)
        stats.error, stats.is_missing = "", False
        stats.last_success_ns, stats.readings, stats.failed = slot_ns, len(readings), failed
        self.published += 1

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


def _quick_first(slots: Mapping[Task, int]) -> dict[Task, int]:
    """The frequent ones are quick and must not wait for the slow."""
    return dict(sorted(slots.items(), key=lambda item: item[0].interval_ns))
