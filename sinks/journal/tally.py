"""What the journal counts, for /metrics, /health and the log."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

# Called as tell("journal.set_aside", file="...", error="..."): a structured logger's `warning` fits.
Tell = Callable[..., object]


@dataclass(slots=True)
class Tally:
    """Totals since the journal was opened."""

    appended_records: int = 0
    appended_points: int = 0
    written_bytes: int = 0  # plain records, as appended
    packed_bytes: int = 0  # compressed files written
    dropped_records: int = 0  # gone before every reader had them: caps, or memory full while the disk took none
    dropped_points: int = 0
    damaged_records: int = 0  # found missing or unreadable by a reader
    unknown_records: int = 0  # of a kind this version does not know
    torn_bytes: int = 0  # cut from the end of the newest file when it was opened
    set_aside: list[str] = field(default_factory=list)  # files renamed because they could not be read
    newer: list[str] = field(default_factory=list)  # files of a newer version, left alone
    errors: Counter[str] = field(default_factory=Counter)  # failed calls: `write ENOSPC`

    def failed(self, call: str, error: OSError) -> None:
        """Count a call the file system refused."""
        self.errors[f"{call} {errno.errorcode.get(error.errno or 0, 'error')}"] += 1


def tell_nobody(event: str, **facts: object) -> None:
    """For callers that do not log."""
