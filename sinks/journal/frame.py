"""How one record lies in a file: a head with its length and checksum, then its payload.

The first bytes of a head are a mark that msgpack never produces, so that after a damaged place the next good record is
found by searching for the mark and trusting only a checksum that fits.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

MARK = b"\xc1VJ"  # a format that older versions cannot read must change it: that is how they know to keep off

# Kinds of records. Readers skip kinds they do not know, and count them.
GROUP = 1  # the declaration of a Group; `number` is its id
SHAPE = 2  # the series a collector's Ticks have in common; `number` is its id
TICK = 3  # values of a Shape; `number` is the record's place in the journal
TICK_WHOLE = 4  # a Tick with its own list of series
PACKED_DEFINITIONS = 5  # GROUP and SHAPE records, compressed together
PACKED_TICKS = 6  # other records, compressed together; `number` is that of the first

_HEAD = struct.Struct("<3sBIQqI")  # mark, kind, payload length, number, time in ns, points
_CHECKSUM = struct.Struct("<I")
HEAD_BYTES = _HEAD.size + _CHECKSUM.size


class Frame(NamedTuple):
    """A record found whole in a file."""

    kind: int
    number: int
    time_ns: int
    points: int
    payload: memoryview
    start: int  # offsets in the file
    stop: int


def build(kind: int, number: int, time_ns: int, points: int, payload: bytes) -> bytes:
    """The bytes of one record."""
    head = _HEAD.pack(MARK, kind, len(payload), number, time_ns, points)
    return head + _CHECKSUM.pack(crc32(payload, crc32(head))) + payload


def scan(data: bytes, start: int = 0) -> Iterator[Frame]:
    """Every undamaged record of `data` from `start` on, in order; whatever lies between them is passed over."""
    view = memoryview(data)
    at: int = start
    while at + HEAD_BYTES <= len(data):
        frame = _frame_at(view, at)
        if frame is not None:
            yield frame
            at = frame.stop
        elif (at := data.find(MARK, at + 1)) < 0:
            return


def _frame_at(view: memoryview, at: int) -> Frame | None:
    """The record that starts at `at`, None when there is no undamaged one."""
    mark, kind, length, number, time_ns, points = _HEAD.unpack_from(view, at)
    body = at + HEAD_BYTES
    stop = body + length
    if mark != MARK or stop > len(view):
        return None
    payload = view[body:stop]
    (checksum,) = _CHECKSUM.unpack_from(view, at + _HEAD.size)
    if crc32(payload, crc32(view[at : at + _HEAD.size])) != checksum:
        return None
    return Frame(kind, number, time_ns, points, payload, at, stop)
