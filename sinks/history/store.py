"""The history file: blocks of every tier, the series they are of, and what each source has on disk.

One thread writes, others read through a connection of their own. What `write` returned for survives kill -9.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from agent.core import sqlite
from agent.core.errors import VigilhostError
from agent.core.labels import Labels
from sinks.history.chunks import DamagedError, layout_bytes, layout_from, pack
from sinks.history.columns import Block, Layout, joined, samples_in, without_gaps
from sinks.history.head import Unflushed
from sinks.history.naming import Metric
from sinks.history.reader import PART_COLUMNS, Reader
from sinks.history.schema import MIGRATIONS, PAGE_BYTES, PARTS_PER_BLOCK
from sinks.history.series import Registry, Series
from sinks.history.tiers import FIVE_MINUTES, KINDS, ONE_HOUR, RAW, Tier, window_start

_CONTIGUOUS_MS: Final = 600_000  # a shorter gap between two blocks of a source is the newer one's
_GAP_MS: Final = 3_600_000  # a block holds no longer one: the clock may have been wrong on either side
_GRACE_MS: Final = 60_000  # Ticks of slow collectors are this late at most
_METRICS: Final = "SELECT CAST(name AS BLOB), CAST(type AS BLOB), CAST(help AS BLOB), CAST(unit AS BLOB) FROM metric"
# What is there already is left alone: after a restart all of them come again.
_SAVE_METRIC: Final = (
    "INSERT INTO metric VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE"
    " SET type = excluded.type, help = excluded.help, unit = excluded.unit"
    " WHERE (type, help, unit) IS NOT (excluded.type, excluded.help, excluded.unit)"
)
_NEVER_MS: Final = -(2**62)
Tell = Callable[..., object]


class StoreError(VigilhostError):
    """The file cannot be written or read now; the text says why."""


@dataclass(slots=True)
class KnownLayout:
    """A layout of the file and the stretch of time it was used in."""

    id: int
    tier: int
    source: int
    layout: Layout
    first_ms: int
    last_ms: int


_Layouts: TypeAlias = dict[tuple[int, int, bytes], KnownLayout]  # by tier, source and the numbers of the series
_State: TypeAlias = tuple[_Layouts, dict[int, set[int]], dict[int, int], int]


class Store:
    """The file at `path`. It may be unavailable from the start: every write tries to open it again."""

    def __init__(self, path: str, registry: Registry, tell: Tell) -> None:
        self.path = path
        self.registry = registry
        self.tell = tell
        self.db: sqlite3.Connection | None = None
        self.layouts: _Layouts = {}
        self.pending: dict[int, set[int]] = {FIVE_MINUTES.number: set(), ONE_HOUR.number: set()}
        self.last_ms: dict[int, int] = {}
        self._told: dict[str, Metric] = {}  # the metrics this process has put on disk
        self.newest_ms = _NEVER_MS
        self.generation = 0  # of the file: another one after the first was set aside
        self.set_aside: list[str] = []
        self.trouble = ""
        self.is_suspect = False  # a reader met damage that only another file cures
        self.damaged_blocks = 0
        self._next_block = 1
        self._next_layout = 1
        self._read_guard = threading.Lock()
        self._reader: Reader | None = None
        self._reader_generation = -1
        self._is_readable = False
        self.writer: Reader | None = None  # reads through the writing connection

    # -- opening -----------------------------------------------------------------------------------------------------

    def open(self) -> dict[str, int]:
        """Open the file; the last time on disk of each source by name. Raise StoreError."""
        try:
            opened = sqlite.open_database(self.path, MIGRATIONS, page_bytes=PAGE_BYTES, label="history")
        except (sqlite.NewerSchemaError, sqlite.UnavailableError) as error:
            raise StoreError(str(error)) from error
        if opened.set_aside:
            self._told_aside(opened.set_aside)
        self.db = opened.connection
        self.db.text_factory = (
            bytes.decode
        )  # letters that are none: UnicodeDecodeError, which tells it from a busy file
        try:
            return self._load(opened.connection)
        except (sqlite3.Error, ValueError) as error:
            if isinstance(error, sqlite3.Error) and not sqlite.is_corrupt(error):
                self.close()
                raise StoreError(f"history: {self.path}: {error}") from error
            self.put_aside(str(error))
            return {}

    def _told_aside(self, name: str) -> None:
        self.set_aside.append(name)
        self.tell("history.set_aside", file=name, consequence="history begins anew")

    def _load(self, db: sqlite3.Connection) -> dict[str, int]:
        layouts: _Layouts = {}
        self.pending = {FIVE_MINUTES.number: set(), ONE_HOUR.number: set()}
        sources = db.execute("SELECT id, name, last_ms FROM source ORDER BY id").fetchall()
        series = [
            Series(number, source, _labels_from(labels))
            for number, source, labels in db.execute("SELECT id, source, labels FROM series")
        ]
        for number, tier, source, data, first_ms, last_ms in db.execute(
            "SELECT id, tier, source, CAST(series AS BLOB), first_ms, last_ms FROM layout"
        ):
            try:
                layouts[tier, source, data] = KnownLayout(number, tier, source, layout_from(data), first_ms, last_ms)
            except DamagedError:
                self.damaged_blocks += 1  # those that use it can no longer be read; the others can
        for tier, start_ms in db.execute("SELECT tier, start_ms FROM pending"):
            self.pending.setdefault(tier, set()).add(start_ms)
        self._told = {}
        self.layouts = layouts
        (newest_block,) = db.execute("SELECT coalesce(max(id), 0) FROM block").fetchone()
        self._next_block = max(self._next_block, newest_block + 1)  # numbers of deleted rows do not come again
        (newest_layout,) = db.execute("SELECT coalesce(max(id), 0) FROM layout").fetchone()
        self._next_layout = max(self._next_layout, newest_layout + 1)
        self.last_ms = {number: last_ms for number, _, last_ms in sources}
        self.newest_ms = max(self.last_ms.values(), default=_NEVER_MS)
        self.registry.load([(number, name) for number, name, _ in sources], series)
        self.writer = Reader(db)
        self.generation += 1
        self._is_readable = True
        self.trouble = ""
        flushed: dict[str, int] = {}
        for _, name, last_ms in sources:
            flushed[name] = max(last_ms, flushed.get(name, last_ms))
        return flushed

    def put_aside(self, reason: str) -> None:
        """The file is damaged beyond use: rename it and begin another. Raise StoreError."""
        self.close()
        try:
            aside = sqlite.put_aside(self.path)
        except OSError as error:
            raise StoreError(f"history: {self.path}: {reason}; and it cannot be renamed: {error}") from error
        self._told_aside(aside)
        self.layouts.clear()
        self.pending = {FIVE_MINUTES.number: set(), ONE_HOUR.number: set()}
        self.last_ms = {}
        self.is_suspect = False
        self.registry.forget_all_saved()
        self.open()

    def close(self) -> None:
        """Close both connections; the writer last, for it can fold the log into the file."""
        with self._read_guard:
            self._is_readable = False
            if self._reader is not None:
                self._reader.connection.close()
                self._reader = None
        self.close_writer()

    def close_writer(self) -> None:
        """Close the writing connection; what is on disk can still be asked for."""
        if self.db is not None:
            self.db.close()
            self.db = None
            self.writer = None

    # -- writing -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything inside is on disk at the end, or nothing of it."""
        assert self.db is not None
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.rollback()
            raise

    def write(self, unflushed: Sequence[Unflushed], metrics: Mapping[str, Metric]) -> dict[int, int]:
        """Put raw rows on disk; each source's last time. Raise sqlite3.Error."""
        series, sources = self.registry.unsaved[:], self.registry.unsaved_sources[:]
        undo = self._state()
        try:
            with self.transaction() as db:
                self._save_names(db, sources, series, metrics)
                for one in unflushed:
                    for stretch in without_gaps(one.block_list, _GAP_MS):
                        self._write_source(db, one.source, joined(stretch))
                self.newest_ms = max((self.last_ms[one.source] for one in unflushed), default=self.newest_ms)
        except BaseException:
            self._restore(undo)
            raise
        del self.registry.unsaved[: len(series)]
        del self.registry.unsaved_sources[: len(sources)]
        self._told = {**self._told, **metrics}
        return {one.source: self.last_ms[one.source] for one in unflushed}

    def _state(self) -> _State:
        pending = {tier: set(starts) for tier, starts in self.pending.items()}
        return {key: replace(known) for key, known in self.layouts.items()}, pending, dict(self.last_ms), self.newest_ms

    def _restore(self, state: _State) -> None:
        self.layouts, self.pending, self.last_ms, self.newest_ms = state

    def _save_names(
        self,
        db: sqlite3.Connection,
        sources: list[tuple[int, str]],
        series: list[Series],
        metrics: Mapping[str, Metric],
    ) -> None:
        db.executemany(
            "INSERT OR REPLACE INTO source VALUES (?, ?, ?)", [(n, _clean(name), _NEVER_MS) for n, name in sources]
        )
        db.executemany(
            "INSERT OR REPLACE INTO series VALUES (?, ?, ?)",
            [(one.number, one.source, _labels_text(one.labels)) for one in series],
        )
        fresh = [(name, *map(_clean, rest)) for name, rest in metrics.items() if self._told.get(name) != rest]
        db.executemany(_SAVE_METRIC, fresh)

    def _write_source(self, db: sqlite3.Connection, source: int, block: Block) -> None:
        first_ms, last_ms = block.times[0], block.times[-1]
        before = self.last_ms.get(source)
        is_next = before is not None and 0 < first_ms - before <= _CONTIGUOUS_MS
        self.insert(db, RAW, source, block, before + 1 if is_next and before is not None else first_ms)
        db.execute("UPDATE source SET last_ms = ? WHERE id = ?", (last_ms, source))
        self.last_ms[source] = last_ms
        for start_ms in {window_start(at, FIVE_MINUTES) for at in block.times}:
            self.expect(db, FIVE_MINUTES, start_ms)

    def expect(self, db: sqlite3.Connection, tier: Tier, start_ms: int) -> None:
        """The window of the tier has samples to be built from."""
        if start_ms not in self.pending[tier.number]:
            self.pending[tier.number].add(start_ms)
            db.execute("INSERT OR IGNORE INTO pending VALUES (?, ?)", (tier.number, start_ms))

    def insert(self, db: sqlite3.Connection, tier: Tier, source: int, block: Block, since_ms: int) -> None:
        """Add a block that hides older ones from `since_ms` to its end."""
        packed = pack(block, PART_COLUMNS[tier.number])
        number = self._next_block
        self._next_block += 1
        rows = len(block.times)
        kinds = 1 if tier is RAW else KINDS
        samples = sum(samples_in(column, rows) for column in block.columns[::kinds])
        size = len(packed.times) + len(packed.constants) + sum(map(len, packed.parts))
        layout = self._layout(db, tier, source, block.layout, packed.first_ms, packed.last_ms)
        db.execute(
            "INSERT INTO block VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (number, tier.number, source, layout, since_ms, packed.first_ms, packed.last_ms, rows, samples, size,
             packed.times, packed.constants),
        )  # fmt: skip
        db.executemany(
            "INSERT INTO part VALUES (?, ?)",
            [(number * PARTS_PER_BLOCK + place, data) for place, data in enumerate(packed.parts)],
        )

    def _layout(
        self, db: sqlite3.Connection, tier: Tier, source: int, layout: Layout, first_ms: int, last_ms: int
    ) -> int:
        data = layout_bytes(layout)
        known = self.layouts.get((tier.number, source, data))
        if known is None:
            known = KnownLayout(self._next_layout, tier.number, source, Layout(layout.series), first_ms, last_ms)
            self._next_layout += 1
            db.execute("INSERT INTO layout VALUES (?, ?, ?, ?, ?, ?)",
                       (known.id, tier.number, source, data, first_ms, last_ms))  # fmt: skip
            self.layouts = {**self.layouts, (tier.number, source, data): known}
        else:
            known.first_ms, known.last_ms = min(known.first_ms, first_ms), max(known.last_ms, last_ms)
            span = (known.first_ms, known.last_ms, known.id)
            db.execute("UPDATE layout SET first_ms = ?, last_ms = ? WHERE id = ?", span)
        return known.id

    def built_until(self, tier: Tier) -> int:
        """End of what a tier has built without a gap still to be filled; ms."""
        newest = self.newest_ms
        starts = [start for start in self.pending[tier.number] if start <= newest]
        if tier is ONE_HOUR:  # what 5m still lacks, 1h lacks too
            fives = self.pending[FIVE_MINUTES.number]
            starts += [window_start(start + 1, tier) for start in fives if start <= newest]
        return min(starts, default=window_start(self.newest_ms, tier))

    def is_due(self, tier: Tier, start_ms: int) -> bool:
        """Is everything of the window on disk (or is it not of the present at all)?"""
        return start_ms + tier.window_ms + _GRACE_MS <= self.newest_ms or start_ms > self.newest_ms

    # -- reading -----------------------------------------------------------------------------------------------------

    def has_none_of(self, source: int) -> bool:
        """Nothing of the source was ever written, so no tier has any of it either."""
        return self.last_ms.get(source, _NEVER_MS) == _NEVER_MS

    def metrics(self) -> dict[str, Metric]:
        """Type, help and unit of every metric on disk, by name: a quarter of a megabyte that is seldom asked for."""
        with self.reading() as reader:
            if reader is not None:
                try:
                    rows = reader.connection.execute(_METRICS).fetchall()
                    texts = ([text.decode("utf-8", "replace") for text in row] for row in rows)
                    return {name: Metric(*rest) for name, *rest in texts}
                except sqlite3.Error as error:
                    self.trouble = f"history: {self.path}: {error}"
        return self._told

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reader | None]:
        """A reader of one moment of the file, for this thread alone; None while there is no file."""
        with self._read_guard:
            try:
                if self._reader is not None and self._reader_generation != self.generation:
                    self._reader.connection.close()
                    self._reader = None
                if self._reader is None and self._is_readable:
                    self._reader = Reader(sqlite.open_reader(self.path))
                    self._reader_generation = self.generation
            except sqlite3.Error as error:
                self.trouble = f"history: {self.path}: {error}"
            reader = self._reader
            if reader is None:
                yield None
                return
            try:
                reader.connection.execute("BEGIN")  # what is being deleted stays until the query is over
                yield reader
            finally:
                with contextlib.suppress(sqlite3.Error):
                    if reader.connection.in_transaction:
                        reader.connection.rollback()


def _clean(text: str) -> str:
    """Text that is valid UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _labels_text(labels: Labels) -> str:
    return json.dumps([part for pair in labels for part in pair], separators=(",", ":"))  # ASCII: keeps lone surrogates


def _labels_from(text: str) -> Labels:
    parts = json.loads(text)
    return tuple(zip(parts[::2], parts[1::2], strict=True))
