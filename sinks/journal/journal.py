"""The journal: every Tick, on disk, until every sink has had it.

Three kinds of threads meet here: one appends, any may flush, sync and tidy, and each reader has its own. `guard` is
held for moments only, never during a call to the file system, so neither appending nor reading waits for a disk.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from agent.core.clock import NS, Clock
from agent.core.errors import VigilhostError
from agent.core.model import Tick
from sinks.journal.appender import Appender
from sinks.journal.codec import Encoder, Groups
from sinks.journal.cursor import Cursor, Cursors
from sinks.journal.files import Files, OsFiles
from sinks.journal.limits import Limits
from sinks.journal.reader import Lag, Reader
from sinks.journal.shelf import Shelf
from sinks.journal.tally import Tally, Tell, tell_nobody
from sinks.journal.trail import Kept, Recent, Trail
from sinks.journal.upkeep import Upkeep


class JournalError(VigilhostError):
    """The directory cannot hold a journal, or another process has it."""


@dataclass(frozen=True, slots=True)
class CursorState:
    """A reader as /metrics and /health show it."""

    lag: Lag
    position: int
    lost_records: int
    lost_points: int
    damaged_records: int


@dataclass(frozen=True, slots=True)
class Stats:
    """The journal as /metrics and /health show it."""

    segments: int
    bytes: int  # on disk
    waiting_records: int  # in memory, not written yet
    waiting_bytes: int
    next_number: int
    is_failing: bool  # the last call to the disk failed or does not come back, or whoever writes has met a bug
    tally: Tally
    cursors: dict[str, CursorState]


class Journal:
    """An open journal. Whatever state its files are in, it opens; what it had to do to them is told and counted."""

    def __init__(self, directory: str, clock: Clock, limits: Limits | None = None, *, files: Files | None = None,
                 tell: Tell = tell_nobody, is_temporary: bool = False) -> None:  # fmt: skip
        """Open the journal in `directory`, made when missing; a temporary one's is removed at `close`.

        Raise JournalError when the directory cannot be used at all or another process has this journal open.
        """
        limits, files = limits or Limits(), files or OsFiles()
        self.guard = threading.Lock()
        self.tally = Tally()
        self._clock = clock
        self._is_temporary = is_temporary
        self._directory_fd, names = _take(directory, files)
        self._files = files
        self._groups = Groups()
        self._encoder = Encoder(self._groups)
        self._next = 1
        self.want_written: Callable[[], object] = _nobody_writes  # asks whoever calls `flush` to do so now
        self.is_broken = False  # whoever calls `flush` has met a bug
        self._shelf = Shelf(directory, files, clock, self.guard, self.tally, tell)
        self._cursors = Cursors(directory, self._directory_fd, files, self.guard, self.tally, tell)
        self._appender = Appender(self._shelf, self._cursors, clock, limits, self._directory_fd)
        self._upkeep = Upkeep(self._shelf, self._cursors, self._appender, limits, self._directory_fd)
        self._recent = Recent(limits.recent_bytes)
        self._cursors.load(names, clock.wall_ns() // NS)
        last = self._shelf.load(names)
        if last is not None:
            self._appender.resume(last)
        for cursor in self._cursors.all.values():
            if cursor.durable < 0:  # its file could not be read
                cursor.position = self._oldest()
        # A reader may have had records that a crash then took: their numbers must not come again.
        self._next = max([self._shelf.next_number(), *(c.position for c in self._cursors.all.values())])

    def append(self, tick: Tick) -> None:
        """Add a Tick. Call from one thread. Costs microseconds, never waits; on disk after the next `flush`."""
        record = self._encoder.encode(self._next, tick)
        size = len(record.record)
        with self.guard:
            self._next += 1
            self._appender.add(record)
            self._recent.add(Kept(record.number, tick, size), self._cursors.slowest())
            self.tally.appended_records += 1
            self.tally.appended_points += record.points

    def flush(self) -> bool:
        """Write what was appended: call it each second. False while the disk takes nothing; memory holds it then."""
        self._cursors.persist_names()
        return self._appender.flush()

    def sync(self) -> bool:
        """Flush, and make records and cursors survive a power loss: call it each 5 s, where it may wait for a disk."""
        self._cursors.persist_names()
        is_synced = self._appender.sync()
        return self._cursors.persist() and is_synced

    def tidy(self) -> None:
        """Compress closed files and apply the limits: call it each 10 s, where it may wait for a disk."""
        self._upkeep.run()

    def reader(self, name: str, start: Literal["end", "oldest"] = "end") -> Reader:
        """The reader of that name, where it left off; a new one starts at `start`. Raise ValueError for a bad name.

        Costs no call to the disk: a new one is durable with the next `flush`, before what is appended from now on.
        """
        with self.guard:
            cursor = self._cursors.all.get(name)
            position = self._oldest() if start == "oldest" else self._next
        if cursor is None:
            cursor = Cursor(name, position)
            self._cursors.add(cursor)
        return self._reader(cursor)

    def readers(self) -> list[str]:
        """The names of all readers, those of former configurations too: `remove` them, or their backlog is kept."""
        with self.guard:
            return sorted(self._cursors.all)

    def remove(self, name: str) -> None:
        """Forget a reader and what was kept for it; its file goes with the next `flush`."""
        self._cursors.remove(name)

    def ticks_since(self, time_ns: int) -> Iterator[Tick]:
        """Every Tick of `time_ns` or later that is still here, as appended: history's head after a crash."""
        trail = self._trail()
        with self.guard:
            late = [segment.base for segment in self._shelf.segments if segment.last_ns >= time_ns]
            waiting = self._appender.waiting
            position = late[0] if late else waiting[0].number if waiting else self._next
            until = self._next
        while (stretch := trail.read(position, until, 200, 1024 * 1024)).next_position > position:
            position = stretch.next_position
            yield from (tick for tick in stretch.ticks if tick.time_ns >= time_ns)

    def purge(self, name: str | None = None) -> int:
        """Forget what one reader has not had, or all there is. How many records the one furthest behind gave up."""
        with self.guard:
            chosen = [cursor for cursor in self._cursors.all.values() if name in (None, cursor.name)]
            given_up = max((min(self._next, c.until) - c.position for c in chosen), default=0)
            for cursor in chosen:
                cursor.position = min(self._next, cursor.until)
        if name is None:
            self.flush()
            self._appender.rotate()
            self._upkeep.purge()
        else:
            self._cursors.persist()
        return max(given_up, 0)

    def close(self) -> None:
        """Write everything, cursors too, and let another process open the journal."""
        self._cursors.persist_names()
        self._appender.close()
        self._cursors.persist()
        self._files.close(self._directory_fd)
        if self._is_temporary:
            shutil.rmtree(self._shelf.directory, ignore_errors=True)

    @property
    def stats(self) -> Stats:
        with self.guard:
            cursors = list(self._cursors.all.values())
        states = {
            c.name: CursorState(self.lag_of(c), c.position, c.lost_records, c.lost_points, c.damaged_records)
            for c in cursors
        }
        with self.guard:
            appender = self._appender
            return Stats(len(self._shelf.segments), self._shelf.bytes(), len(appender.waiting), appender.waiting_bytes,
                         self._next, appender.is_failing or self.is_broken, self.tally, states)  # fmt: skip

    # What readers ask.

    def until_written(self, end: int, patience_s: float) -> int:
        """Up to which number a reader that wants the records below `end` may read, once they are written.

        It never writes itself: it asks, and waits. After `patience_s`, or where the disk is known to take nothing, the
        answer is the same as if they were: readings go out even where no disk works.
        """
        with self.guard:
            end = min(end, self._next)
            is_answered = self._appender.has_written(end) or self._appender.is_failing or self.is_broken
        if not is_answered:
            self.want_written()
        with self.guard:
            if not is_answered:
                self._appender.wait_written(end, patience_s)
            waiting = self._appender.waiting
            return max(end, waiting[0].number if waiting else self._next)

    def lag_of(self, cursor: Cursor) -> Lag:
        """How far behind the end (a backlog reader: its own end) a cursor is."""
        with self.guard:
            end = min(self._next, cursor.until)
            if cursor.position >= end:
                return Lag(0, 0, 0.0)
            waiting = self._appender.waiting
            size = sum(len(r.record) for r in waiting if cursor.position <= r.number < end)
            for segment in self._shelf.segments:
                left = min(segment.end, end) - max(segment.base, cursor.position)
                if left > 0:
                    size += segment.size * left // (segment.end - segment.base)
            oldest_ns = self._oldest_ns(cursor)
        age_s = (self._clock.wall_ns() - oldest_ns) / NS
        return Lag(end - cursor.position, size, max(age_s, 0.0))

    def _oldest_ns(self, cursor: Cursor) -> int:
        """About when the first record a cursor has not had was measured."""
        if kept := self._recent.since(cursor.position, 1):
            return kept[0].tick.time_ns
        segment = self._shelf.find(cursor.position)
        if segment is not None:
            return max(segment.first_ns, cursor.time_ns)
        waiting = self._appender.waiting
        return next((r.time_ns for r in waiting if r.number >= cursor.position), self._clock.wall_ns())

    def known_lost(self, first: int, end: int) -> int:
        """How many of these numbers were dropped from memory, and counted then. Call with the guard held."""
        return sum(max(min(end, hole[1]) - max(first, hole[0]), 0) for hole in self._appender.holes)

    def fork(self, cursor: Cursor, name: str) -> Reader:
        """See Reader.fork. Raise ValueError when there is a reader of that name."""
        with self.guard:
            if name in self._cursors.all:
                raise ValueError(f"journal reader {name!r}: exists already; remove it when its backlog is delivered")
            backlog = Cursor(name, cursor.position, min(self._next, cursor.until), cursor.time_ns)
        self._cursors.add(backlog)
        with self.guard:
            cursor.heir = backlog  # on disk the old one moves once the new one is there
            cursor.position = max(cursor.position, backlog.until)
        return self._reader(backlog)

    def _oldest(self) -> int:
        """The number of the oldest record there is."""
        first = self._shelf.find(0)
        waiting = self._appender.waiting
        return first.base if first else waiting[0].number if waiting else self._next

    def _reader(self, cursor: Cursor) -> Reader:
        return Reader(self, cursor, self._trail())

    def _trail(self) -> Trail:
        return Trail(self._shelf, self._appender, self._recent, self._groups)


def _nobody_writes() -> None:
    """For a journal whose owner flushes it when it likes."""


def _take(directory: str, files: Files) -> tuple[int, list[str]]:
    """An open and locked descriptor of the directory, and the names in it."""
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        fd = files.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise JournalError(f"journal {directory}: {error.strerror}; give a directory the agent may write") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd, files.list(directory)
    except BlockingIOError as error:
        files.close(fd)
        raise JournalError(
            f"journal {directory}: another process has it open; stop that one or give another state directory"
        ) from error
    except OSError as error:
        files.close(fd)
        raise JournalError(f"journal {directory}: {error.strerror}; give a directory that can be read") from error
