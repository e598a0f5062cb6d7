"""Reads blocks of the history file, through one connection; used under the lock of whoever owns it."""

from __future__ import annotations

import sqlite3
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sinks.history.chunks import Constants, DamagedError, Unpacker, layout_from
from sinks.history.columns import Block, Layout, collapsed
from sinks.history.schema import PARTS_PER_BLOCK
from sinks.history.tiers import KINDS, RAW, Tier

PART_COLUMNS: Final = {0: 8, 1: 16 * KINDS, 2: 16 * KINDS}  # by tier; fewer read faster, more pack better
_MOST_LAYOUTS: Final = 256  # remembered

# A damaged file may call a blob a text, and SQLite then refuses the whole query for its letters: hence the CAST.
_BLOCKS = (
    "SELECT id, layout, since_ms, first_ms, last_ms, rows, CAST(times AS BLOB), CAST(constants AS BLOB) FROM block"
    " WHERE tier = ? AND source = ? AND last_ms >= ? AND first_ms <= ? ORDER BY first_ms, id"
)


@dataclass(slots=True)
class Stored:
    """A block of the file, its parts not read yet. It hides older blocks from `since_ms` to `last_ms`."""

    id: int
    tier: int
    layout: Layout
    since_ms: int
    first_ms: int
    last_ms: int
    rows: int
    times: array[int]
    constants: Constants


@dataclass(slots=True)
class Stretch:
    """The rows low <= row < high of a block, those no newer block hides."""

    block: Stored
    low: int
    high: int


class Reader:
    """Blocks and columns out of one connection. Raises sqlite3.Error; `columns` and `block` DamagedError too."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._unpacker = Unpacker()
        self._layouts: dict[int, Layout] = {}

    def oldest_ms(self, tier: Tier) -> int | None:
        """First time in a tier; None where it is empty."""
        row = self.connection.execute(
            "SELECT first_ms FROM block WHERE tier = ? ORDER BY first_ms LIMIT 1", (tier.number,)
        ).fetchone()
        return None if row is None else int(row[0])

    def stretches(
        self, tier: Tier, source: int, start_ms: int, end_ms: int, on_damage: Callable[[DamagedError], None]
    ) -> list[Stretch]:
        """What is to be read of a source in [start, end], in order of time, never the same moment twice.

        `on_damage` is told of each block that cannot be read; it is left out, and hides no other.
        """
        blocks = []
        for row in self.connection.execute(_BLOCKS, (tier.number, source, start_ms, end_ms)).fetchall():
            try:
                blocks.append(self._stored(tier.number, row))
            except DamagedError as error:
                on_damage(error)
        found = []
        for low_ms, high_ms, block in _visible(blocks):
            low = bisect_left(block.times, max(low_ms, start_ms))
            high = bisect_right(block.times, min(high_ms, end_ms))
            if low < high:
                found.append(Stretch(block, low, high))
        return found

    def _stored(self, tier: int, row: tuple[Any, ...]) -> Stored:
        """The block of a row. Raise DamagedError."""
        number, layout_id, since_ms, first_ms, last_ms, rows, times, constants = row
        if [*map(type, row)] != [int] * 6 + [bytes] * 2:
            raise DamagedError("a block whose columns are not what they should be")
        layout = self._layout(layout_id)
        width = len(layout.series) * (1 if tier == RAW.number else KINDS)
        return Stored(number, tier, layout, since_ms, first_ms, last_ms, rows,
                      self._unpacker.times(first_ms, last_ms, rows, times),
                      self._unpacker.constants(constants, width))  # fmt: skip

    def _layout(self, number: int) -> Layout:
        known = self._layouts.get(number)
        if known is None:
            row = self.connection.execute("SELECT CAST(series AS BLOB) FROM layout WHERE id = ?", (number,)).fetchone()
            if len(self._layouts) >= _MOST_LAYOUTS:
                self._layouts.clear()
            known = self._layouts[number] = layout_from(row[0] if row else None)
        return known

    def columns(self, block: Stored, places: Sequence[int]) -> list[bytes]:
        """Columns of a block by their places, 8 bytes where constant; each part is read once."""
        found: dict[int, bytes] = {}
        by_part: dict[int, list[tuple[int, int]]] = {}
        size = PART_COLUMNS[block.tier]
        constants = block.constants
        for place in places:
            value = constants.value(place)
            if value is not None:
                found[place] = value
            else:
                part, within = divmod(constants.rank(place), size)
                by_part.setdefault(part, []).append((place, within))
        for part, wanted in by_part.items():
            row = self.connection.execute(
                "SELECT CAST(data AS BLOB) FROM part WHERE id = ?", (block.id * PARTS_PER_BLOCK + part,)
            ).fetchone()
            width = min(size, constants.changing - part * size)
            data = row[0] if row and row[0] else b""
            columns = self._unpacker.columns(data, width, block.rows, [within for _, within in wanted])
            found.update(zip((place for place, _ in wanted), columns, strict=True))
        return [found[place] for place in places]

    def block(self, stretch: Stretch, series: Iterable[int]) -> Block:
        """The columns of these series in a stretch, those it does not know left out."""
        stored = stretch.block
        known = stored.layout.places
        wanted = [one for one in series if one in known]
        kinds = 1 if stored.tier == RAW.number else KINDS
        columns = self.columns(stored, [known[one] * kinds + kind for one in wanted for kind in range(kinds)])
        if stretch.low > 0 or stretch.high < stored.rows:
            low, high = stretch.low * 8, stretch.high * 8
            columns = [column if len(column) == 8 else collapsed(column[low:high]) for column in columns]
        return Block(Layout(wanted), stored.times[stretch.low : stretch.high], columns)


def _visible(blocks: list[Stored]) -> Iterable[tuple[int, int, Stored]]:
    """Which stretch of time of each block no newer block hides, in order of time."""
    before = -(2**62)
    for block in blocks:
        if block.since_ms <= before:
            return _cut_up(blocks)
        before = block.last_ms
    return [(block.first_ms, block.last_ms, block) for block in blocks]


def _cut_up(blocks: list[Stored]) -> list[tuple[int, int, Stored]]:
    covered: list[tuple[int, int]] = []
    found = []
    for block in sorted(blocks, key=lambda one: one.id, reverse=True):
        left = [(block.first_ms, block.last_ms)]
        for low, high in covered:
            left = [
                piece
                for a, b in left
                for piece in ((a, min(b, low - 1)), (max(a, high + 1), b))
                if piece[0] <= piece[1]
            ]
        found += [(a, b, block) for a, b in left]
        covered.append((block.since_ms, block.last_ms))
    return sorted(found, key=lambda piece: piece[0])
