"""Bytes from one pipe to several takers, counted and hashed on the way.

Each taker works on a lane of its own behind a short queue, so that one that fails or hangs is dropped and the others
do not notice.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import queue
import select
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Protocol

from backup.children import PIPE_BYTES, Guard
from backup.errors import SourceFailed, Stopped, TargetFailed

READ_BYTES = 1 << 18  # a quarter of a pipe: what was read is still in the processor's cache when it is hashed and sent
_QUEUED = 16  # reads that may wait for one taker: what bounds our memory
_NAP_S = 0.001  # lets a pipe fill
_PROGRESS_S = 1.0
_LOOK_S = 0.2  # how often who waits for a taker looks whether that is still worth it
_LAST_S = 5.0  # for a taker whose bytes are not wanted any more


class Taker(Protocol):
    """What takes the bytes; it may raise anything."""

    def write(self, chunk: bytes) -> None:
        """Take all of the chunk."""
        ...

    def finish(self) -> None:
        """All has been written: make it last."""
        ...


@dataclass(frozen=True, slots=True)
class Digest:
    """What went through."""

    size: int
    sha256: str


class Lane:
    """A thread that hands chunks to one taker. `error` is why it stopped; None while all is well.

    `patience_s`: how long, in sum, others that could take more are held up by it before it is given up; None: for ever.
    """

    def __init__(self, name: str, taker: Taker, patience_s: float | None = None) -> None:
        self.name = name
        self.error: Exception | None = None
        self.is_stuck = False  # its taker did not come back; nobody else may touch it
        self._taker = taker
        self._patience_s = patience_s
        self._held_up_s = 0.0
        self._is_busy = False
        self._queue: queue.Queue[bytes | None] = queue.Queue(_QUEUED)
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (chunk := self._queue.get()) is not None:
            if self.error is None:
                self._is_busy = True
                self._try(lambda taken=chunk: self._taker.write(taken))  # type: ignore[misc]
                self._is_busy = False
        if self.error is None:
            self._try(self._taker.finish)

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - whatever a taker raises is its own, and its owner reads `error`
            self.error = error

    @property
    def is_worth_more(self) -> bool:
        """A copy that others may be given up for; not so a lane that only looks at the bytes."""
        return self._patience_s is not None

    @property
    def is_idle(self) -> bool:
        """It has taken all that it was given, and waits for more."""
        return self.error is None and not self._is_busy and self._queue.empty()

    def give(self, chunk: bytes, stall_s: float, guard: Guard, others: Sequence[Lane] = ()) -> None:
        """Queue a chunk. The lane is given up after `stall_s` without taking anything, or when patience is at its end.

        `others`: all lanes that get the same. Raise Stopped.
        """
        if self.error is not None:
            return
        began = seen_at = monotonic()
        while True:
            try:
                self._queue.put(chunk, timeout=min(_LOOK_S, stall_s))
                is_taken = True
            except queue.Full:
                is_taken = False
            now = monotonic()
            # Where the others are busy too it is not this one that makes it slow.
            if any(lane.is_idle and lane.is_worth_more for lane in others if lane is not self):
                self._held_up_s += now - seen_at
            seen_at = now
            if self._patience_s is not None and self._held_up_s >= self._patience_s:
                self._give_up(f"is too slow: it has held up the others for {self._held_up_s:.0f} s")
            elif not is_taken and now - began >= stall_s:
                self._give_up(f"took nothing for {stall_s:g} s")
            if is_taken or self.error is not None:
                return
            guard.check()

    def end(self, stall_s: float, guard: Guard, *, is_whole: bool) -> None:
        """Wait until the taker has finished. `is_whole` False: what it got is not all, so it must not finish.

        Not longer than `stall_s`, and once it is stopped a few seconds more.
        """
        if not is_whole:
            self.error = self.error or Stopped(f"{self.name}: the stream broke off")
        if self.is_stuck:
            return
        wait_s = stall_s if self.error is None else min(stall_s, _LAST_S)
        ends_at = monotonic() + wait_s
        is_told = False
        while self._thread.is_alive():
            if monotonic() >= ends_at:
                self._give_up(f"took nothing for {wait_s:g} s")
                return
            if guard.reason is not None:
                ends_at = min(ends_at, monotonic() + _LAST_S)
            if is_told:
                self._thread.join(_LOOK_S)
                continue
            with contextlib.suppress(queue.Full):
                self._queue.put(None, timeout=_LOOK_S)
                is_told = True

    def _give_up(self, why: str) -> None:
        # The thread cannot be interrupted; it is a daemon thread and ends with the process.
        self.is_stuck = True
        self.error = self.error or TargetFailed(f"{self.name}: {why}")


class Outlet:
    """A descriptor to write to; owned. Another thread may close it at any time, also while somebody writes.

    The kernel gives the number of a closed descriptor to whatever is opened next, and the rest of a chunk must not land
    there: whoever uses it has a duplicate.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def write(self, chunk: bytes) -> None:
        """Write all of it. Raise OSError."""
        with self.held() as mine:
            write_all(mine, chunk)

    @contextlib.contextmanager
    def held(self) -> Iterator[int]:
        """The same open file under a number of one's own. Raise OSError once it is closed."""
        with self._lock:
            mine = os.dup(self._descriptor)  # of -1, which is an error
        try:
            yield mine
        finally:
            os.close(mine)

    def close(self) -> None:
        """Close once. Who writes at that moment ends its chunk."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class PipeTaker:
    """Writes into a pipe; owns the descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, chunk: bytes) -> None:
        write_all(self._descriptor, chunk)

    def finish(self) -> None:
        self.close()

    def close(self) -> None:
        """Close once, so that the reader sees the end."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def write_all(descriptor: int, chunk: bytes) -> None:
    """Write all of it; the kernel may take less at a time."""
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]


@dataclass(slots=True)
class Pace:
    """Holds a stream to so many bytes a second; None does not."""

    rate: int | None
    guard: Guard

    def keep(self, size: int, started_at: float) -> None:
        """Wait until `size` bytes since `started_at` (monotonic) are no more than the rate allows. Raise Stopped."""
        if self.rate:
            ahead_s = size / self.rate - (monotonic() - started_at)
            if ahead_s > 0:
                self.guard.wait(ahead_s)


def relay(descriptor: int, lanes: Sequence[Lane], guard: Guard, *, rate: int | None = None, stall_s: float = 600.0,
          on_progress: Callable[[int], None] | None = None) -> Digest:  # fmt: skip
    """Read the pipe to its end and give every lane all of it; the lanes are ended by the caller.

    Raise SourceFailed when nothing comes for `stall_s`, TargetFailed when no lane is left, Stopped.
    """
    # Once it has seen a larger piece come and go, glibc keeps the memory of chunks and does not ask the kernel for new
    # pages for each (mallopt(3), M_MMAP_THRESHOLD).
    bytearray(16 * READ_BYTES)
    digest = hashlib.sha256()
    size = 0
    started_at = told_at = monotonic()
    pace = Pace(rate, guard)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    while True:
        if not poll.poll(stall_s * 1000):
            guard.check()
            raise SourceFailed(f"no byte came for {stall_s:g} s; the program hangs, or limits.stall is too short")
        chunk = os.read(descriptor, READ_BYTES)
        if not chunk:
            guard.check()
            return Digest(size, digest.hexdigest())
        digest.update(chunk)
        size += len(chunk)
        for lane in lanes:
            lane.give(chunk, stall_s, guard, lanes)
        if all(lane.error is not None for lane in lanes):
            raise TargetFailed("; ".join(f"{lane.name}: {lane.error}" for lane in lanes))
        pace.keep(size, started_at)
        if on_progress is not None and (now := monotonic()) - told_at >= _PROGRESS_S:
            told_at = now
            on_progress(size)


class Meter:
    """Moves bytes from one pipe to another inside the kernel, on a thread, and counts them. Owns both ends.

    Moving each piece as it comes would wake it and the reader once for each, which costs up to a tenth of a backup.
    """

    def __init__(self, source: int, sink: int) -> None:
        self.size = 0
        self._ends = (source, sink)
        self._thread = threading.Thread(target=self._work, name="meter", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        source, sink = self._ends
        try:
            may_nap = fcntl.fcntl(source, fcntl.F_GETPIPE_SZ) >= PIPE_BYTES
            while moved := os.splice(source, sink, PIPE_BYTES):
                self.size += moved
                if moved < PIPE_BYTES // 4 and may_nap:
                    sleep(_NAP_S)  # both pipes hold more than comes in that time: nobody waits for us
        except OSError:
            pass  # the reader has gone; its exit status says why
        finally:
            os.close(source)
            os.close(sink)

    def wait(self) -> int:
        """The bytes that went through, once the writer has closed its end."""
        self._thread.join()
        return self.size
