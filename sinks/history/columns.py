"""Rows of one source as columns of doubles, and what may be done with them without looking at each value.

A column of 8 bytes is the same value in every row: most series of a host do not change within minutes. A row in which a
series has no sample holds ABSENT, a NaN of our own that no source sends.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, overload

ABSENT_BYTES: Final = struct.pack("=Q", 0x7FF0000000000AB5)
_DOUBLE: Final = struct.Struct("=d")
ABSENT: Final[float] = _DOUBLE.unpack(ABSENT_BYTES)[0]
_WIDTH: Final = 8


class Layout:
    """Which series the columns of a block are, by number, in order."""

    __slots__ = ("_places", "series")

    def __init__(self, series: Iterable[int]) -> None:
        self.series = tuple(series)
        self._places: dict[int, int] | None = None

    @property
    def places(self) -> dict[int, int]:
        """The place of each series."""
        if self._places is None:
            self._places = {series: place for place, series in enumerate(self.series)}
        return self._places


@dataclass(slots=True)
class Block:
    """Columns over one array of times (ms, ascending)."""

    layout: Layout
    times: array[int]
    columns: Sequence[bytes]

    def between(self, after_ms: int, until_ms: int) -> Block | None:
        """The rows with after < time <= until; None where there is none."""
        low, high = bisect_right(self.times, after_ms), bisect_right(self.times, until_ms)
        if low == 0 and high == len(self.times):
            return self
        if low >= high:
            return None
        columns = [c if len(c) == _WIDTH else collapsed(c[low * _WIDTH : high * _WIDTH]) for c in self.columns]
        return Block(self.layout, self.times[low:high], columns)


def collapsed(column: bytes) -> bytes:
    """The column, as 8 bytes where every value is the same."""
    first = column[:_WIDTH]
    if column[-_WIDTH:] == first and column == first * (len(column) // _WIDTH):
        return first
    return column


def expanded(column: bytes, rows: int) -> bytes:
    """The column with a value for every row."""
    return column * rows if len(column) == _WIDTH else column


class RowColumns(Sequence[bytes]):
    """The columns of rows of `width` doubles, each made when it is asked for: a query wants a few out of hundreds."""

    __slots__ = ("_values", "_width")

    def __init__(self, rows: bytes | bytearray, width: int) -> None:
        self._values = array("d")
        self._values.frombytes(rows)
        self._width = width

    def __len__(self) -> int:
        return self._width

    @overload
    def __getitem__(self, place: int) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> list[bytes]: ...
    def __getitem__(self, place: int | slice) -> bytes | list[bytes]:
        if isinstance(place, slice):
            return [self[one] for one in range(self._width)[place]]
        return collapsed(self._values[range(self._width)[place] :: self._width].tobytes())


def joined(blocks: Sequence[Block]) -> Block:
    """Blocks of one source, in order of time, as one; series that never have a sample are left out."""
    if len(blocks) == 1:
        return blocks[0]
    series: dict[int, None] = {}
    for block in blocks:
        series.update(dict.fromkeys(block.layout.series))
    times = array("q")
    for block in blocks:
        times.extend(block.times)
    kept: list[int] = []
    columns: list[bytes] = []
    for one in series:
        column = _joined_column(blocks, one)
        if column != ABSENT_BYTES:
            kept.append(one)
            columns.append(column)
    first = blocks[0].layout
    return Block(first if tuple(kept) == first.series else Layout(kept), times, columns)


def without_gaps(blocks: Sequence[Block], gap_ms: int) -> list[list[Block]]:
    """The blocks, cut wherever more than `gap_ms` lies between two rows."""
    found: list[list[Block]] = []
    last = -(2**62)
    for block in blocks:
        times = block.times
        edges = [last, *(before for before, at in pairwise(times) if at - before > gap_ms), times[-1]]
        for after, until in pairwise(edges):
            piece = block.between(after, until)
            if piece is not None:
                if not found or piece.times[0] - last > gap_ms:
                    found.append([])
                found[-1].append(piece)
                last = until
    return found


def _joined_column(blocks: Sequence[Block], series: int) -> bytes:
    parts = []
    for block in blocks:
        place = block.layout.places.get(series)
        parts.append((ABSENT_BYTES if place is None else block.columns[place], len(block.times)))
    first = parts[0][0]
    if len(first) == _WIDTH and all(column == first for column, _ in parts):
        return first
    return collapsed(b"".join([expanded(column, rows) for column, rows in parts]))


def samples_in(column: bytes, rows: int) -> int:
    """How many rows of the column hold a sample."""
    if len(column) == _WIDTH:
        return 0 if column == ABSENT_BYTES else rows
    return rows - sum(1 for _ in _absences(column))


def present(times: array[int], column: bytes) -> tuple[array[int], array[float]]:
    """Times and values of the rows that hold a sample."""
    if len(column) == _WIDTH:
        if column == ABSENT_BYTES:
            return array("q"), array("d")
        values = array("d")
        values.frombytes(column * len(times))
        return times, values
    values = array("d")
    values.frombytes(column)
    absences = set(_absences(column))
    if not absences:
        return times, values
    kept = [row for row in range(len(times)) if row not in absences]
    return array("q", [times[row] for row in kept]), array("d", [values[row] for row in kept])


def newest(times: array[int], column: bytes, after_ms: int, until_ms: int) -> tuple[int, float] | None:
    """The last sample with after < time <= until: its time and value; None where there is none."""
    row = bisect_right(times, until_ms) - 1
    is_constant = len(column) == _WIDTH
    while row >= 0 and times[row] > after_ms:
        value = column if is_constant else column[row * _WIDTH : (row + 1) * _WIDTH]
        if value != ABSENT_BYTES:
            return times[row], _DOUBLE.unpack(value)[0]
        if is_constant:
            return None
        row -= 1
    return None


def _absences(column: bytes) -> Iterator[int]:
    at = column.find(ABSENT_BYTES)
    while at >= 0:
        if at % _WIDTH == 0:
            yield at // _WIDTH
            at = column.find(ABSENT_BYTES, at + _WIDTH)
        else:
            at = column.find(ABSENT_BYTES, at + 1)


def cut(times: array[int], values: array[float], start_ms: int, end_ms: int) -> tuple[array[int], array[float]]:
    """The samples in [start, end]."""
    low, high = bisect_left(times, start_ms), bisect_right(times, end_ms)
    if low == 0 and high == len(times):
        return times, values
    return times[low:high], values[low:high]
