"""A target is asked on a thread of its own, so that one that hangs is left behind and the others go on.

What a hung mount does not answer cannot be interrupted: the thread stays until the process ends, and nothing more is
asked of that target.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from time import monotonic
from typing import BinaryIO, TypeVar

from backup.children import Guard
from backup.errors import TargetFailed

T = TypeVar("T")
_LOOK_S = 0.2  # how often who waits looks whether that is still worth it
_LAST_S = 5.0  # for coming back after a stop


class Watch:
    """Tells how long a target has been at work within a call that does other things too, such as decoding."""

    def __init__(self) -> None:
        self._since: float | None = None

    def __enter__(self) -> None:
        self._since = monotonic()

    def __exit__(self, *_: object) -> None:
        self._since = None

    def busy_s(self) -> float:
        since = self._since
        return 0.0 if since is None else monotonic() - since

    def over(self, file: BinaryIO) -> BinaryIO:
        """The same file, watched while it is read."""
        return _Watched(file, self)  # type: ignore[return-value]


class _Watched:
    def __init__(self, file: BinaryIO, watch: Watch) -> None:
        self._file = file
        self._watch = watch

    def read(self, size: int) -> bytes:
        with self._watch:
            return self._file.read(size)


class Hand:
    """A thread that does one call after another. `is_stuck`: it did not come back from one; no other is begun."""

    def __init__(self, name: str) -> None:
        self.is_stuck = False
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # It stays: programs that a call started end with the thread that started them.
        threading.Thread(target=self._work, name=f"target {name}", daemon=True).start()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    def do(self, call: Callable[[], T], guard: Guard, limit_s: float | None = None, watch: Watch | None = None) -> T:
        """What `call` returns or raises. `limit_s`: most time for it, or with `watch` for one thing within it.

        Raise TargetFailed when it does not come back, Stopped when it did not after a stop.
        """
        if self.is_stuck:
            raise TargetFailed(f"{self._name}: has not answered what it was asked before")
        done: Future[T] = Future()
        self._calls.put(lambda: _settle(done, call))
        began = monotonic()
        stopped_at: float | None = None
        while not wait((done,), _LOOK_S).done:
            now = monotonic()
            if guard.reason is not None:
                stopped_at = stopped_at if stopped_at is not None else now
                if now - stopped_at >= _LAST_S:
                    self.is_stuck = True
                    guard.check()
            elif limit_s is not None and (watch.busy_s() if watch is not None else now - began) >= limit_s:
                self.is_stuck = True
                raise TargetFailed(f"{self._name}: did not answer within {limit_s:g} s")
        return done.result()

    def close(self) -> None:
        """No more calls come; the thread ends when it is back."""
        self._calls.put(None)


def _settle(done: Future[T], call: Callable[[], T]) -> None:
    try:
        done.set_result(call())
    except BaseException as error:  # noqa: BLE001 - raised again by do(), where somebody waits
        done.set_exception(error)
