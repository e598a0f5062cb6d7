"""Builds the coarser tiers from the finer ones, and lets go of what is too old or too much."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent.core.sqlite import used_bytes
from sinks.history.chunks import DamagedError
from sinks.history.columns import Block, Layout, joined
from sinks.history.head import Head
from sinks.history.reader import Reader, Stretch
from sinks.history.schema import PARTS_PER_BLOCK
from sinks.history.store import KnownLayout, Store
from sinks.history.tiers import (
    FIVE_MINUTES,
    ONE_HOUR,
    RAW,
    TIERS,
    Tier,
    from_buckets,
    from_samples,
    united,
    window_start,
)

_BATCH: Final = 64  # series built at a time: memory
_MOST_DELETED: Final = 200  # blocks of a tier at a time
_EDGE_MS: Final = 900_000  # kept beyond its age, so that a window of that very length still finds its beginning
_DAY_MS: Final = 86_400_000
# Of the disk cap, what each tier may have before the others; by tier number.
_SHARES: Final = {0: 0.4, 1: 0.35, 2: 0.25}


@dataclass(frozen=True, slots=True)
class Keep:
    """How long each tier is kept (ms, by tier number), and bytes of all together."""

    tier_ms: dict[int, int]
    bytes: int


class Upkeep:
    """Runs after a write, on the same thread. Raises sqlite3.Error."""

    def __init__(self, store: Store, keep: Keep) -> None:
        self._store = store
        self._keep = keep

    # -- tiers -------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Build every window that is complete."""
        for tier, finer in ((FIVE_MINUTES, RAW), (ONE_HOUR, FIVE_MINUTES)):
            for start_ms in sorted(self._store.pending[tier.number]):
                if self._store.is_due(tier, start_ms):
                    self._build_window(tier, finer, start_ms)

    def _build_window(self, tier: Tier, finer: Tier, start_ms: int) -> None:
        store = self._store
        undo = dict(store.layouts)
        try:
            with store.transaction() as db:
                for source in sorted({one.source for one in store.layouts.values()}):
                    self._build_source(db, tier, finer, source, start_ms)
                db.execute("DELETE FROM pending WHERE tier = ? AND start_ms = ?", (tier.number, start_ms))
                if tier is FIVE_MINUTES:
                    store.expect(db, ONE_HOUR, window_start(start_ms + 1, ONE_HOUR))
        except BaseException:
            store.layouts = undo
            raise
        store.pending[tier.number].discard(start_ms)

    def _build_source(self, db: sqlite3.Connection, tier: Tier, finer: Tier, source: int, start_ms: int) -> None:
        reader = self._store.writer
        assert reader is not None
        end_ms = start_ms + tier.window_ms
        stretches = reader.stretches(finer, source, start_ms + 1, end_ms, self._damaged)
        built = self._built(reader, tier, finer, stretches)
        if built is None:
            return
        for stretch in reader.stretches(tier, source, start_ms + 1, end_ms, self._damaged):
            try:
                built = united(reader.block(stretch, stretch.block.layout.series), built)
            except DamagedError as error:
                self._damaged(error)
            _delete(db, [stretch.block.id])
        self._store.insert(db, tier, source, built, start_ms + 1)

    def _built(self, reader: Reader, tier: Tier, finer: Tier, stretches: Sequence[Stretch]) -> Block | None:
        series = list(dict.fromkeys(one for stretch in stretches for one in stretch.block.layout.series))
        found: list[Block] = []
        for at in range(0, len(series), _BATCH):
            blocks = []
            for stretch in stretches:
                try:
                    blocks.append(reader.block(stretch, series[at : at + _BATCH]))
                except DamagedError as error:
                    self._damaged(error)
            if not blocks:
                continue
            built = from_samples(joined(blocks), tier.step_ms) if finer is RAW else from_buckets(blocks, tier.step_ms)
            if built is not None:
                found.append(built)
        return _side_by_side(found)

    def _damaged(self, _: DamagedError) -> None:
        """What is left of the window is built all the same."""
        self._store.damaged_blocks += 1

    # -- letting go --------------------------------------------------------------------------------------------------

    def let_go(self, now_ms: int, head: Head) -> None:
        """Delete what is older than its tier keeps, and the oldest beyond the disk cap."""
        for tier in TIERS:
            self._by_age(tier, now_ms)
        self._by_size()
        self._names(now_ms, head)

    def _by_age(self, tier: Tier, now_ms: int) -> None:
        keep_ms = self._keep.tier_ms[tier.number]
        horizon = now_ms - keep_ms - _EDGE_MS
        coarser = {RAW: FIVE_MINUTES, FIVE_MINUTES: ONE_HOUR}.get(tier)
        if coarser is not None:
            # A window still to be built keeps what it is built from.
            horizon = min([horizon, *self._store.pending[coarser.number]])
        future = now_ms + max(keep_ms, _DAY_MS)
        # Deleted little by little: a clock that is wrong for an hour does not empty history.
        self._delete_where("first_ms < ? AND last_ms < ?", tier, horizon, horizon)
        self._delete_where("first_ms > ? AND last_ms > ?", tier, future, future)

    def _by_size(self) -> None:
        db = self._store.db
        assert db is not None
        excess = used_bytes(db) - self._keep.bytes
        if excess <= 0:
            self._shrink(db)
            return
        sizes = dict(db.execute("SELECT tier, sum(bytes + 64) FROM block GROUP BY tier").fetchall())
        total = sum(sizes.values())
        if not total:
            return
        for tier, excess_bytes in _reductions(sizes, total * (1 - excess / used_bytes(db)) * 0.98).items():
            self._delete_oldest(tier, excess_bytes)
        self._shrink(db)

    def _delete_oldest(self, tier: int, excess: float) -> None:
        db = self._store.db
        assert db is not None
        ids = []
        for number, size in db.execute("SELECT id, bytes + 64 FROM block WHERE tier = ? ORDER BY first_ms", (tier,)):
            if excess <= 0:
                break
            ids.append(number)
            excess -= size
        with self._store.transaction() as changing:
            _delete(changing, ids)

    def _delete_where(self, condition: str, tier: Tier, *moments: int) -> None:
        db = self._store.db
        assert db is not None
        query = f"SELECT id FROM block WHERE tier = ? AND {condition} ORDER BY first_ms LIMIT {_MOST_DELETED}"  # noqa: S608
        ids = [row[0] for row in db.execute(query, (tier.number, *moments))]
        if ids:
            with self._store.transaction() as changing:
                _delete(changing, ids)

    def _shrink(self, db: sqlite3.Connection) -> None:
        """Give pages back to the file system where far more are free than the next days need."""
        (free,) = db.execute("PRAGMA freelist_count").fetchone()
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        if free > 256 and free * 4 > pages:
            db.execute(f"PRAGMA incremental_vacuum({free // 2})").fetchall()

    def _names(self, now_ms: int, head: Head) -> None:
        """Forget layouts without blocks, and series without layouts that memory does not have either."""
        store = self._store
        db = store.db
        assert db is not None
        old = [one for one in store.layouts.values() if self._is_unused(db, one, now_ms)]
        if not old:
            return
        gone = {one.id for one in old}
        left = {key: one for key, one in store.layouts.items() if one.id not in gone}
        used = set().union(*(one.layout.series for one in left.values()))
        dead = head.forget_among(number for number in store.registry.numbers() if number not in used)
        with store.transaction() as changing:
            changing.executemany("DELETE FROM layout WHERE id = ?", [(number,) for number in gone])
            changing.executemany("DELETE FROM series WHERE id = ?", [(number,) for number in dead])
        store.layouts = left

    def _is_unused(self, db: sqlite3.Connection, known: KnownLayout, now_ms: int) -> bool:
        if known.last_ms >= now_ms - self._keep.tier_ms[known.tier] - _EDGE_MS:
            return False
        place = (known.tier, known.source, known.id)
        found = db.execute("SELECT 1 FROM block WHERE tier = ? AND source = ? AND layout = ? LIMIT 1", place)
        return found.fetchone() is None


def _reductions(sizes: dict[int, int], room: float) -> dict[int, float]:
    """Bytes that each tier must give up so that all fit: those largest for their share give first."""
    left = {tier: float(size) for tier, size in sizes.items()}
    while sum(left.values()) > max(room, 0.0):
        largest = max(left, key=lambda tier: left[tier] / _SHARES[tier])
        left[largest] = max(left[largest] - max(room / 100, 4096.0), 0.0)
    return {tier: size - left[tier] for tier, size in sizes.items() if left[tier] < size}


def _delete(db: sqlite3.Connection, ids: Sequence[int]) -> None:
    db.executemany("DELETE FROM block WHERE id = ?", [(number,) for number in ids])
    db.executemany(
        "DELETE FROM part WHERE id BETWEEN ? AND ?",
        [(number * PARTS_PER_BLOCK, (number + 1) * PARTS_PER_BLOCK - 1) for number in ids],
    )


def _side_by_side(blocks: Sequence[Block]) -> Block | None:
    """Blocks of different series as one; None where there are none."""
    if not blocks:
        return None
    ends = sorted({end for block in blocks for end in block.times})
    if all(len(block.times) == len(ends) for block in blocks):
        series = [one for block in blocks for one in block.layout.series]
        return Block(Layout(series), blocks[0].times, [column for block in blocks for column in block.columns])
    whole = blocks[0]
    for block in blocks[1:]:
        whole = united(whole, block)
    return whole
