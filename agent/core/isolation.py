"""What may hang, hangs alone: worker lanes that can be abandoned.

A call into the kernel that never returns cannot be interrupted from Python. So blocking work runs on a Lane, a daemon
thread that works off jobs one after another; when a job overstays its deadline the owner leaves that thread where it
is, takes back the jobs behind it and goes on with a fresh Lane.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from time import monotonic
from typing import Any, TypeVar

from agent.core.clock import Alarm

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Job:
    """One blocking call and its deadline, in seconds from the moment it starts."""

    run: Callable[[], None]  # never raises: it keeps its own outcome
    timeout: float
    started_at: float | None = None  # monotonic; None until a lane takes it up
    finished_at: float | None = None
    on_late: Callable[[], None] | None = None  # called on the lane's thread when an abandoned job returns after all


@dataclass(slots=True, eq=False)
class Batch:
    """Jobs done one after another on one lane; `done` is called once, on the lane's thread, when none is left.

    `begin` comes first, on the lane's thread: it may wait, and says whether the jobs are to be done at all. With `nap`
    the thread sleeps afterwards, instead of being woken to be told when its next batch begins.
    """

    jobs: deque[Job]
    done: Callable[[], None]
    begin: Callable[[], bool] | None = None
    nap: Alarm | None = None
    current: Job | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    is_abandoned: bool = False

    def overdue(self, now: float) -> Job | None:
        """The job that has been running for longer than it may, if any."""
        job = self.current
        if job is None or job.started_at is None or now - job.started_at < job.timeout:
            return None
        return job

    def due_at(self, now: float) -> float:
        """When to look again: the deadline of the running job (monotonic)."""
        job = self.current
        if job is None or job.started_at is None:
            return now + 0.05
        return job.started_at + job.timeout

    def abandon(self, stuck: Job) -> deque[Job] | None:
        """Give up on this batch because it hangs in `stuck`: the jobs behind it; None when `stuck` has just ended."""
        with self.lock:
            if self.current is not stuck or stuck.finished_at is not None:
                return None
            self.is_abandoned = True
            rest, self.jobs = self.jobs, deque()
            return rest

    def withdraw(self) -> bool:
        """Take back what has not begun; False when nothing is left to take."""
        with self.lock:
            has_any = bool(self.jobs)
            self.jobs.clear()
            return has_any

    def _next(self) -> Job | None:
        with self.lock:
            self.current = self.jobs.popleft() if self.jobs and not self.is_abandoned else None
            return self.current

    def work(self) -> bool:
        """Do the jobs; False when the batch was abandoned meanwhile and its thread has to go."""
        if self.begin is not None and not self.begin():
            self.jobs.clear()
            self.nap = None
        while job := self._next():
            job.started_at = monotonic()
            job.run()
            job.finished_at = monotonic()
            if self.is_abandoned:
                if job.on_late is not None:
                    job.on_late()
                return False
        if self.is_abandoned:
            return False
        self.done()
        return True


class Lane:
    """One daemon thread with a queue of batches. Daemon, so that a stuck one never holds up the exit of the process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._queue: SimpleQueue[Batch | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._nap: Alarm | None = None

    def submit(self, batch: Batch, *, is_urgent: bool = True) -> None:
        """Queue a batch; starts the thread at the first one. One that is not urgent waits for the end of a nap.

        Raise RuntimeError while the host or the service's limits allow no further thread; a later call tries again.
        """
        if self._thread is None:
            thread = threading.Thread(target=self._work, name=self.name, daemon=True)
            thread.start()
            self._thread = thread
        self._queue.put(batch)
        if is_urgent:
            self.wake()

    def wake(self) -> None:
        """End the nap of the thread, if it takes one."""
        if (nap := self._nap) is not None:
            nap.ring()

    def _work(self) -> None:
        while (batch := self._queue.get()) is not None:
            self._nap = batch.nap
            if not batch.work():
                return
            if batch.nap is not None and self._queue.empty():  # what came meanwhile has rung an older nap
                batch.nap.wait()

    def close(self) -> None:
        """Let the thread end after what is queued; does not wait."""
        self._queue.put(None)
        self.wake()


class Worker:
    """Blocking calls to one target from the event loop: a deadline each, and never two at a time.

    A call that overstays is left behind with its thread. Until it comes back further calls are refused at once, so a
    dead target costs one thread, not one a try.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lane = Lane(name)
        self._is_stuck = False

    async def call(self, function: Callable[[], T], timeout: float) -> T:
        """The function's result or exception.

        Raise TimeoutError after `timeout` seconds, while an earlier call is stuck, and where no thread can be had.
        """
        if self._is_stuck:
            raise TimeoutError(f"{self._name}: an earlier call has not come back")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        outcome: list[Callable[[], T]] = []

        def run() -> None:
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - it is raised again where the call was made
                outcome.append(_raiser(error))
            else:
                outcome.append(lambda: result)

        job = Job(run, timeout, on_late=lambda: call_soon(loop, self._came_back))
        batch = Batch(deque([job]), lambda: call_soon(loop, _wake, future))
        try:
            self._lane.submit(batch)
        except RuntimeError as error:
            raise TimeoutError(f"{self._name}: {error}") from error
        try:
            async with asyncio.timeout(timeout):
                await future
        except asyncio.CancelledError:
            self._leave(batch, job)
            raise
        except TimeoutError:
            if self._leave(batch, job) or not outcome:
                raise
        return outcome[0]()

    def _leave(self, batch: Batch, job: Job) -> bool:
        """Go on without this call, and without its thread when it is stuck in it; False: it has just ended."""
        if batch.withdraw():
            return True
        if batch.abandon(job) is None:
            return False
        self._is_stuck = True
        self._lane = Lane(self._name)
        return True

    def _came_back(self) -> None:
        self._is_stuck = False

    def close(self) -> None:
        """Let the thread go."""
        self._lane.close()


def _raiser(error: BaseException) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


def _wake(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_result(None)


def call_soon(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *args: object) -> None:
    """From a lane's thread: run `call` on the loop, unless the loop has closed and nobody is left to tell."""
    try:
        loop.call_soon_threadsafe(call, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise
