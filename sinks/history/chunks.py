"""Blocks as they lie on disk: times, the values that never change, and the changing columns in compressed parts.

A part holds a few columns, so that reading one series does not unpack them all. They are plain doubles: on readings
of a real host, splitting them into planes of bytes makes zstd's result 12 % larger, not smaller.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from operator import sub
from typing import Final

import zstandard

from sinks.history.columns import Block, Layout

_LEVEL: Final = 6
_WIDTH: Final = 8
MOST_BYTES: Final = 256 * 1024 * 1024  # a part that claims to be larger is damaged


class DamagedError(ValueError):
    """Bytes that are no block."""


@dataclass(slots=True)
class Packed:
    """A block ready for the file. `times` is empty where the rows are evenly spaced from the first to the last."""

    first_ms: int
    last_ms: int
    rows: int
    times: bytes
    constants: bytes
    parts: list[bytes]


def pack(block: Block, part_columns: int) -> Packed:
    """The block compressed, `part_columns` changing columns to a part."""
    compress = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True, write_content_size=True).compress
    rows = len(block.times)
    changing = [column for column in block.columns if len(column) != _WIDTH]
    mask = bytes([len(column) == _WIDTH for column in block.columns])
    constant = b"".join([column for column in block.columns if len(column) == _WIDTH])
    parts = [compress(b"".join(changing[at : at + part_columns])) for at in range(0, len(changing), part_columns)]
    constants = compress(mask + constant)
    return Packed(block.times[0], block.times[-1], rows, _pack_times(block.times, compress), constants, parts)


def _pack_times(times: array[int], compress: Callable[[bytes], bytes]) -> bytes:
    if len(times) < 3:
        return b""
    steps = array("q", map(sub, times[1:], times))
    if steps.count(steps[0]) == len(steps):
        return b""
    return compress(steps.tobytes())


class Unpacker:
    """Reads what `pack` wrote; one for each thread."""

    def __init__(self) -> None:
        self._decompress = zstandard.ZstdDecompressor().decompress

    def _bytes(self, data: bytes, size: int) -> bytes:
        """Raise DamagedError unless it unpacks to `size` bytes."""
        if size > MOST_BYTES:
            raise DamagedError(f"a part of {size} bytes")
        try:
            found = self._decompress(data, max_output_size=size)
        except zstandard.ZstdError as error:
            raise DamagedError(str(error)) from error
        if len(found) != size:
            raise DamagedError(f"{len(found)} bytes in place of {size}")
        return found

    def times(self, first_ms: int, last_ms: int, rows: int, data: bytes) -> array[int]:
        """The time of every row. Raise DamagedError."""
        if not 1 <= rows <= MOST_BYTES // _WIDTH or last_ms - first_ms < rows - 1:
            raise DamagedError(f"{rows} rows from {first_ms} to {last_ms}")
        if not data:
            step = (last_ms - first_ms) // (rows - 1) if rows > 1 else 1
            return array("q", range(first_ms, first_ms + rows * step, step))
        steps = struct.unpack(f"={rows - 1}q", self._bytes(data, (rows - 1) * _WIDTH))
        times = array("q", [first_ms])
        at = first_ms
        for step in steps:
            at += step
            times.append(at)
        return times

    def constants(self, data: bytes, columns: int) -> Constants:
        """The constant columns of a block. Raise DamagedError."""
        try:
            size = zstandard.get_frame_parameters(data).content_size
        except zstandard.ZstdError as error:
            raise DamagedError(f"no constants: {error}") from error
        if size < columns:
            raise DamagedError("no constants")
        found = self._bytes(data, size)
        mask = found[:columns]
        if len(found) != columns + mask.count(1) * _WIDTH:
            raise DamagedError("constants of another layout")
        return Constants(mask, found[columns:])

    def columns(self, data: bytes, columns: int, rows: int, wanted: list[int]) -> list[bytes]:
        """Some columns of a part, by their place in it. Raise DamagedError."""
        size = rows * _WIDTH
        found = self._bytes(data, columns * size)
        return [found[place * size : (place + 1) * size] for place in wanted]


@dataclass(slots=True)
class Constants:
    """Which columns of a block are constant, and their values."""

    mask: bytes
    values: bytes

    def value(self, place: int) -> bytes | None:
        """The 8 bytes of a constant column; None where it changes."""
        if not self.mask[place]:
            return None
        at = self.mask.count(1, 0, place) * _WIDTH
        return self.values[at : at + _WIDTH]

    def rank(self, place: int) -> int:
        """The place of a changing column among the changing ones."""
        return place - self.mask.count(1, 0, place)

    @property
    def changing(self) -> int:
        return len(self.mask) - self.mask.count(1)


def layout_bytes(layout: Layout) -> bytes:
    """The numbers of a layout's series."""
    return array("I", layout.series).tobytes()


def layout_from(data: bytes | None) -> Layout:
    """The layout of those numbers. Raise DamagedError."""
    if data is None or len(data) % 4:
        raise DamagedError("a layout cut short")
    numbers = array("I")
    numbers.frombytes(data)
    return Layout(numbers)
