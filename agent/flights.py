"""Tasks on their lanes: handed over together, watched, and left behind where one of them hangs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic

import structlog

from agent.core.clock import NS, Alarm, Clock
from agent.core.errors import SourceError
from agent.core.isolation import Batch, Job, Lane, call_soon
from agent.timetable import Task

log = structlog.get_logger("scheduler")

_EARLY_NS = NS // 20  # a slewed wall clock runs behind the monotonic one that the alarm follows


@dataclass(slots=True, eq=False)
class Appointment:
    """Lets a lane wake by itself when a slot begins, so that the event loop sleeps through it."""

    due_ns: int
    alarm: Alarm
    clock: Clock
    slots: Mapping[Task, int]
    is_cancelled: bool = False

    @classmethod
    def at(cls, due_ns: int, clock: Clock, slots: Mapping[Task, int]) -> Appointment:
        """Meet at this wall-clock time, as far away as it is now."""
        return cls(due_ns, clock.alarm(clock.monotonic() + (due_ns - clock.wall_ns()) / NS), clock, slots)

    def keep(self) -> bool:
        """On the lane's thread: wait; False when it was cancelled or the wall clock was set meanwhile."""
        self.alarm.wait()
        late_ns = self.clock.wall_ns() - self.due_ns
        if self.is_cancelled or not -_EARLY_NS <= late_ns < min(task.interval_ns for task in self.slots):
            return False
        for task in self.slots:
            task.stats.lateness_s = max(0, late_ns) / NS
        return True

    def cancel(self) -> None:
        """Let the lane go at once; what has begun goes on."""
        self.is_cancelled = True
        self.alarm.ring()


@dataclass(slots=True, eq=False)
class _Flight:
    """A batch on its lane, and whose slots it serves."""

    lane: str
    thread: Lane
    batch: Batch
    jobs: dict[Job, Task]
    slots: Mapping[Task, int]
    watch: asyncio.TimerHandle | None = None


class Flights:
    """Belongs to the event loop. At most one flight on a lane at a time.

    `settle(task, slot)`: the task has run, `task.outcome` tells how. `give_up(task, seconds)`: it has missed its
    deadline. `landed(lane, unflown)`: the lane is free again; `unflown` are the slots that no job began.
    """

    def __init__(
        self,
        settle: Callable[[Task, int], None],
        give_up: Callable[[Task, float], None],
        landed: Callable[[str, Mapping[Task, int]], None],
    ) -> None:
        self._settle = settle
        self._give_up = give_up
        self._landed = landed
        self._lanes: dict[str, Lane] = {}
        self._flying: dict[str, _Flight] = {}
        self.abandoned_lanes = 0
        self.loop_lag_s = 0.0  # from the end of the last batch to the loop's hearing of it

    def is_busy(self, lane: str) -> bool:
        """Whether something flies there, or is about to."""
        return lane in self._flying

    def submit(
        self,
        lane: str,
        slots: Mapping[Task, int],
        appointment: Appointment | None = None,
        nap: Alarm | None = None,
    ) -> bool:
        """Run the tasks one after another, now or at the appointment; then the lane sleeps until the end of `nap`.

        False when no thread can be had for them: they have failed.
        """
        loop = asyncio.get_running_loop()
        jobs: dict[Job, Task] = {}
        for task in slots:
            task.is_running = True
            job = Job(task.collect, task.timeout_s)
            job.on_late = lambda task=task: call_soon(loop, self._came_back, task)
            jobs[job] = task
        begin, wait_s = None, 0.0
        if appointment is not None:
            begin, wait_s = appointment.keep, max(0.0, (appointment.due_ns - appointment.clock.wall_ns()) / NS)
        batch = Batch(deque(jobs), lambda: call_soon(loop, self._finish, flight, monotonic()), begin, nap)
        thread = self._lanes.setdefault(lane, Lane(f"collect-{lane}" if lane else "collect"))
        flight = self._flying[lane] = _Flight(lane, thread, batch, jobs, slots)
        flight.watch = loop.call_later(wait_s + min(job.timeout for job in jobs), self._look_after, flight)
        try:
            thread.submit(batch, is_urgent=appointment is None)
        except RuntimeError as error:
            flight.watch.cancel()
            self._forget(flight)
            for task in slots:
                task.outcome = SourceError(f"no thread to run on: {error}")
            self._settle_all(slots)
            return False
        return True

    def _settle_all(self, slots: Mapping[Task, int]) -> None:
        """First all are free again, then each is told: what one does wrong must not hold the others."""
        for task in slots:
            task.is_running = False
        for task, slot in slots.items():
            self._settle(task, slot)

    def wake(self, lane: str) -> None:
        """Let the lane look at once at what it was given."""
        if found := self._lanes.get(lane):
            found.wake()

    def close(self, lane: str) -> None:
        """Let the thread of a lane end after what it does."""
        if found := self._lanes.pop(lane, None):
            found.close()

    def _finish(self, flight: _Flight, ended_at: float) -> None:
        """The batch has come to its end."""
        self.loop_lag_s = monotonic() - ended_at
        if flight.watch is not None:
            flight.watch.cancel()
        self._forget(flight)
        unflown, flown = {}, {}
        first_at = min((job.started_at for job in flight.jobs if job.started_at is not None), default=0.0)
        for job, task in flight.jobs.items():
            if job.finished_at is None or job.started_at is None:
                task.is_running = False
                unflown[task] = flight.slots[task]
            else:
                task.stats.lateness_s += job.started_at - first_at  # it had to wait for those before it
                flown[task] = flight.slots[task]
        self._settle_all(flown)
        self._landed(flight.lane, unflown)

    def _look_after(self, flight: _Flight) -> None:
        """A deadline has passed. Leave a stuck lane behind and carry on with the jobs it held up."""
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
        self._forget(flight)
        if self._lanes.get(flight.lane) is flight.thread:
            del self._lanes[flight.lane]
        ended = [task for job, task in flight.jobs.items() if job.finished_at is not None and job is not stuck]
        self._settle_all({task: flight.slots[task] for task in ended})
        self._give_up(flight.jobs[stuck], stuck.timeout)
        waiting = {flight.jobs[job]: flight.slots[flight.jobs[job]] for job in held_up}
        if not waiting or not self.submit(flight.lane, waiting):
            self._landed(flight.lane, {})

    def _forget(self, flight: _Flight) -> None:
        if self._flying.get(flight.lane) is flight:  # a collector that was replaced may fly on beside its successor
            del self._flying[flight.lane]

    def _came_back(self, task: Task) -> None:
        """A collect that was given up has returned after all; its readings are too old to use."""
        task.is_running = False
        task.outcome = None
        log.info("collector.came_back", collector=task.name)
