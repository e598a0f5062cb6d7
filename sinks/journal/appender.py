"""Writing: records wait in memory until the disk has them, however long that takes and as long as memory allows.

A file on which a call failed is never written again: after a failed fsync the kernel forgets what it could not write,
and the next fsync on the same file succeeds. What was not known to be safe goes to a new file.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from agent.core.clock import NS, Clock
from sinks.journal.codec import Encoded
from sinks.journal.cursor import Cursors
from sinks.journal.files import Files, write_all
from sinks.journal.limits import Limits
from sinks.journal.segment import Finding, Segment, build_head, name_of
from sinks.journal.shelf import Shelf

_WRITE_BYTES = 1024 * 1024  # written in one call, at most
_UNSYNCED_BYTES = 1024 * 1024  # kept for rewriting between two syncs, at most
_OVERHEAD = 300  # bytes a record waiting in memory costs beside itself
_MOST_HOLES = 100  # remembered; a reader that passes an older one counts it as damage too
_RETRY_S = (1.0, 2.0, 4.0, 8.0, 15.0)
_HANGS_S = 10.0  # a disk that takes this long for a second's records does not work


@dataclass(slots=True)
class _Open:
    """The file being written."""

    segment: Segment
    fd: int
    opened_at: float  # monotonic, moved back by the age it had already
    definitions: set[int] = field(default_factory=set)  # written to it so far
    is_new: bool = True  # its name may not survive a power loss yet


class Appender:
    """Takes records from one thread; writes on whichever threads call `flush` and `sync`."""

    def __init__(self, shelf: Shelf, cursors: Cursors, clock: Clock, limits: Limits, directory_fd: int) -> None:
        self._shelf = shelf
        self._files: Files = shelf.files
        self._cursors = cursors
        self._clock = clock
        self._limits = limits
        self._directory_fd = directory_fd
        self._guard = shelf.guard
        self._progress = threading.Condition(shelf.guard)  # something was written, or could not be
        self._tally = shelf.tally
        self._io = threading.RLock()  # one writer at a time; never held by `add`
        self._open: _Open | None = None
        self._unsynced: deque[Encoded] = deque()
        self._unsynced_bytes = 0
        self._failures = 0
        self._retry_at = 0.0
        self.waiting: deque[Encoded] = deque()  # guarded
        self.waiting_bytes = 0
        self._waiting_since = 0.0  # monotonic: nothing was written since, though something waits
        self.holes: list[tuple[int, int]] = []  # numbers dropped from memory, counted already; guarded
        self.room_wanted = 0  # bytes the disk had no room for; 0 while it has

    @property
    def is_failing(self) -> bool:
        """True from a failed call, or after seconds without an answer, until something was written again."""
        return self._failures > 0 or (bool(self.waiting) and self._clock.monotonic() - self._waiting_since > _HANGS_S)

    def resume(self, found: Finding) -> None:
        """Go on in the newest file of the last run."""
        segment = found.segment
        if segment is None:
            return
        age = (self._clock.wall_ns() - segment.created_ns) / NS
        if not 0 <= age < self._limits.segment_age:
            return
        try:
            fd = self._files.open(segment.path, os.O_WRONLY | os.O_APPEND)
        except OSError as error:
            self._tally.failed("open", error)
            return
        segment.is_open = True
        self._open = _Open(segment, fd, self._clock.monotonic() - age, set(found.definitions))

    def add(self, record: Encoded) -> None:
        """Take a record; it is on its way to the disk after the next `flush`. Call with the guard held."""
        if not self.waiting:
            self._waiting_since = self._clock.monotonic()
        self.waiting.append(record)
        self.waiting_bytes += len(record.record) + _OVERHEAD
        while self.waiting_bytes > self._limits.memory_bytes and len(self.waiting) > 1:
            self._drop(self.waiting.popleft())

    def _drop(self, record: Encoded) -> None:
        self.waiting_bytes -= len(record.record) + _OVERHEAD
        if self._shelf.segments and record.number < self._shelf.segments[-1].end:
            return  # it waited to be written once more; the first copy may be good
        if record.number < self._cursors.slowest():
            return  # every reader has had it
        self._tally.dropped_records += 1
        self._tally.dropped_points += record.points
        if self.holes and self.holes[-1][1] == record.number:
            self.holes[-1] = (self.holes[-1][0], record.number + 1)
        else:
            self.holes = [*self.holes[1 - _MOST_HOLES :], (record.number, record.number + 1)]
        for cursor in self._cursors.all.values():
            if cursor.position <= record.number < cursor.until:
                cursor.lost_records += 1
                cursor.lost_points += record.points

    def has_written(self, end: int) -> bool:
        """Does the kernel have every record below `end`? Call with the guard held."""
        return not self.waiting or self.waiting[0].number >= end

    def wait_written(self, end: int, patience_s: float) -> None:
        """Wait until that is so, or the file system refuses. Call with the guard held; it is let go meanwhile."""
        self._progress.wait_for(lambda: self.has_written(end) or self.is_failing, patience_s)

    def flush(self) -> bool:
        """Hand everything that waits to the kernel, so that it survives the death of the process.

        False while the file system refuses: nothing is lost before memory is full, and a later call goes on.
        """
        with self._io:
            while True:
                with self._guard:
                    batch = self._next_batch()
                if not batch:
                    return True
                if self._clock.monotonic() < self._retry_at or not self._write(batch):
                    return False
                if self._unsynced_bytes > _UNSYNCED_BYTES and not self._sync_open():
                    return False

    def sync(self) -> bool:
        """Flush, and wait until the disk has it, so that it survives a power loss. False as for `flush`."""
        with self._io:
            return self.flush() and self._sync_open()

    def rotate(self) -> None:
        """Close the file being written; the next record begins a new one."""
        with self._io:
            if self._open is not None and self._sync_open():
                self._close_open()

    def close(self) -> None:
        """Write what can be written and close."""
        with self._io:
            self._retry_at = 0.0
            self.sync()
            if self._open is not None:
                self._close_open()

    def _next_batch(self) -> list[Encoded]:
        room = _WRITE_BYTES

        def fits(record: Encoded) -> bool:
            nonlocal room
            fitting = room > 0
            room -= len(record.record)
            return fitting

        return list(takewhile(fits, self.waiting))

    def _write(self, batch: list[Encoded]) -> bool:
        if self._open is not None and self._is_due(self._open) and self._sync_open():
            self._close_open()
        if self._clock.monotonic() < self._retry_at:
            return False  # closing the old file has just failed
        try:
            written = self._extend(self._open, batch) if self._open is not None else self._begin(batch)
        except OSError as error:
            self._failed("write", error, sum(len(record.record) for record in batch))
            self._abandon(is_synced=self._try_sync())
            return False
        self._tally.written_bytes += written
        self._took(batch)
        return True

    def _is_due(self, opened: _Open) -> bool:
        age = self._clock.monotonic() - opened.opened_at
        most = min(self._limits.segment_bytes, self._limits.max_bytes // 4)  # or the cap would drop all there is
        return age >= self._limits.segment_age or opened.segment.size >= most

    def _begin(self, batch: list[Encoded]) -> int:
        """Write a new file with `batch`. It gets its name once that is in it, so a name stands for whole records."""
        base = batch[0].number
        path = self._shelf.path(name_of(base))
        segment = Segment(path, base, self._clock.wall_ns(), base, is_open=True)
        records, definitions = _compose(batch, frozenset())
        content = build_head(segment) + records
        fd = self._files.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        try:
            write_all(self._files, fd, content)
            self._files.rename(path + ".tmp", path)
        except OSError:
            self._discard(fd, path + ".tmp")
            raise
        segment.size = len(content)
        self._shelf.put(segment)
        self._open = _Open(segment, fd, self._clock.monotonic(), definitions)
        return len(content)

    def _discard(self, fd: int, path: str) -> None:
        try:
            self._files.close(fd)
            self._files.unlink(path)
        except OSError as error:
            self._tally.failed("discard", error)  # the next start removes it

    def _extend(self, opened: _Open, batch: list[Encoded]) -> int:
        content, definitions = _compose(batch, opened.definitions)
        write_all(self._files, opened.fd, content)
        opened.definitions |= definitions
        with self._guard:
            opened.segment.size += len(content)
        return len(content)

    def _took(self, batch: list[Encoded]) -> None:
        """The kernel has `batch`."""
        if self._failures:
            self._shelf.tell("journal.write_recovered", records_in_memory=len(self.waiting))
        self._failures, self._retry_at, self.room_wanted = 0, 0.0, 0
        assert self._open is not None
        self._unsynced.extend(batch)
        with self._guard:
            for record in batch:
                self._unsynced_bytes += len(record.record)
                self._open.segment.note(record.number, record.time_ns, record.points)
            while self.waiting and self.waiting[0].number <= batch[-1].number:
                self.waiting_bytes -= len(self.waiting.popleft().record) + _OVERHEAD
            self._waiting_since = self._clock.monotonic()
            self._progress.notify_all()

    def _sync_open(self) -> bool:
        """Make what was written durable; on failure queue it again for a new file."""
        if self._open is None or not (self._unsynced or self._open.is_new):
            return True
        try:
            self._files.sync(self._open.fd)
            if self._open.is_new:
                self._files.sync_directory(self._directory_fd)
        except OSError as error:
            self._failed("sync", error, self._unsynced_bytes)
            self._abandon(is_synced=False)
            return False
        self._open.is_new = False
        self._unsynced.clear()
        self._unsynced_bytes = 0
        return True

    def _try_sync(self) -> bool:
        """After a failed write: is at least what was written before safe?"""
        if self._open is None:
            return True
        try:
            self._files.sync(self._open.fd)
        except OSError as error:
            self._tally.failed("sync", error)
            return False
        return True

    def _abandon(self, *, is_synced: bool) -> None:
        """Never touch the open file again; what it may have lost waits for the next one."""
        opened, self._open = self._open, None
        with self._guard:
            if not is_synced and self._unsynced:
                self.waiting.extendleft(reversed(self._unsynced))
                self.waiting_bytes += sum(len(record.record) + _OVERHEAD for record in self._unsynced)
            if opened is not None:
                opened.segment.is_open = False
        self._unsynced.clear()
        self._unsynced_bytes = 0
        if opened is not None:
            self._close_fd(opened.fd)

    def _close_open(self) -> None:
        assert self._open is not None
        with self._guard:
            self._open.segment.is_open = False
        self._close_fd(self._open.fd)
        self._open = None

    def _close_fd(self, fd: int) -> None:
        try:
            self._files.close(fd)
        except OSError as error:
            self._tally.failed("close", error)

    def _failed(self, call: str, error: OSError, size: int) -> None:
        """Note a failure and when to try again."""
        self._tally.failed(call, error)
        if not self._failures:
            self._shelf.tell("journal.write_failed", call=call, error=str(error), directory=self._shelf.directory)
        self._retry_at = self._clock.monotonic() + _RETRY_S[min(self._failures, len(_RETRY_S) - 1)]
        with self._guard:
            self._failures += 1
            self._progress.notify_all()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            self.room_wanted = max(size, self.waiting_bytes)


def _compose(batch: Sequence[Encoded], written: set[int] | frozenset[int]) -> tuple[bytes, set[int]]:
    """The bytes of `batch` for a file that holds the definitions `written`, and the ids of those it adds."""
    new = {needed.id: needed.record for record in batch for needed in record.needs if needed.id not in written}
    definitions = b"".join(new.values())
    # Twice: one damaged byte in a definition would make every record that needs it unreadable.
    return b"".join((definitions, definitions, *(record.record for record in batch))), set(new)
