"""The files of a journal, oldest first: finding them at start, looking one up, setting one aside, letting one go."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from dataclasses import replace
from operator import attrgetter

from agent.core.clock import NS, Clock
from sinks.journal.files import Files
from sinks.journal.segment import HEAD_BYTES, Finding, Segment, base_of, inspect, name_of, parse_head
from sinks.journal.tally import Tally, Tell

_MOST_SET_ASIDE = 8  # files kept for someone to look at
_BEYOND_NEWER = 2**32  # numbers left free after a newer version's file, which we cannot count
_by_base = attrgetter("base")


class Shelf:
    """All segments. `guard` is held for every change of the list or of a Segment, never during a call to `files`."""

    def __init__(self, directory: str, files: Files, clock: Clock, guard: threading.Lock, tally: Tally,
                 tell: Tell) -> None:  # fmt: skip
        self.directory = directory
        self.files = files
        self.clock = clock
        self.guard = guard
        self.tally = tally
        self.tell = tell
        self.segments: list[Segment] = []
        self._floor = 1  # no record gets a lower number: files we could not count had them

    def load(self, names: list[str]) -> Finding | None:
        """Find every segment. The answer is the newest one when it may be continued, None when a new one must begin."""
        bases: dict[int, list[bool]] = {}
        for name in sorted(names):
            if name.endswith(".tmp"):
                self._unlink(self.path(name))
            elif (found := base_of(name)) is not None:
                bases.setdefault(found[0], []).append(found[1])
        last: Finding | None = None
        for base in sorted(bases):
            last = None
            for packed in sorted(bases[base], reverse=True):  # the packed form is whole before the plain one goes
                path = self.path(name_of(base, packed=packed))
                if last is not None and last.segment is not None:
                    self._unlink(path)
                    continue
                last = self._look(path, base, packed)
                if last.segment is not None:
                    self.segments.append(last.segment)
        return self._continuable(last)

    def _look(self, path: str, base: int, packed: bool) -> Finding:
        """Judge one file and put it where it belongs."""
        try:
            size = self.files.size(path)
            if packed and (told := parse_head(path, base, self.files.read(path, HEAD_BYTES), size)):
                return Finding("good", told)
            found = inspect(path, base, self.files.read(path))
        except OSError as error:
            self.tally.failed("read", error)
            self._set_aside(path, str(error))
            return Finding("damaged")
        if found.verdict == "empty":
            self._unlink(path)
        elif found.verdict == "newer":
            self._floor = max(self._floor, base + _BEYOND_NEWER)
            self.tally.newer.append(os.path.basename(path))
            self.tell("journal.newer_file", file=path, effect="left alone for the version that wrote it")
        elif found.verdict == "damaged":
            self._floor = max(self._floor, base)
            self._set_aside(path, "no readable record")
        return found

    def _continuable(self, last: Finding | None) -> Finding | None:
        """Cut a torn tail off the newest segment; None unless it is then whole."""
        if last is None or last.segment is None or last.segment.is_packed:
            return None
        segment = last.segment
        if torn := segment.size - last.good_bytes:
            try:
                self.files.cut(segment.path, last.good_bytes)
            except OSError as error:
                self.tally.failed("truncate", error)
                return None
            segment.size = last.good_bytes
            self.tally.torn_bytes += torn
            self.tell("journal.tail_cut", file=segment.path, bytes=torn)
        return last if last.is_whole and self._floor <= segment.end else None

    def next_number(self) -> int:
        """The lowest number no file has used."""
        return max([self._floor, *(segment.end for segment in self.segments)])

    def find(self, position: int) -> Segment | None:
        """A copy of the segment that holds `position`, else of the next later one. Call with the guard held.

        Its `end` is where the next segment takes over: after a failed sync records are written there once more.
        """
        at = max(bisect_right(self.segments, position, key=_by_base) - 1, 0)
        for index in range(at, len(self.segments)):
            segment = self.segments[index]
            end = segment.end
            if index + 1 < len(self.segments):
                end = min(end, self.segments[index + 1].base)
            if position < end:
                return replace(segment, end=end)
        return None

    def put(self, segment: Segment) -> None:
        """Add the newest segment; an emptied one of the same name was replaced by it."""
        with self.guard:
            while self.segments and self.segments[-1].base >= segment.base:
                self.segments.pop()
            self.segments.append(segment)

    def take_off(self, path: str) -> None:
        """Forget the segment at `path`, if there is one still."""
        with self.guard:
            self.segments = [segment for segment in self.segments if segment.path != path]

    def set_aside(self, path: str, why: str) -> None:
        """Rename a segment that cannot be read; what it held is lost to the readers that wanted it."""
        self.take_off(path)
        self._set_aside(path, why)

    def delete(self, segment: Segment) -> bool:
        """Let a segment go. False when the file system refuses; it stays then."""
        if not self._unlink(segment.path):
            return False
        self.take_off(segment.path)
        return True

    def bytes(self) -> int:
        """Disk space of all segments. Call with the guard held."""
        return sum(segment.size for segment in self.segments)

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def _set_aside(self, path: str, why: str) -> None:
        aside = f"{path}.corrupt-{self.clock.wall_ns() // NS}"
        try:
            self.files.rename(path, aside)
            kept = sorted((n for n in self.files.list(self.directory) if ".corrupt-" in n), key=_stamp)
            for name in kept[:-_MOST_SET_ASIDE]:
                self._unlink(self.path(name))
        except OSError as error:
            self.tally.failed("rename", error)
        self.tally.set_aside.append(os.path.basename(aside))
        self.tell("journal.set_aside", file=aside, error=why)

    def _unlink(self, path: str) -> bool:
        try:
            self.files.unlink(path)
        except FileNotFoundError:
            pass  # someone was faster
        except OSError as error:
            self.tally.failed("unlink", error)
            return False
        return True


def _stamp(name: str) -> str:
    return name.rsplit("-", 1)[-1]
