"""History: what the host remembers of itself, in memory and on disk, and how it is asked.

`append` runs on the event loop; `write` on a worker thread; queries on theirs. Nothing here waits for a disk except
`write`, `close` and queries.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from agent.core import sqlite
from agent.core.clock import NS, Clock
from agent.core.labels import Labels, Matcher, value_of
from agent.core.model import Tick
from agent.core.query import DEFAULT_LIMITS, Limits, Querier, Result
from sinks.history.chunks import DamagedError
from sinks.history.head import Head
from sinks.history.naming import Metric, Names
from sinks.history.options import MOST_UNFLUSHED_S, HistoryOptions
from sinks.history.promql.engine import LOOKBACK_MS, Engine
from sinks.history.promql.storage import SelectHints, SeriesColumns
from sinks.history.selecting import Selection
from sinks.history.series import Registry, Series
from sinks.history.store import Store, StoreError, Tell
from sinks.history.tiers import TIERS
from sinks.history.upkeep import Keep, Upkeep

DIRECTORY: Final = "history"  # in the state directory
FILE_NAME: Final = "history.sqlite"


def tell_nobody(event: str, **facts: object) -> None:
    """For callers that do not log."""


@dataclass(frozen=True, slots=True)
class TierStatus:
    """What one tier holds on disk; times in ms, None where it is empty."""

    name: str
    blocks: int
    samples: int  # of a coarser tier: buckets
    bytes: int  # compressed, without the file's own pages
    oldest_ms: int | None
    newest_ms: int | None


@dataclass(frozen=True, slots=True)
class Status:
    """History as `vigilhost history status` and /health show it."""

    series: int
    head_series: int
    head_samples: int
    head_bytes: int
    head_oldest_ms: int | None
    head_newest_ms: int | None
    tiers: tuple[TierStatus, ...]
    file: str
    file_bytes: int  # on disk, companions included
    used_bytes: int  # of pages in use; what the cap limits
    max_bytes: int
    dropped_rows: int  # came at or before the last time of their source
    lost_rows: int  # left memory before the disk took them
    refused_series: int  # beyond the most
    epochs: int  # times the wall clock was set back by more than a minute
    damaged_blocks: int
    set_aside: tuple[str, ...]  # damaged files renamed since the start
    trouble: str  # why the last write failed, "" when it did not


class History:
    """Remembers Ticks and answers PromQL."""

    def __init__(
        self, options: HistoryOptions, directory: str, clock: Clock, instance: str, tell: Tell = tell_nobody
    ) -> None:
        """Open the history in `directory`, made when missing; whatever state its file is in, this succeeds."""
        self.options = options
        self._clock = clock
        self._tell = tell
        self._registry = Registry(options.max_series)
        self._names = Names(options.job, options.instance or instance)
        self._head = Head(self._registry, self._names, round(options.head * 1000), round(MOST_UNFLUSHED_S * 1000))
        self._store = Store(os.path.join(directory, FILE_NAME), self._registry, tell)
        keep = {0: options.raw, 1: options.five_minutes, 2: options.one_hour}
        self._upkeep = Upkeep(
            self._store, Keep({tier: round(age * 1000) for tier, age in keep.items()}, options.max_disk)
        )
        self._writing = threading.Lock()
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            self._head.resume(self._store.open())
        except (StoreError, OSError) as error:
            self._registry.begin_apart()
            self._failed(str(error))

    # -- taking ------------------------------------------------------------------------------------------------------

    def append(self, tick: Tick) -> None:
        """Remember a Tick. On the event loop: microseconds, never waits for a disk."""
        self._head.append(tick)

    def record(self, source: str, time_ms: int, samples: dict[Labels, float]) -> None:
        """Remember series whose labels are complete (recording rules, ALERTS); those missing since last time end."""
        self._head.record(source, time_ms, samples)

    def end(self, collector: str) -> None:
        """The collector was taken away: its series end now."""
        self._head.end(collector, self._clock.wall_ns() // 1_000_000)

    @property
    def rebuild_since_ns(self) -> int:
        """From when on the journal's Ticks are wanted at start: what memory holds, and what the disk has not had."""
        newest = self._store.newest_ms
        memory_from = self._clock.wall_ns() // 1_000_000 - round(self.options.head * 1000)
        return (min(memory_from, newest) if newest > 0 else memory_from) * 1_000_000

    def rebuild(self, ticks: Iterable[Tick]) -> int:
        """Take the journal's Ticks, before the first `append`; how many there were. Blocking: long ones are written."""
        count = 0
        written_ns = 0
        for tick in ticks:
            self._head.append(tick, is_replay=True)
            count += 1
            written_ns = written_ns or tick.time_ns
            if abs(tick.time_ns - written_ns) > self.options.flush * NS:
                self.write()
                written_ns = tick.time_ns
        self._head.end_replay()
        return count

    # -- keeping -----------------------------------------------------------------------------------------------------

    def write(self) -> bool:
        """Put everything new on disk, build tiers, delete what is old; what this returned True for survives a crash.

        Blocking: on a worker thread, each `options.flush`. False while the disk takes nothing (`status().trouble`).
        """
        with self._writing:
            try:
                try:
                    self._write()
                except sqlite3.DatabaseError as error:
                    if not sqlite.is_corrupt(error):
                        raise
                    self._store.is_suspect = True
                    self._write()
            except (StoreError, DamagedError, sqlite3.Error) as error:
                self._failed(str(error) if isinstance(error, StoreError) else f"history: {self._store.path}: {error}")
                self._store.close_writer()  # a disk that was read-only is found writable only by a new connection
                self._head.trim()
                return False
            self._recovered()
            return True

    def _write(self) -> None:
        store = self._store
        if store.db is None:
            self._head.resume(store.open())
        if store.is_suspect:
            store.put_aside("damaged")
            self._head.forget_flushed()
        # Rows are written before they are taken for written: a crash between the two writes them twice, not never.
        self._head.flushed(store.write(self._head.unflushed(), self._head.metrics))
        self._upkeep.build()
        self._upkeep.let_go(self._clock.wall_ns() // 1_000_000, self._head)

    def _failed(self, trouble: str) -> None:
        if trouble != self._store.trouble:
            self._tell("history.write_failed", error=trouble, consequence="the newest part is kept in memory")
        self._store.trouble = trouble

    def _recovered(self) -> None:
        if self._store.trouble:
            self._tell("history.recovered", lost_rows=self._head.lost_rows)
            self._store.trouble = ""

    def close(self) -> None:
        """Write what is new and close the file."""
        self.write()
        with self._writing:
            self._store.close()

    # -- asking ------------------------------------------------------------------------------------------------------

    def select(
        self, matchers: Sequence[Matcher], start_ms: int, end_ms: int, hints: SelectHints
    ) -> list[SeriesColumns]:
        """The engine's `Storage`; what is approximate about the answer is told by `querier()` only."""
        return Selection(self._head, self._store, self._registry).select(matchers, start_ms, end_ms, hints)

    def querier(self, lookback_ms: int | None = None) -> Querier:
        """Who answers PromQL over this history, on any thread; with another lookback than usual where one is given."""
        return HistoryQuerier(
            self._head, self._store, self._registry, LOOKBACK_MS if lookback_ms is None else lookback_ms
        )

    def series(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Labels]:
        """Label sets of the series that were there at some time within [start, end], ordered."""
        return sorted({one.labels for one in self._present(matchers, start_ms, end_ms)})

    def label_names(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[str]:
        """Names of all labels those series have, ordered."""
        found = self._present(matchers, start_ms, end_ms)
        return sorted({name for one in found for name, _ in one.labels})

    def label_values(self, name: str, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[str]:
        """Values that a label has among those series, ordered."""
        found = self._present(matchers, start_ms, end_ms)
        return sorted({value for one in found if (value := value_of(one.labels, name))})

    def _present(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Series]:
        """Series that may have samples in [start, end]: as exact as blocks are long."""
        there: set[int] = set()
        for known in self._store.layouts.values():
            if known.first_ms <= end_ms and known.last_ms >= start_ms:
                there.update(known.layout.series)
        span = self._head.span()
        if span is not None and span[0] <= end_ms and span[1] >= start_ms:
            there |= self._head.live()
        return [one for one in self._registry.find(matchers) if one.number in there]

    def metadata(self) -> dict[str, Metric]:
        """Type, help and unit of every metric seen, by name. Reads the file: not for the event loop."""
        return {**self._store.metrics(), **self._head.metrics}

    def status(self) -> Status:
        """How much there is. Reads the file: not for the event loop."""
        head_series, head_samples, head_bytes = self._head.size()
        span = self._head.span()
        tiers, used = self._on_disk()
        return Status(
            series=len(self._registry.numbers()),
            head_series=head_series,
            head_samples=head_samples,
            head_bytes=head_bytes,
            head_oldest_ms=span[0] if span else None,
            head_newest_ms=span[1] if span else None,
            tiers=tiers,
            file=self._store.path,
            file_bytes=sqlite.file_bytes(self._store.path),
            used_bytes=used,
            max_bytes=self.options.max_disk,
            dropped_rows=self._head.dropped_rows,
            lost_rows=self._head.lost_rows,
            refused_series=self._registry.refused,
            epochs=self._head.epochs,
            damaged_blocks=self._store.damaged_blocks,
            set_aside=tuple(self._store.set_aside),
            trouble=self._store.trouble,
        )

    def _on_disk(self) -> tuple[tuple[TierStatus, ...], int]:
        found: dict[int, tuple[int, int, int, int, int]] = {}
        used = 0
        with self._store.reading() as reader:
            if reader is not None:
                try:
                    found = {row[0]: row[1:] for row in reader.connection.execute(
                        "SELECT tier, count(*), sum(samples), sum(bytes), min(first_ms), max(last_ms) FROM block"
                        " GROUP BY tier")}  # fmt: skip
                    used = sqlite.used_bytes(reader.connection)
                except sqlite3.Error as error:
                    self._store.trouble = f"history: {self._store.path}: {error}"
        none = (0, 0, 0, None, None)
        return tuple(TierStatus(tier.name, *found.get(tier.number, none)) for tier in TIERS), used


class HistoryQuerier:
    """A Querier that adds what history had to approximate to the warnings of the answer."""

    def __init__(self, head: Head, store: Store, registry: Registry, lookback_ms: int) -> None:
        self._head = head
        self._store = store
        self._registry = registry
        self._lookback_ms = lookback_ms

    def _selection(self) -> Selection:
        return Selection(self._head, self._store, self._registry)

    def instant(self, expr: str, time_ms: int, limits: Limits = DEFAULT_LIMITS) -> Result:
        """The value of `expr` at one moment. Raise QueryError."""
        storage = self._selection()
        return _with_remarks(Engine(storage, self._lookback_ms).instant(expr, time_ms, limits), storage)

    def range(self, expr: str, start_ms: int, end_ms: int, step_ms: int, limits: Limits = DEFAULT_LIMITS) -> Result:
        """The values of `expr` at start, start + step, ... up to end. Raise QueryError."""
        storage = self._selection()
        return _with_remarks(Engine(storage, self._lookback_ms).range(expr, start_ms, end_ms, step_ms, limits), storage)


def _with_remarks(result: Result, storage: Selection) -> Result:
    return replace(result, warnings=(*result.warnings, *storage.remarks)) if storage.remarks else result
