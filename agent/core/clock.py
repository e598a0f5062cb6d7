"""Time as an argument: wall clock for timestamps, monotonic clock for waiting.

asyncio is imported by who sleeps with it: a process that only stamps, like a backup's, would pay 4 MB for it.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio

NS = 1_000_000_000


class Alarm:
    """Wakes a thread at a moment, or before when somebody rings it. `left`: seconds until then."""

    def __init__(self, left: Callable[[], float]) -> None:
        self._left = left
        self._has_rung = threading.Event()

    def wait(self) -> None:
        """Block the calling thread."""
        while not self._has_rung.is_set() and (left := self._left()) > 0:
            self._has_rung.wait(None if left == math.inf else left)

    @property
    def is_set(self) -> bool:
        """The moment is still to come."""
        return not self._has_rung.is_set() and self._left() > 0

    def ring(self) -> None:
        """Wake it now."""
        self._has_rung.set()


class Clock(Protocol):
    """What code that waits or stamps needs to know of time."""

    def wall_ns(self) -> int:
        """Unix time in nanoseconds; may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that only move forward, from an arbitrary start."""
        ...

    async def sleep_until(self, monotonic: float) -> None:
        """Return when the monotonic clock has reached `monotonic`."""
        ...

    def alarm(self, monotonic: float) -> Alarm:
        """For a thread that sleeps until the monotonic clock has reached `monotonic`."""
        ...


class SystemClock:
    """The machine's clocks. CLOCK_MONOTONIC stands still during suspend, so a resumed host realigns."""

    def wall_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep_until(self, monotonic: float) -> None:
        import asyncio

        # asyncio's loop runs on the same monotonic clock; its timers may fire up to a millisecond early.
        while (left := monotonic - time.monotonic()) > 0:
            await asyncio.sleep(left)

    def alarm(self, monotonic: float) -> Alarm:
        return Alarm(lambda: monotonic - time.monotonic())


class FakeClock:
    """A clock that tests move by hand."""

    def __init__(self, wall_s: float = 1_700_000_000.0) -> None:
        self._wall_ns = int(wall_s * NS)
        self._monotonic = 1000.0
        self._sleepers: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self.sleeping = 0  # in `sleep_until` now
        self.wakes = 0  # of `sleep_until` so far

    def wall_ns(self) -> int:
        return self._wall_ns

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep_until(self, monotonic: float) -> None:
        import asyncio

        if monotonic <= self._monotonic:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wake_at(monotonic, partial(self._wake, future))
        self.sleeping += 1
        try:
            await future
        finally:
            self.sleeping -= 1

    def alarm(self, monotonic: float) -> Alarm:
        alarm = Alarm(lambda: math.inf if monotonic > self._monotonic else 0.0)
        self._wake_at(monotonic, alarm.ring)
        return alarm

    def _wake_at(self, monotonic: float, wake: Callable[[], object]) -> None:
        heapq.heappush(self._sleepers, (monotonic, next(self._order), wake))

    def _wake(self, sleeper: asyncio.Future[None]) -> None:
        if not sleeper.done():
            sleeper.set_result(None)
            self.wakes += 1

    def step_wall(self, seconds: float) -> None:
        """Jump the wall clock alone, as an administrator or NTP does."""
        self._wall_ns += round(seconds * NS)

    async def advance(self, seconds: float) -> None:
        """Let time pass, waking every sleeper at its own moment and letting it run."""
        end = self._monotonic + seconds
        await _settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, wake = heapq.heappop(self._sleepers)
            self._move_to(max(due, self._monotonic))
            wake()
            await _settle()
        self._move_to(end)
        await _settle()

    def _move_to(self, monotonic: float) -> None:
        self._wall_ns += round((monotonic - self._monotonic) * NS)
        self._monotonic = monotonic


async def _settle() -> None:
    import asyncio

    for _ in range(20):  # enough turns of the loop for a woken task to reach its next wait
        await asyncio.sleep(0)
