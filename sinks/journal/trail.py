"""Walking through the records: from memory where they are there, else from the files."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from agent.core.model import Tick
from sinks.journal import segment as segments
from sinks.journal.appender import Appender
from sinks.journal.codec import Decoder, Encoded, Groups, Undecodable
from sinks.journal.frame import Frame, scan
from sinks.journal.segment import Segment
from sinks.journal.shelf import Shelf


class Kept(NamedTuple):
    """A recent Tick as it was appended."""

    number: int
    tick: Tick
    size: int  # of its record


class Stretch(NamedTuple):
    """What one read gave: Ticks in order, where to go on, and the numbers missing on the way as (first, end)."""

    ticks: list[Tick]
    next_position: int
    missing: list[tuple[int, int]]


class Recent:
    """The newest Ticks, so that a reader that is up to date costs no disk read and no decoding."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: deque[Kept] = deque()  # numbers without gaps

    def add(self, kept: Kept, slowest: int) -> None:
        """Keep a Tick; let go what every reader has had, or what is too much."""
        self._kept.append(kept)
        self._bytes += kept.size
        while self._kept and (self._bytes > self._most_bytes or self._kept[0].number < slowest):
            self._bytes -= self._kept.popleft().size

    def start(self) -> int | None:
        """The number of the oldest one kept, None when there is none."""
        return self._kept[0].number if self._kept else None

    def since(self, position: int, most: int) -> list[Kept]:
        """At most `most` from `position` on; empty unless that one is kept."""
        start = self.start()
        if start is None or position < start:
            return []
        return list(islice(self._kept, position - start, position - start + most))


class Trail:
    """One walk; used by one thread at a time. The segment it is in stays read between calls."""

    def __init__(self, shelf: Shelf, appender: Appender, recent: Recent, groups: Groups) -> None:
        self._shelf = shelf
        self._guard: threading.Lock = shelf.guard
        self._appender = appender
        self._recent = recent
        self._groups = groups
        self._inside: Segment | None = None
        self._frames: Iterator[Frame] = iter(())
        self._decoder = Decoder(groups)
        self._at = -1  # the number `_frames` goes on from
        self._held_back: Frame | None = None  # read, but beyond the last call's limits

    def read(self, position: int, until: int, max_records: int, max_bytes: int) -> Stretch:
        """Ticks from `position` on, at least one where there is one, within the limits otherwise."""
        stretch = _Growing(position, until, max_records, max_bytes)
        while stretch.has_room and self._step(stretch):
            pass
        return Stretch(stretch.ticks, stretch.position, stretch.missing)

    def _step(self, stretch: _Growing) -> bool:
        """Add what the next place has. False when there is nothing more."""
        with self._guard:
            kept = self._recent.since(stretch.position, stretch.room)
            waiting = [] if kept else self._waiting(stretch.position, stretch.room)
            found = None if kept or waiting else self._on_disk(stretch.position)
            later = self._later(stretch.position) if not (kept or waiting or found) else None
        if kept:
            self._leave()
            return all(stretch.take(item.number, item.tick, item.size) for item in kept)
        if waiting:
            return self._decode(waiting, stretch)
        if found is None:
            self._leave()
            return later is not None and stretch.skip_to(later)
        return self._walk(found, stretch)

    def _waiting(self, position: int, most: int) -> list[Encoded]:
        """Records not written yet."""
        waiting = self._appender.waiting
        if not waiting or position < waiting[0].number:
            return []
        return list(islice((record for record in waiting if record.number >= position), most))

    def _on_disk(self, position: int) -> Segment | None:
        """The segment to read, up to where memory goes on: what waits to be written again is surer there."""
        found, waiting = self._shelf.find(position), self._appender.waiting
        if found is not None and waiting and waiting[0].number < found.end:
            return replace(found, end=waiting[0].number) if found.base < waiting[0].number else None
        return found

    def _later(self, position: int) -> int | None:
        """Where memory goes on after a hole."""
        waiting = self._appender.waiting
        starts = (self._recent.start(), waiting[0].number if waiting else None)
        return min((start for start in starts if start is not None and start > position), default=None)

    def _decode(self, waiting: list[Encoded], stretch: _Growing) -> bool:
        decoder = Decoder(self._groups)
        for definition in {needed.id: needed for record in waiting for needed in record.needs}.values():
            for frame in scan(definition.record):
                decoder.define(frame)
        for record in waiting:
            for frame in scan(record.record):
                if not stretch.take(frame.number, decoder.tick(frame), len(record.record)):
                    return False
        return True

    def _walk(self, found: Segment, stretch: _Growing) -> bool:
        """Go through a segment until it ends or the stretch is full."""
        goes_on = self._inside is not None and self._inside.path == found.path and self._at == stretch.position
        if not goes_on and not self._enter(found):
            return True  # its file has gone or changed its name: look again
        while (frame := self._next_record()) is not None and frame.number < found.end:
            tick = self._tick(frame) if frame.number >= stretch.position else None
            if tick is None:
                continue
            if not stretch.take(frame.number, tick, frame.stop - frame.start):
                self._held_back, self._at = frame, stretch.position
                return False
            self._at = stretch.position
            if not stretch.has_room:
                return False
        grown = self._inside is not None and found.end > self._inside.end
        self._leave()
        # A file that is being written may have grown since it was read; else its end has been reached.
        return True if grown else stretch.skip_to(found.end)

    def _enter(self, found: Segment) -> bool:
        """Read a segment's file. False when it cannot be read under that name (any more)."""
        self._leave()
        try:
            data = self._shelf.files.read(found.path, found.size if found.is_open else -1)
        except FileNotFoundError:
            with self._guard:
                current = self._shelf.find(found.base)
            if current is not None and current.path == found.path:
                self._shelf.take_off(found.path)
            return False
        except OSError as error:
            self._shelf.tally.failed("read", error)
            self._shelf.set_aside(found.path, str(error))
            return False
        self._inside, self._frames, self._decoder = found, segments.records(data), Decoder(self._groups)
        return True

    def _leave(self) -> None:
        self._inside, self._frames, self._held_back, self._at = None, iter(()), None, -1

    def _next_record(self) -> Frame | None:
        """The next record that is a Tick; definitions on the way to it are learned. None at the end of the file."""
        held, self._held_back = self._held_back, None
        if held is not None:
            return held
        for frame in self._frames:
            if frame.kind in segments.TICKS:
                return frame
            if frame.kind in segments.DEFINITIONS:
                self._learn(frame)
            else:
                self._shelf.tally.unknown_records += 1
        return None

    def _learn(self, definition: Frame) -> None:
        try:
            self._decoder.define(definition)
        except Undecodable:
            pass  # the Ticks that need it stay missing, which is counted

    def _tick(self, frame: Frame) -> Tick | None:
        """The Tick of a record, None when it cannot be decoded: its number stays missing, which is counted."""
        try:
            return self._decoder.tick(frame)
        except Undecodable:
            return None


class _Growing:
    """A Stretch while it is being filled."""

    def __init__(self, position: int, until: int, max_records: int, max_bytes: int) -> None:
        self.ticks: list[Tick] = []
        self.position = position
        self.missing: list[tuple[int, int]] = []
        self._until = until
        self._max_records = max_records
        self._bytes_left = max_bytes

    @property
    def has_room(self) -> bool:
        return self.position < self._until and self.room > 0 and self._bytes_left > 0

    @property
    def room(self) -> int:
        return self._max_records - len(self.ticks)

    def take(self, number: int, tick: Tick, size: int) -> bool:
        """Add a Tick. False when it does not fit any more."""
        if number >= self._until or not self.has_room or (self.ticks and size > self._bytes_left):
            return False
        self.skip_to(number)
        self.ticks.append(tick)
        self._bytes_left -= size
        self.position = number + 1
        return True

    def skip_to(self, number: int) -> bool:
        """Pass over numbers nobody has. False at the end of what is wanted."""
        number = min(number, self._until)
        if number > self.position:
            self.missing.append((self.position, number))
            self.position = number
        return self.position < self._until
