"""Time as an argument: wall clock for timestamps, monotonic clock for waiting."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Protocol

NS = 1_000_000_000


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


class SystemClock:
    """The machine's clocks. CLOCK_MONOTONIC stands still during suspend, so a resumed host realigns."""

    def wall_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep_until(self, monotonic: float) -> None:
        # asyncio's loop runs on the same monotonic clock; its timers may fire up to a millisecond early.
        while (left := monotonic - time.monotonic()) > 0:
            await asyncio.sleep(left)


class FakeClock:
    """A clock that tests move by hand."""

    def __init__(self, wall_s: float = 1_700_000_000.0) -> None:
        self._wall_ns = int(wall_s * NS)
        self._monotonic = 1000.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def wall_ns(self) -> int:
        return self._wall_ns

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep_until(self, monotonic: float) -> None:
        if monotonic <= self._monotonic:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (monotonic, next(self._order), future))
        await future

    def step_wall(self, seconds: float) -> None:
        """Jump the wall clock alone, as an administrator or NTP does."""
        self._wall_ns += round(seconds * NS)

    async def advance(self, seconds: float) -> None:
        """Let time pass, waking every sleeper at its own moment and letting it run."""
        end = self._monotonic + seconds
        await _settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, future = heapq.heappop(self._sleepers)
            self._move_to(max(due, self._monotonic))
            if not future.done():
                future.set_result(None)
            await _settle()
        self._move_to(end)
        await _settle()

    def _move_to(self, monotonic: float) -> None:
        self._wall_ns += round((monotonic - self._monotonic) * NS)
        self._monotonic = monotonic


async def _settle() -> None:
    for _ in range(20):  # enough turns of the loop for a woken task to reach its next wait
        await asyncio.sleep(0)
