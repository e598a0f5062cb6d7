"""How far each reader has come, kept across restarts.

A cursor is a file of two slots, written in turn and in place: that needs no free space, so a full disk does not stop a
backlog from shrinking, and a torn write leaves the other slot.
"""

from __future__ import annotations

import os
import struct
import threading
from dataclasses import dataclass
from urllib.parse import quote, unquote
from zlib import crc32

from sinks.journal.files import Files
from sinks.journal.tally import Tally, Tell

ENDLESS = 2**64 - 1
_SUFFIX = ".cursor"
_SLOT = struct.Struct("<16sQQQq")  # magic with version, serial, position, until, time of the last record had
_MAGIC = b"vigilhost-curs-1"
_SLOT_BYTES = 512  # one sector each
_LONGEST_NAME = 150


@dataclass(slots=True)
class Cursor:
    """One reader's place: it has had every record below `position` and wants none from `until` on."""

    name: str
    position: int
    until: int = ENDLESS
    time_ns: int = 0  # of the last record it has had; 0 before the first
    durable: int = -1  # the position that is on disk, -1 for none
    heir: Cursor | None = None  # has what this one gave up; to be on disk before this one moves there
    serial: int = 0  # of the newest slot on disk
    lost_records: int = 0  # dropped before this reader had them
    lost_points: int = 0
    damaged_records: int = 0

    def has_had(self, base: int, end: int) -> bool:
        """True when, as the disk knows it, nothing in `base` to `end` is wanted any more."""
        return self.durable >= min(end, self.until) or base >= self.until


class Cursors:
    """All cursors of a journal. `guard` is held for every change of a Cursor, never while writing.

    Once they are loaded only `persist` and `persist_names` touch the disk.
    """

    def __init__(
        self, directory: str, directory_fd: int, files: Files, guard: threading.Lock, tally: Tally, tell: Tell
    ) -> None:
        self._directory = directory
        self._directory_fd = directory_fd
        self._files = files
        self._guard = guard
        self._tally = tally
        self._tell = tell
        self._writing = threading.Lock()
        self.all: dict[str, Cursor] = {}
        self._gone: set[str] = set()  # readers whose files are still there

    def load(self, names: list[str], stamp: int) -> None:
        """Read every cursor file. An unreadable one is set aside and its reader starts at the oldest record again."""
        for name in names:
            if not name.endswith(_SUFFIX):
                continue
            path = os.path.join(self._directory, name)
            reader = unquote(name.removesuffix(_SUFFIX))
            try:
                cursor = _newest(reader, self._files.read(path, 2 * _SLOT_BYTES))
            except OSError as error:
                self._tally.failed("read", error)
                cursor = None
            if cursor is None:
                self._set_aside(path, stamp)
                cursor = Cursor(reader, 0)
            self.all[reader] = cursor

    def add(self, cursor: Cursor) -> None:
        """Register a reader; durable before any later record. Raise ValueError for a name no file can have."""
        if not cursor.name or len(quote(cursor.name, safe="")) > _LONGEST_NAME:
            raise ValueError(f"journal reader {cursor.name!r}: not a usable name; give one of 1 to 50 characters")
        with self._guard:
            self.all[cursor.name] = cursor

    def remove(self, name: str) -> None:
        """Forget a reader: nothing is kept for it any longer. Its file goes with the next `persist`."""
        with self._guard:
            if self.all.pop(name, None) is not None:
                self._gone.add(name)

    def slowest(self) -> int:
        """The lowest position of all, ENDLESS without readers. Call with the guard held."""
        return min((cursor.position for cursor in self.all.values() if cursor.position < cursor.until), default=ENDLESS)

    def persist_names(self) -> None:
        """`persist` where readers have come or gone: call it before records are written.

        So no record is on disk whose reader a crash would forget.
        """
        with self._guard:
            is_due = bool(self._gone) or any(cursor.durable < 0 for cursor in self.all.values())
        if is_due:
            self.persist()

    def persist(self) -> bool:
        """Write every cursor that has moved. False when one could not be written; the next call tries again."""
        with self._writing:
            with self._guard:
                gone, self._gone = self._gone, set()
            for name in gone:
                self._unlink(name)
            with self._guard:
                moved = [c for c in self.all.values() if c.position != c.durable]
            moved.sort(key=lambda cursor: cursor.durable)  # new ones first: another may wait for them
            written = [self._is_free(cursor) and self._write(cursor) for cursor in moved]
            return all(written)

    def _unlink(self, name: str) -> None:
        try:
            self._files.unlink(self._path(name))
        except FileNotFoundError:
            pass  # never written
        except OSError as error:
            self._tally.failed("unlink", error)

    def _is_free(self, cursor: Cursor) -> bool:
        """May its place be written: is what it gave up safe with another, or delivered by that one?"""
        with self._guard:
            heir = cursor.heir
            if heir is not None and heir.durable < 0 and self.all.get(heir.name) is heir:
                return False
            cursor.heir = None
        return True

    def _write(self, cursor: Cursor) -> bool:
        with self._guard:
            position, until, time_ns = cursor.position, cursor.until, cursor.time_ns
        serial = cursor.serial + 1
        slot = _SLOT.pack(_MAGIC, serial, position, until, time_ns)
        slot += crc32(slot).to_bytes(4, "little")
        if cursor.durable < 0:
            slot = slot.ljust(_SLOT_BYTES, b"\0") + slot  # take the space of both slots while there is some
        try:
            fd = self._files.open(self._path(cursor.name), os.O_WRONLY | os.O_CREAT)
            try:
                if self._files.write_at(fd, slot, 0 if cursor.durable < 0 else serial % 2 * _SLOT_BYTES) != len(slot):
                    raise OSError("short write")
                self._files.sync(fd)
            finally:
                self._files.close(fd)
            if cursor.durable < 0:
                self._files.sync_directory(self._directory_fd)  # so that the new name survives a power loss
        except OSError as error:
            self._tally.failed("cursor", error)
            return False
        with self._guard:
            cursor.serial, cursor.durable = serial, position
        return True

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, quote(name, safe="") + _SUFFIX)

    def _set_aside(self, path: str, stamp: int) -> None:
        aside = f"{path}.corrupt-{stamp}"
        try:
            self._files.rename(path, aside)
        except OSError as error:
            self._tally.failed("rename", error)
        self._tally.set_aside.append(os.path.basename(aside))
        self._tell("journal.cursor_set_aside", file=aside, effect="its reader starts at the oldest record")


def _newest(name: str, content: bytes) -> Cursor | None:
    """The cursor in a file, None when neither slot is good."""
    best: Cursor | None = None
    for start in (0, _SLOT_BYTES):
        slot = content[start : start + _SLOT.size + 4]
        if len(slot) < _SLOT.size + 4 or crc32(slot[:-4]) != int.from_bytes(slot[-4:], "little"):
            continue
        magic, serial, position, until, time_ns = _SLOT.unpack_from(slot)
        if magic == _MAGIC and (best is None or serial > best.serial):
            best = Cursor(name, position, until, time_ns, durable=position, serial=serial)
    return best
