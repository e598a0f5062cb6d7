"""One reader of the journal: a sink's place in it, and what it has had."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agent.core.model import Tick
from sinks.journal.cursor import Cursor
from sinks.journal.trail import Stretch, Trail

if TYPE_CHECKING:
    from sinks.journal.journal import Journal

_MOST_MISSING = 2**31  # more was not lost, it was left free after a newer version's file


class Batch(NamedTuple):
    """Ticks in order; commit `next_position` when they have been delivered."""

    ticks: list[Tick]
    next_position: int


class Lag(NamedTuple):
    """What a reader has not had yet."""

    records: int
    bytes: int  # on disk, estimated within a segment
    oldest_age_s: float  # 0 when nothing is left


class Reader:
    """Used by one thread at a time; each reader may have its own thread."""

    def __init__(self, journal: Journal, cursor: Cursor, trail: Trail) -> None:
        self._journal = journal
        self._cursor = cursor
        self._trail = trail
        self._judged = 0  # damage below this number has been counted
        self._last_ns = 0  # time of the last Tick read

    @property
    def name(self) -> str:
        return self._cursor.name

    @property
    def position(self) -> int:
        """The number of the next record it wants."""
        return self._cursor.position

    @property
    def is_done(self) -> bool:
        """True when a backlog reader has had all it is for; `journal.remove` it then."""
        return self._cursor.position >= self._cursor.until

    def read(self, max_records: int = 1000, max_bytes: int = 1024 * 1024, *, after: int | None = None) -> Batch | None:
        """What comes after the last commit, or after the batch that ended at `after`; None when there is nothing yet.

        The same call gives the same Ticks until they are committed. They are shared: nobody may change them.
        """
        return self._read(max(after or 0, self._cursor.position), self._cursor.until, max_records, max_bytes)

    def read_written(self, max_records: int, max_bytes: int, patience_s: float) -> Batch | None:
        """As `read`, of what the journal has written; what it has not is waited for, `patience_s` at most.

        What a sink has, the journal must have: the next life measures the second of a crash once more, and a store
        would keep a value of it that no journal knows.
        """
        position, until = self._cursor.position, self._cursor.until
        written = self._journal.until_written(min(position + max_records, until), patience_s)
        return self._read(position, min(written, until), max_records, max_bytes)

    def _read(self, start: int, until: int, max_records: int, max_bytes: int) -> Batch | None:
        stretch = self._trail.read(start, until, max_records, max_bytes)
        self._count_missing(stretch)
        if stretch.ticks:
            self._last_ns = stretch.ticks[-1].time_ns
            return Batch(stretch.ticks, stretch.next_position)
        if start == self._cursor.position and stretch.next_position > start:
            self.commit(stretch.next_position)  # only damage lay there
        return None

    def commit(self, position: int) -> None:
        """Everything before `position` is delivered. Durable with the journal's next `sync`, costs nothing now."""
        with self._journal.guard:
            if position > self._cursor.position:
                self._cursor.position = position
                self._cursor.time_ns = self._last_ns or self._cursor.time_ns

    def lag(self) -> Lag:
        """How far behind this reader is."""
        return self._journal.lag_of(self._cursor)

    def fork(self, name: str) -> Reader:
        """Hand the whole backlog to a new reader and go on with what comes from now: neither waits for the other.

        A crash in between may deliver the backlog twice, never not at all.
        """
        return self._journal.fork(self._cursor, name)

    def _count_missing(self, stretch: Stretch) -> None:
        with self._journal.guard:
            for first, end in stretch.missing:
                lost = end - max(first, self._judged)
                if 0 < lost < _MOST_MISSING:
                    lost -= self._journal.known_lost(max(first, self._judged), end)
                    self._cursor.damaged_records += lost
                    self._journal.tally.damaged_records += lost
            self._judged = max(self._judged, stretch.next_position)
