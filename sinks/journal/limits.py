"""What the journal may cost."""

from __future__ import annotations

from dataclasses import dataclass

from agent.core.options import option
from agent.core.units import Bytes, Seconds

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What the journal of readings may cost; beyond it the oldest go first, counted for each sink that lacked them."""

    max_bytes: Bytes = option(1024 * MIB, "Disk space the journal may use.", minimum=64 * 1024)
    max_age: Seconds = option(7 * 86400.0, "Records older than this are dropped, read or not.", minimum=60)
    min_free_bytes: Bytes = option(
        256 * MIB, "Free disk space below which the journal drops its oldest records.", minimum=0
    )
    keep: Seconds = option(
        900.0,
        "Records that every reader has had stay this long; with history, two `flush` and 5m or more.",
        minimum=0,
    )
    segment_age: Seconds = option(600.0, "A file is closed and compressed after this time.", minimum=1)
    segment_bytes: Bytes = option(4 * MIB, "A file is closed and compressed at this size.", minimum=4096)
    memory_bytes: Bytes = option(16 * MIB, "Records held in memory while the disk takes none.", minimum=64 * 1024)
    recent_bytes: Bytes = option(
        128 * 1024, "Newest records kept in memory for readers that are up to date.", minimum=0
    )
