"""Answers the engine's selectors from memory and file together."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.core.labels import Labels, Matcher
from agent.core.query import TooMuchError
from agent.core.sqlite import is_corrupt
from sinks.history.chunks import DamagedError
from sinks.history.columns import Block, cut, newest, present
from sinks.history.head import Head
from sinks.history.plan import Coverage, Plan, Segment, make_plan
from sinks.history.promql.storage import SelectHints, SeriesColumns
from sinks.history.reader import Reader
from sinks.history.series import Registry, Series
from sinks.history.store import Store
from sinks.history.tiers import FIVE_MINUTES, ONE_HOUR, RAW, rows_of
from sinks.history.windows import Pieces


class _Found:
    """What is read of one series so far: samples, or pieces where buckets are among them."""

    def __init__(self, is_raw: bool) -> None:
        self.pieces = None if is_raw else Pieces()
        self.t = array("q")
        self.v = array("d")

    def add_samples(self, t: array[int], v: array[float]) -> None:
        if self.pieces is not None:
            self.pieces.add_samples(t, v)
        else:
            self.t.extend(t)
            self.v.extend(v)

    def columns(self, labels: Labels, resolution_ms: int) -> SeriesColumns:
        if self.pieces is None:
            return SeriesColumns(labels, self.t, self.v, resolution_ms)
        return SeriesColumns(labels, self.pieces.t, self.pieces.v, resolution_ms, self.pieces)

    def take_in(self, other: _Found) -> None:
        """Samples of the same labels from another source."""
        if self.pieces is not None and other.pieces is not None:
            self.pieces.merged(other.pieces)
            return
        both = dict(zip(self.t, self.v, strict=True)) | dict(zip(other.t, other.v, strict=True))
        self.t = array("q", sorted(both))
        self.v = array("d", [both[at] for at in self.t])

    def __len__(self) -> int:
        return len(self.t) if self.pieces is None else len(self.pieces.t)


@dataclass(slots=True)
class Budget:
    """Samples still to be read. Raise TooMuchError when there are none, QueryTimeoutError when there is no time."""

    left: int  # 0: as many as there are
    check: Callable[[], None]

    def spend(self, samples: int) -> None:
        self.check()
        if self.left:
            self.left -= samples
            if self.left <= 0:
                raise TooMuchError("query reads more samples than it may; ask for fewer series or a shorter range")


class Selection:
    """A Storage for one query. `remarks` collects what was approximate or could not be read."""

    def __init__(self, head: Head, store: Store, registry: Registry) -> None:
        self._head = head
        self._store = store
        self._registry = registry
        self.remarks: dict[str, None] = {}

    def select(
        self, matchers: Sequence[Matcher], start_ms: int, end_ms: int, hints: SelectHints
    ) -> list[SeriesColumns]:
        """Every series that meets all matchers and has samples in [start, end].

        Raise TooMuchError, QueryTimeoutError.
        """
        by_source: dict[int, list[Series]] = {}
        for one in self._registry.find(matchers):
            by_source.setdefault(one.source, []).append(one)
        if not by_source:
            return []
        # Memory before the file: what leaves memory is in the file by then.
        memory = {source: self._head.blocks(source) for source in by_source}
        if all(self._is_all(source, blocks, start_ms) for source, blocks in memory.items()):
            # What rules ask for, mostly: no need to begin a transaction and to look at tiers, half of the cost.
            if hints.is_newest_enough:
                return _newest_of(memory, by_source, start_ms - 1, end_ms, hints)
            plan = Plan((Segment(RAW, start_ms - 1, end_ms),))
            found = self._gather(None, memory, by_source, plan, hints)
        else:
            with self._store.reading() as reader:
                plan = make_plan(start_ms, end_ms, hints, self._coverage(reader))
                found = self._gather(reader, memory, by_source, plan, hints)
        if plan.remark and found:
            self.remarks[plan.remark] = None
        return [samples.columns(labels, plan.resolution_ms) for labels, samples in found.items()]

    def _is_all(self, source: int, blocks: list[Block], start_ms: int) -> bool:
        """Has the file nothing of the source from `start_ms` on that these blocks of memory lack?"""
        return self._store.has_none_of(source) or (bool(blocks) and blocks[0].times[0] <= start_ms)

    def _gather(
        self, reader: Reader | None, memory: dict[int, list[Block]], by_source: dict[int, list[Series]], plan: Plan,
        hints: SelectHints,
    ) -> dict[Labels, _Found]:  # fmt: skip
        """The samples of each label set, those of several sources put together."""
        budget = Budget(hints.max_samples, hints.check)
        found: dict[Labels, _Found] = {}
        for source in sorted(by_source):
            read = self._read(reader, memory[source], source, by_source[source], plan, hints, budget)
            for one in by_source[source]:
                samples = read[one.number]
                if len(samples):
                    if one.labels in found:
                        found[one.labels].take_in(samples)
                    else:
                        found[one.labels] = samples
        return found

    def _coverage(self, reader: Reader | None) -> Coverage:
        far = -(2**62)
        if reader is None:
            return Coverage(far, far, far, far)
        try:
            raw, five, hour = (reader.oldest_ms(tier) for tier in (RAW, FIVE_MINUTES, ONE_HOUR))
        except sqlite3.Error as error:
            self._cannot_read(error)
            return Coverage(far, far, far, far)
        has_older_five = five is not None and (raw is None or five < raw)
        has_older_hour = hour is not None and (five is None or hour < five)
        return Coverage(
            raw_from_ms=(2**62 if raw is None else raw) if has_older_five or has_older_hour else far,
            five_from_ms=(2**62 if five is None else five) if has_older_hour else far,
            five_until_ms=self._store.built_until(FIVE_MINUTES),
            hour_until_ms=self._store.built_until(ONE_HOUR),
        )

    def _cannot_read(self, error: Exception) -> None:
        if isinstance(error, sqlite3.Error) and is_corrupt(error):
            self._store.is_suspect = True
        self.remarks[f"history on disk cannot be read: {error}"] = None

    def _read(
        self, reader: Reader | None, memory: list[Block], source: int, series: list[Series], plan: Plan,
        hints: SelectHints, budget: Budget,
    ) -> dict[int, _Found]:  # fmt: skip
        found = {one.number: _Found(plan.is_raw) for one in series}
        memory_from = memory[0].times[0] if memory else 2**62
        for segment in plan.segments:
            if reader is not None:
                try:
                    if segment.tier is RAW:
                        self._stored_samples(reader, segment, source, memory_from, found, budget)
                    else:
                        self._stored_buckets(reader, segment, source, found, plan, hints, budget)
                except sqlite3.Error as error:
                    self._cannot_read(error)
            if segment.tier is RAW:
                for block in memory:
                    if block.times[-1] > segment.after_ms and block.times[0] <= segment.until_ms:
                        _add_block(found, block, segment, budget)
        return found

    def _stored_samples(
        self, reader: Reader, segment: Segment, source: int, before_ms: int, found: dict[int, _Found], budget: Budget
    ) -> None:
        until_ms = min(segment.until_ms, before_ms - 1)
        if until_ms <= segment.after_ms:
            return
        for stretch in reader.stretches(RAW, source, segment.after_ms + 1, until_ms, self._damaged):
            try:
                block = reader.block(stretch, found)
            except DamagedError as error:
                self._damaged(error)
                continue
            _add_block(found, block, segment, budget)

    def _stored_buckets(
        self, reader: Reader, segment: Segment, source: int, found: dict[int, _Found], plan: Plan, hints: SelectHints,
        budget: Budget,
    ) -> None:  # fmt: skip
        lookback_ms = max(hints.lookback_ms, plan.resolution_ms)
        for stretch in reader.stretches(segment.tier, source, segment.after_ms + 1, segment.until_ms, self._damaged):
            try:
                block = reader.block(stretch, found)
            except DamagedError as error:
                self._damaged(error)
                continue
            for number, rows in rows_of(block).items():
                budget.spend(len(rows))
                pieces = found[number].pieces
                assert pieces is not None
                pieces.add_buckets(rows, lookback_ms)
        for one in found.values():
            if one.pieces is not None:
                one.pieces.add_span(segment.after_ms, segment.until_ms, segment.tier.step_ms)

    def _damaged(self, error: DamagedError) -> None:
        self._store.damaged_blocks += 1
        self.remarks[f"a part of history on disk is damaged and left out: {error}"] = None


def _newest_of(
    memory: dict[int, list[Block]], by_source: dict[int, list[Series]], after_ms: int, until_ms: int, hints: SelectHints
) -> list[SeriesColumns]:
    """The newest sample of each label set: a dozen blocks need not be put together for one value."""
    budget = Budget(hints.max_samples, hints.check)
    found: dict[Labels, tuple[int, float]] = {}
    for source in sorted(by_source):
        for one in by_source[source]:
            sample = _newest(memory[source], one.number, after_ms, until_ms)
            if sample is not None:
                budget.spend(1)
                if one.labels not in found or sample[0] >= found[one.labels][0]:
                    found[one.labels] = sample
    return [SeriesColumns(labels, array("q", (at,)), array("d", (value,))) for labels, (at, value) in found.items()]


def _newest(blocks: list[Block], number: int, after_ms: int, until_ms: int) -> tuple[int, float] | None:
    for block in reversed(blocks):
        place = block.layout.places.get(number)
        if place is not None:
            sample = newest(block.times, block.columns[place], after_ms, until_ms)
            if sample is not None:
                return sample
    return None


def _add_block(found: dict[int, _Found], block: Block, segment: Segment, budget: Budget) -> None:
    """The samples of a block that the segment wants, to each series."""
    places = block.layout.places
    for number in found.keys() & places.keys():
        t, v = cut(*present(block.times, block.columns[places[number]]), segment.after_ms + 1, segment.until_ms)
        if t:
            budget.spend(len(t))
            found[number].add_samples(t, v)
