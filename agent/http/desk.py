"""Where questions wait for their turn: blocking queries, away from the event loop.

Rules have a thread of their own, so that they never wait for a person's query; people share one of low priority and
come one after another. A cancelled question that still waits is dropped; one that runs keeps its turn until it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading
from collections.abc import Callable
from time import monotonic
from typing import Final, TypeVar

from agent.core import heap
from agent.core.isolation import Worker
from agent.core.query import QueryTimeoutError

T = TypeVar("T")

MOST_WAITING: Final = 20  # people's questions; Prometheus runs as many at once
_NICE: Final = 5  # gives way to collecting; more, and on a busy host it would hold the interpreter while it waits
_HEAVY_S: Final = 0.2  # a query this long may have taken tens of MB, which the allocator would keep for ever
_GRACE_S: Final = 10.0  # for a question to notice its own deadline before its thread is given up


class BusyError(Exception):
    """More questions wait than are let in."""


class Desk:
    """Answers questions on worker threads; `waiting` counts people's, the running one too. Use it from one loop."""

    def __init__(self, most_waiting: int = MOST_WAITING) -> None:
        self._most_waiting = most_waiting
        self.waiting = 0
        self._people = _Counter("query", _NICE)
        self._rules = _Counter("rule-query", 0)

    async def ask(self, work: Callable[[float], T], deadline_s: float, *, is_rule: bool = False) -> T:
        """What `work` returns or raises; it gets the seconds left and must keep to them.

        Raise BusyError at once when too many wait, QueryTimeoutError when the turn does not come in time or `work`
        overstays.
        """
        if is_rule:
            return await self._rules.ask(work, deadline_s)
        if self.waiting >= self._most_waiting:
            raise BusyError(f"{self.waiting} queries are waiting already; ask again in a moment")
        self.waiting += 1
        try:
            return await self._people.ask(work, deadline_s)
        finally:
            self.waiting -= 1

    def close(self) -> None:
        """Let the threads go once they have nothing to do."""
        self._people.close()
        self._rules.close()


class _Counter:
    """One thread and the queue before it."""

    def __init__(self, name: str, nice: int) -> None:
        self._worker = Worker(name)
        self._nice = nice
        self._turn = asyncio.Lock()
        self._thread = threading.local()

    async def ask(self, work: Callable[[float], T], deadline_s: float) -> T:
        ends_at = monotonic() + deadline_s
        try:
            async with asyncio.timeout(deadline_s):
                await self._turn.acquire()
        except TimeoutError:
            raise QueryTimeoutError("query timed out in query queue") from None
        left = ends_at - monotonic()
        call = functools.partial(self._work, work, left)
        running = asyncio.ensure_future(self._worker.call(call, left + _GRACE_S))
        running.add_done_callback(self._next)
        try:
            return await asyncio.shield(running)
        except TimeoutError as error:
            if str(error):  # the worker's own: it is not free
                raise QueryTimeoutError("an earlier query has not ended yet; ask again in a moment") from error
            raise QueryTimeoutError(f"query did not end {_GRACE_S:g} s after its deadline") from error

    def _work(self, work: Callable[[float], T], left: float) -> T:
        if self._nice and not hasattr(self._thread, "is_nice"):
            self._thread.is_nice = True
            with contextlib.suppress(PermissionError):  # a sandbox may forbid it; people are answered all the same
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._nice)  # this thread's alone on Linux
        began = monotonic()
        try:
            return work(left)
        finally:
            if monotonic() - began > _HEAVY_S:
                heap.give_back()

    def _next(self, done: asyncio.Future[T]) -> None:
        self._turn.release()
        if not done.cancelled():
            done.exception()  # of a question whose asker has left; nobody else looks at it

    def close(self) -> None:
        self._worker.close()
