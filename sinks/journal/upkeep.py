"""Packing closed segments and letting old ones go."""

from __future__ import annotations

import os
import threading

from agent.core.clock import NS
from sinks.journal.appender import Appender
from sinks.journal.cursor import Cursors
from sinks.journal.files import write_all
from sinks.journal.limits import Limits
from sinks.journal.segment import Segment, name_of, pack
from sinks.journal.shelf import Shelf

_PACK_RETRY_S = 60.0
_ROOM_FOR_HEAD = 128 * 1024  # a new segment begins with its definitions


class Upkeep:
    """What needs doing now and then, on a thread that may wait for the disk."""

    def __init__(self, shelf: Shelf, cursors: Cursors, appender: Appender, limits: Limits, directory_fd: int) -> None:
        self._shelf = shelf
        self._cursors = cursors
        self._appender = appender
        self._limits = limits
        self._directory_fd = directory_fd
        self._turn = threading.Lock()  # one at a time
        self._pack_at = 0.0

    def run(self) -> None:
        """Delete what nobody wants, pack what was closed, then delete what the limits do not allow."""
        with self._turn:
            self._cursors.persist()  # a place must be durable before what lies before it goes
            while (oldest := self._oldest()) is not None and self._is_had(oldest) and self._shelf.delete(oldest):
                pass
            if self._shelf.clock.monotonic() >= self._pack_at:
                for segment in self._closed():
                    self._pack(segment)
            while (oldest := self._oldest()) is not None and (cap := self._cap_hit(oldest)):
                self._lose(oldest, cap)
                if not self._shelf.delete(oldest):
                    break

    def purge(self) -> None:
        """Delete every closed segment; the caller has moved the cursors."""
        with self._turn:
            self._cursors.persist()
            while (oldest := self._oldest()) is not None and self._shelf.delete(oldest):
                pass

    def _oldest(self) -> Segment | None:
        with self._shelf.guard:
            oldest = self._shelf.find(0)
            return oldest if oldest is not None and self._is_settled(oldest) else None

    def _is_settled(self, segment: Segment) -> bool:
        """True when nothing will be written to this file or to one of its name. Call with the guard held."""
        waiting = self._appender.waiting
        return not segment.is_open and not (waiting and waiting[0].number < segment.end)

    def _age_s(self, segment: Segment) -> float:
        return (self._shelf.clock.wall_ns() - segment.last_ns) / NS

    def _is_had(self, segment: Segment) -> bool:
        """True when every reader has had the segment and history does not need it."""
        with self._shelf.guard:
            readers = self._cursors.all.values()
            is_had = all(cursor.has_had(segment.base, segment.end) for cursor in readers)
        return is_had and self._age_s(segment) > self._limits.keep

    def _cap_hit(self, segment: Segment) -> str:
        """The limit for which the oldest segment must go, empty when it may stay."""
        with self._shelf.guard:
            total = self._shelf.bytes()
        if total > self._limits.max_bytes:
            return "max_bytes"
        if self._age_s(segment) > self._limits.max_age:
            return "max_age"
        return "min_free_bytes" if self._lacks_room() else ""

    def _lacks_room(self) -> bool:
        wanted = self._appender.room_wanted
        floor = max(self._limits.min_free_bytes, wanted + _ROOM_FOR_HEAD if wanted else 0)
        if not floor:
            return False
        try:
            return self._shelf.files.free_bytes(self._shelf.directory) < floor
        except OSError as error:
            self._shelf.tally.failed("statvfs", error)
            return False

    def _lose(self, segment: Segment, cap: str) -> None:
        """Move every reader that wanted more of `segment` past it, and count."""
        records, points = segment.end - segment.base, segment.points
        worst = 0
        with self._shelf.guard:
            for cursor in self._cursors.all.values():
                lost = min(segment.end, cursor.until) - max(cursor.position, segment.base)
                if lost > 0 and records:
                    cursor.lost_records += lost
                    cursor.lost_points += points * lost // records
                    cursor.position = min(segment.end, cursor.until)
                    worst = max(worst, lost)
            if worst:
                self._shelf.tally.dropped_records += worst
                self._shelf.tally.dropped_points += points * worst // records
        self._cursors.persist()
        if worst:
            self._shelf.tell("journal.dropped", records=worst, limit=cap, file=segment.path)

    def _closed(self) -> list[Segment]:
        with self._shelf.guard:
            return [s for s in self._shelf.segments if not s.is_packed and self._is_settled(s)]

    def _pack(self, segment: Segment) -> None:
        """Replace a plain file by its packed form; at every moment one of them is whole under its name."""
        shelf, files = self._shelf, self._shelf.files
        plain, packed = segment.path, shelf.path(name_of(segment.base, packed=True))
        try:
            data = files.read(plain)
        except OSError as error:
            shelf.tally.failed("read", error)
            shelf.set_aside(plain, str(error))
            return
        content = pack(segment, data)
        try:
            fd = files.open(packed + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            try:
                write_all(files, fd, content)
                files.sync(fd)
            finally:
                files.close(fd)
            files.rename(packed + ".tmp", packed)
            files.sync_directory(self._directory_fd)
        except OSError as error:
            shelf.tally.failed("pack", error)
            self._pack_at = shelf.clock.monotonic() + _PACK_RETRY_S
            self._discard(packed + ".tmp")
            return
        shelf.tally.packed_bytes += len(content)
        with shelf.guard:
            segment.path, segment.size, segment.is_packed = packed, len(content), True
        self._discard(plain)

    def _discard(self, path: str) -> None:
        try:
            self._shelf.files.unlink(path)
        except FileNotFoundError:
            pass  # it was never made
        except OSError as error:
            self._shelf.tally.failed("unlink", error)  # the next start removes it
