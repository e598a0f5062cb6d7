"""One file of the journal: its head, what is in it, and its packed form.

A segment is named after the number of its first record. A plain one (`.seg`) is being written or was just closed; a
packed one (`.segz`) holds the same records compressed, its definitions first and twice.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple
from zlib import crc32

import zstandard

from sinks.journal import frame
from sinks.journal.frame import Frame, scan

VERSION = 1
_MAGIC = b"vigilhost-journal\n"
_HEAD = struct.Struct("<18sHBxqQQQqq")  # magic, version, packed, created, base, end, points, first and last time
HEAD_BYTES = _HEAD.size + 4
_NAME = re.compile(r"(\d{20})\.(segz?)")
_CHUNK_BYTES = 512 * 1024  # of records compressed together: what one damaged byte costs, at most
_MOST_CHUNK_BYTES = 256 * 1024 * 1024  # a chunk that claims more is not one of ours
_LEVEL = 3

PACKED_KINDS = (frame.PACKED_DEFINITIONS, frame.PACKED_TICKS)
DEFINITIONS = (frame.GROUP, frame.SHAPE)
TICKS = (frame.TICK, frame.TICK_WHOLE)


@dataclass(slots=True)
class Segment:
    """What is known of one file. Numbers `base` to `end` (exclusive) are in it, except where it is damaged."""

    path: str
    base: int
    created_ns: int
    end: int
    size: int = 0  # bytes on disk
    points: int = 0
    first_ns: int = 0  # times of the earliest and the latest Tick; 0 while there is none
    last_ns: int = 0
    is_packed: bool = False
    is_open: bool = False  # being written

    def note(self, number: int, time_ns: int, points: int) -> None:
        """Count one more record."""
        self.end = number + 1
        self.points += points
        self.first_ns = min(self.first_ns or time_ns, time_ns)
        self.last_ns = max(self.last_ns, time_ns)


class Finding(NamedTuple):
    """What a file turned out to be; `segment` is None unless it is `good`."""

    verdict: Literal["good", "empty", "newer", "damaged"]
    segment: Segment | None = None
    good_bytes: int = 0  # where the last good record ends
    is_whole: bool = False  # nothing but good records up to there, so more may be appended
    definitions: frozenset[int] = frozenset()


def name_of(base: int, *, packed: bool = False) -> str:
    return f"{base:020d}.seg" + ("z" if packed else "")


def base_of(name: str) -> tuple[int, bool] | None:
    """First number and packedness of a segment's file name, None for other files."""
    match = _NAME.fullmatch(name)
    return match and (int(match[1]), match[2] == "segz")


def build_head(segment: Segment, *, packed: bool = False) -> bytes:
    """The first bytes of a file. A plain file says only who it is: its contents are counted when it is opened."""
    told = (segment.end, segment.points, segment.first_ns, segment.last_ns) if packed else (0, 0, 0, 0)
    head = _HEAD.pack(_MAGIC, VERSION, packed, segment.created_ns, segment.base, *told)
    return head + crc32(head).to_bytes(4, "little")


def parse_head(path: str, base: int, head: bytes, size: int) -> Segment | None:
    """What the head of a file of `size` bytes says, None when it is damaged or of another version."""
    if len(head) < HEAD_BYTES or crc32(head[: _HEAD.size]) != int.from_bytes(head[_HEAD.size : HEAD_BYTES], "little"):
        return None
    magic, version, packed, created_ns, said_base, end, points, first_ns, last_ns = _HEAD.unpack_from(head)
    if magic != _MAGIC or version != VERSION or said_base != base:
        return None
    return Segment(path, base, created_ns, max(end, base), size, points, first_ns, last_ns, is_packed=bool(packed))


def inspect(path: str, base: int, data: bytes) -> Finding:
    """Look at the whole of a file."""
    told = parse_head(path, base, data, len(data))
    segment = Segment(path, base, told.created_ns if told else 0, base, len(data), is_packed=path.endswith("z"))
    expected = HEAD_BYTES
    good_bytes, is_whole, definitions = HEAD_BYTES, told is not None, set[int]()
    for outer in scan(data, HEAD_BYTES if told else 0):
        is_whole = is_whole and outer.start == expected
        expected = good_bytes = outer.stop
        for record in unpack(outer):
            if record.kind in DEFINITIONS:
                definitions.add(record.number)
            elif record.kind in TICKS:
                segment.note(record.number, record.time_ns, record.points)
    if segment.end > base:
        segment.created_ns = segment.created_ns or segment.first_ns
        return Finding("good", segment, good_bytes, is_whole, frozenset(definitions))
    if not data or (told is not None and len(data) == HEAD_BYTES):
        return Finding("empty")
    if is_newer(data):
        return Finding("newer")
    return Finding("damaged")


def is_newer(head: bytes) -> bool:
    """Do these first bytes of a file say that a newer version wrote it?"""
    return head.startswith(_MAGIC) and int.from_bytes(head[len(_MAGIC) : len(_MAGIC) + 2], "little") > VERSION


def records(data: bytes) -> Iterator[Frame]:
    """Every undamaged record of a plain or packed file, in order."""
    for outer in scan(data):
        yield from unpack(outer)


def unpack(outer: Frame) -> Iterator[Frame]:
    """The records inside a compressed one; any other record itself."""
    if outer.kind not in PACKED_KINDS:
        yield outer
        return
    try:
        if zstandard.frame_content_size(outer.payload) > _MOST_CHUNK_BYTES:
            return
        inner = zstandard.ZstdDecompressor().decompress(outer.payload)
    except zstandard.ZstdError:
        return  # its checksum fits, so it was written like this: the gap in the numbers will be counted
    yield from scan(inner)


def pack(segment: Segment, data: bytes) -> bytes:
    """The compressed form of the plain file `data`, damaged places left out."""
    definitions: dict[int, bytes] = {}
    chunks: list[list[Frame]] = [[]]
    filled = 0
    for record in scan(data):
        if record.kind in DEFINITIONS:
            definitions.setdefault(record.number, data[record.start : record.stop])
            continue
        if filled >= _CHUNK_BYTES:
            chunks.append([])
            filled = 0
        chunks[-1].append(record)
        filled += record.stop - record.start
    squeeze = zstandard.ZstdCompressor(level=_LEVEL).compress
    head = build_head(segment, packed=True)
    known = frame.build(frame.PACKED_DEFINITIONS, 0, 0, 0, squeeze(b"".join(definitions.values())))
    packed = [
        frame.build(
            frame.PACKED_TICKS, chunk[0].number, chunk[0].time_ns, 0,
            squeeze(b"".join(data[record.start : record.stop] for record in chunk)),
        )
        for chunk in chunks if chunk
    ]  # fmt: skip
    # Twice: without its definitions a segment is worth nothing, and a damaged byte hits one place.
    return b"".join((head, known, known, *packed))
