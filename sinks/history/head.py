"""The newest minutes in memory: for each source the rows of its Ticks, closed now and then into columns.

A Tick whose series are those of the one before costs one `struct.pack`. When they differ, the row is laid out anew:
a series that is gone gets a stale marker, one whose target failed gets nothing, and so does one that comes and goes.
"""

from __future__ import annotations

import struct
import threading
from array import array
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

from agent.core.labels import Labels
from agent.core.model import Group, Tick, series_of, values_of
from agent.core.pick import Picker, picker
from sinks.history.columns import ABSENT, ABSENT_BYTES, Block, Layout, RowColumns
from sinks.history.naming import Metric, Names, metrics_of
from sinks.history.promql.storage import STALE
from sinks.history.series import Registry

EPOCH_MS: Final = 60_000  # a step back by more is another time, not a late Tick
UP_EVERY_MS: Final = 5_000
UP_SOURCE: Final = ""  # no collector is called so
_ROWS: Final = 64  # of an open block
_ROW_BYTES: Final = 256 * 1024  # an open block this large is closed, however few its rows
_SHAPES: Final = 16  # kept for one source; a source whose series never settle must not fill memory

_Key = tuple[tuple[Group, tuple[str, ...]], ...]


@dataclass(slots=True)
class _Shape:
    """How the values of Ticks with the same series become a row."""

    key: _Key
    series: tuple[int, ...]
    live: frozenset[int]
    tags: dict[int, tuple[str, ...]]
    pick: Picker
    scales: list[tuple[int, float]]
    pick_absent: Picker
    absent: int  # values that are None in this shape
    nones: bytes

    def fits(self, key: _Key, values: list[Any]) -> bool:
        return self.key == key and (not self.absent or self.pick_absent(values).count(None) == self.absent)


@dataclass(slots=True)
class _Source:
    """One collector's rows: `blocks` are closed, oldest first."""

    number: int
    flushed_ms: int  # on disk up to here
    last_ms: int = -(2**62)
    shape: _Shape | None = None
    shapes: dict[tuple[_Key, bytes], _Shape] = field(default_factory=dict)
    live: frozenset[int] = frozenset()
    tags: dict[int, tuple[str, ...]] = field(default_factory=dict)
    layout: Layout = field(default_factory=lambda: Layout(()))
    pack: Callable[..., bytes] = struct.Struct("").pack
    fast: _Shape | None = None  # the shape whose values are a row of the layout as they come
    times: array[int] = field(default_factory=lambda: array("q"))
    rows: bytearray = field(default_factory=bytearray)
    blocks: list[Block] = field(default_factory=list)
    open_block: Block | None = None  # a copy of the open rows, made when they were last asked for

    def lay_out(self, series: Iterable[int]) -> None:
        """Begin a layout; the open block is empty."""
        self.layout = Layout(series)
        self.pack = struct.Struct(f"={len(self.layout.series)}d").pack
        self.fast = None

    def forget(self, dead: Set[int]) -> None:
        """These numbers mean nothing any more: when such a series comes back, it gets another."""
        self.shapes = {key: shape for key, shape in self.shapes.items() if shape.live.isdisjoint(dead)}
        if self.shape is not None and not self.shape.live.isdisjoint(dead):
            self.shape = None

    def close_block(self) -> None:
        """Make columns of the open rows, and forget the series that had no sample in them."""
        if not self.times:
            return
        layout = self.layout
        block = Block(layout, self.times, list(RowColumns(self.rows, len(layout.series))))
        self.blocks.append(block)
        self.times, self.rows, self.open_block = array("q"), bytearray(), None
        if ABSENT_BYTES in block.columns:
            live = self.live
            self.lay_out(s for s, c in zip(layout.series, block.columns, strict=True) if c != ABSENT_BYTES or s in live)

    def all_blocks(self) -> list[Block]:
        """Every block, the open rows as one more."""
        if not self.times:
            return self.blocks[:]
        known = self.open_block
        # Rules ask again and again between two Ticks; rows are only added, so as many of one layout are the same.
        if known is None or known.layout is not self.layout or known.times != self.times:
            known = Block(self.layout, self.times[:], RowColumns(self.rows, len(self.layout.series)))
            self.open_block = known
        return [*self.blocks, known]

    def oldest_ms(self) -> int | None:
        if self.blocks:
            return self.blocks[0].times[0]
        return self.times[0] if self.times else None


@dataclass(slots=True)
class Unflushed:
    """What the disk has not had yet of one source."""

    source: int
    block_list: list[Block]


class Head:
    """Rows of every source. `append` belongs to the event loop, the rest to any thread."""

    def __init__(self, registry: Registry, names: Names, keep_ms: int, most_unflushed_ms: int) -> None:
        self._guard = threading.Lock()
        self._registry = registry
        self._names = names
        self._keep_ms = keep_ms
        self._most_ms = keep_ms + most_unflushed_ms
        self._sources: dict[str, _Source] = {}
        self._by_number: dict[int, _Source] = {}
        self._up_at = -(2**62)
        self.newest_ms = -(2**62)
        self.dropped_rows = 0  # at or before the last time of their source
        self.lost_rows = 0  # left memory before the disk took them
        self.epochs = 0  # times the wall clock jumped back
        self.metrics: dict[str, Metric] = {}
        self._groups: dict[Group, None] = {}

    def resume(self, flushed: dict[str, int]) -> None:
        """The last time on disk of each source. Where memory has nothing but older rows, they are of a new epoch."""
        with self._guard:
            for name, last_ms in flushed.items():
                source = self._source(name)
                if source.oldest_ms() is None or source.last_ms >= last_ms:
                    source.flushed_ms = max(source.flushed_ms, last_ms)

    def append(self, tick: Tick, is_replay: bool = False) -> None:
        """Take a Tick; one at or before its source's last time is dropped.

        `is_replay`: from the journal, so what is on disk already is taken too, for the queries of the next minutes.
        """
        time_ms = tick.time_ns // 1_000_000
        with self._guard:
            source = self._sources.get(tick.collector) or self._source(tick.collector)
            if time_ms <= source.last_ms or (time_ms <= source.flushed_ms and not is_replay):
                if max(source.last_ms, source.flushed_ms) - time_ms <= EPOCH_MS:
                    self.dropped_rows += 1
                    return
                self._cut(time_ms)
            self._append_row(source, time_ms, tick)
            self.newest_ms = max(self.newest_ms, time_ms)
            if time_ms >= self._up_at:
                self._append_up(time_ms)

    def end_replay(self) -> None:
        """Let go of the journal's Groups: what the collectors say from now on hangs on their own."""
        with self._guard:
            for source in self._sources.values():
                source.shapes.clear()
                source.shape = source.fast = None
            self._groups.clear()

    def _source(self, name: str) -> _Source:
        source = self._sources.get(name)
        if source is None:
            source = self._sources[name] = _Source(self._registry.source(name), -(2**62))
            self._by_number[source.number] = source
        return source

    def _cut(self, time_ms: int) -> None:
        """The wall clock was set back: what lies in the new future never was."""
        self.epochs += 1
        for source in self._sources.values():
            source.close_block()
            kept = (block.between(-(2**62), time_ms - 1) for block in source.blocks)
            source.blocks = [block for block in kept if block is not None]
            source.last_ms = min(source.last_ms, time_ms - 1)
            source.flushed_ms = min(source.flushed_ms, time_ms - 1)
        self.newest_ms = time_ms
        self._up_at = time_ms

    def _append_row(self, source: _Source, time_ms: int, tick: Tick) -> None:
        key = tuple(map(series_of, tick.readings))
        values = list(chain.from_iterable(map(values_of, tick.readings)))
        shape = source.shape
        if shape is None or not shape.fits(key, values):
            shape = self._shape(source, key, values)
        row = None
        if source.fast is shape and not tick.failed and source.live is shape.live:
            try:
                row = source.pack(*_scaled(shape, values))
            except (struct.error, OverflowError, TypeError):
                pass  # a value is absent, or no number
        if row is None:
            if None in shape.pick(values):  # a value present until now is absent
                shape = self._shape(source, key, values)
            row = self._uneven_row(source, shape, _as_floats(shape, values), tick)
        source.times.append(time_ms)
        source.rows += row
        source.last_ms = time_ms
        if len(source.times) >= _ROWS or len(source.rows) > _ROW_BYTES:
            source.close_block()

    def _uneven_row(self, source: _Source, shape: _Shape, picked: Sequence[float], tick: Tick) -> bytes:
        """The row of a Tick whose series are not those of the layout, or not those of the Tick before."""
        gone = source.live - shape.live
        live = shape.live
        if gone and tick.failed:
            targets = {failed.target for failed in tick.failed}
            held = {one for one in gone if not targets.isdisjoint(source.tags.get(one, ()))}
            gone -= held
            live |= held
            shape_tags = {one: source.tags[one] for one in held} | shape.tags
        else:
            shape_tags = shape.tags
        if not shape.live <= source.layout.places.keys():
            source.close_block()
            known = [one for one in source.layout.series if one not in shape.live]
            source.lay_out([*shape.series, *known])
        source.live, source.tags = live, shape_tags
        places = source.layout.places
        if shape.series == source.layout.series:
            source.fast = shape
            return source.pack(*picked)
        row = [ABSENT] * len(source.layout.series)
        for one, value in zip(shape.series, picked, strict=True):
            row[places[one]] = value
        for one in gone:
            row[places[one]] = STALE
        return source.pack(*row)

    def _shape(self, source: _Source, key: _Key, values: list[Any]) -> _Shape:
        nones = bytes([value is None for value in values])
        known = source.shapes.get((key, nones))
        if known is None:
            if len(source.shapes) >= _SHAPES:
                source.shapes.clear()
            known = source.shapes[key, nones] = self._compile(source, key, nones)
        source.shape = known
        return known

    def _compile(self, source: _Source, key: _Key, nones: bytes) -> _Shape:
        chosen: dict[int, tuple[int, float]] = {}  # by series, so that labels emitted twice are one
        tags_of: dict[int, tuple[str, ...]] = {}
        absent: list[int] = []
        at = 0
        for group, tags in key:
            self._learn(group)
            for named in self._names.of(group, tags):
                place = at + named.place
                if nones[place]:
                    absent.append(place)
                    continue
                number = self._registry.number(source.number, named.labels)
                if number is not None:
                    chosen[number] = (place, named.scale)
                    tags_of[number] = tags
            at += len(group.fields)
        places = [place for place, _ in chosen.values()]
        scales = [(index, scale) for index, (_, scale) in enumerate(chosen.values()) if scale != 1.0]
        series = tuple(chosen)
        return _Shape(
            key, series, frozenset(series), tags_of, picker(places), scales, picker(absent), len(absent), nones
        )

    def _learn(self, group: Group) -> None:
        """Remember what the metrics of a Group are."""
        if group not in self._groups:
            if len(self._groups) > 1000:  # open Groups come and go; their metrics are known by name
                self._groups.clear()
            self._groups[group] = None
            self.metrics = {**metrics_of(group), **self.metrics}

    def _append_up(self, time_ms: int) -> None:
        at = time_ms - time_ms % UP_EVERY_MS
        self._up_at = at + UP_EVERY_MS
        self._append_samples(self._source(UP_SOURCE), at, {self._names.plain("up"): 1.0})

    def record(self, source: str, time_ms: int, samples: dict[Labels, float]) -> None:
        """Take samples whose labels are complete (a recording rule's); those missing since last time are gone."""
        with self._guard:
            self._append_samples(self._source(f"record:{source}"), time_ms, samples)

    def _append_samples(self, source: _Source, time_ms: int, samples: dict[Labels, float]) -> None:
        if time_ms <= max(source.last_ms, source.flushed_ms):
            return
        numbers = [(self._registry.number(source.number, labels), value) for labels, value in samples.items()]
        known = {number: value for number, value in numbers if number is not None}
        series = tuple(known)
        shape = source.shape
        if shape is None or shape.series != series:
            shape = _Shape((), series, frozenset(series), {}, picker([]), [], picker([]), 0, b"")
            source.shape = shape
        values = list(known.values())
        is_fast = source.fast is shape and source.live is shape.live
        row = source.pack(*values) if is_fast else self._uneven_row(source, shape, values, Tick(0, "", []))
        source.times.append(time_ms)
        source.rows += row
        source.last_ms = time_ms
        if len(source.times) >= _ROWS or len(source.rows) > _ROW_BYTES:
            source.close_block()

    def end(self, name: str, time_ms: int) -> None:
        """The collector is gone (a reload took it away): its series end."""
        with self._guard:
            source = self._sources.get(name)
            if source is not None and source.live and time_ms > max(source.last_ms, source.flushed_ms):
                self._append_row(source, time_ms, Tick(0, name, []))

    # What queries and the writer ask.

    def blocks(self, source: int) -> list[Block]:
        """Everything in memory of a source, oldest first."""
        with self._guard:
            known = self._by_number.get(source)
            return known.all_blocks() if known else []

    def unflushed(self) -> list[Unflushed]:
        """What the disk has not had, by source."""
        with self._guard:
            found = []
            for source in self._sources.values():
                source.close_block()
                blocks = [b for b in source.blocks if b.times[-1] > source.flushed_ms]
                cut = (block.between(source.flushed_ms, 2**62) for block in blocks)
                found.append(Unflushed(source.number, [block for block in cut if block is not None]))
            return [one for one in found if one.block_list]

    def flushed(self, last_ms: dict[int, int]) -> None:
        """On disk now: each source up to its time. Old rows leave memory."""
        with self._guard:
            for number, last in last_ms.items():
                source = self._by_number[number]
                if source.last_ms >= last:  # else the clock was set back while the disk was busy
                    source.flushed_ms = max(source.flushed_ms, last)
            self._trim()

    def forget_flushed(self) -> None:
        """The file is another one: what memory still has is to be written again."""
        with self._guard:
            for source in self._sources.values():
                source.flushed_ms = -(2**62)

    def trim(self) -> None:
        """Let go of rows that are old, and of unflushed ones that are very old: the disk takes nothing."""
        with self._guard:
            self._trim()

    def _trim(self) -> None:
        keep_after, lose_until = self.newest_ms - self._keep_ms, self.newest_ms - self._most_ms
        for source in self._sources.values():
            kept = []
            for block in source.blocks:
                last = block.times[-1]
                if last > keep_after or (last > source.flushed_ms and last > lose_until):
                    kept.append(block)
                elif last > source.flushed_ms:
                    self.lost_rows += len(block.times)
            source.blocks = kept

    def live(self) -> set[int]:
        """Series that have samples in memory."""
        with self._guard:
            return self._live()

    def _live(self) -> set[int]:
        found: set[int] = set()
        for source in self._sources.values():
            found.update(source.live, source.layout.series)
            for block in source.blocks:
                found.update(block.layout.series)
        return found

    def forget_among(self, candidates: Iterable[int]) -> set[int]:
        """Have the registry forget those candidates that have no samples here either; which they were.

        Under the guard, for a Tick that comes meanwhile may bring one of them back.
        """
        with self._guard:
            dead = set(candidates) - self._live()
            for source in self._sources.values():
                source.forget(dead)
            self._registry.forget(dead)
        return dead

    def span(self) -> tuple[int, int] | None:
        """Oldest and newest time in memory."""
        with self._guard:
            oldest = [at for source in self._sources.values() if (at := source.oldest_ms()) is not None]
            return (min(oldest), self.newest_ms) if oldest else None

    def size(self) -> tuple[int, int, int]:
        """Series, samples and bytes of columns in memory."""
        with self._guard:
            samples = size = 0
            for source in self._sources.values():
                for block in source.blocks:
                    samples += len(block.times) * len(block.columns)
                    size += sum(map(len, block.columns)) + 8 * len(block.times)
                samples += len(source.times) * len(source.layout.series)
                size += len(source.rows)
        return len(self.live()), samples, size


def _scaled(shape: _Shape, values: list[Any]) -> Sequence[float]:
    picked = shape.pick(values)
    if not shape.scales:
        return picked
    scaled = list(picked)
    for place, scale in shape.scales:
        scaled[place] *= scale
    return scaled


def _as_floats(shape: _Shape, values: list[Any]) -> list[float]:
    """The picked values, ABSENT for what is no number or too large for one."""
    floats = []
    for value in shape.pick(values):
        try:
            floats.append(ABSENT if value is None or isinstance(value, str) else float(value))
        except (OverflowError, TypeError, ValueError):
            floats.append(ABSENT)
    for place, scale in shape.scales:
        if struct.pack("=d", floats[place]) != ABSENT_BYTES:
            floats[place] *= scale
    return floats
