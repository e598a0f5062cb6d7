"""What the evaluator needs of a store: series as columns, and optionally windows answered from aggregates.

A stale marker is the NaN with the bits 0x7FF0000000000002; it ends a series. Every other NaN is a value.
"""

import struct
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from agent.core.labels import Labels, Matcher

STALE_BYTES: Final = struct.pack("=Q", 0x7FF0000000000002)
STALE: Final[float] = struct.unpack("=d", STALE_BYTES)[0]


def is_stale(value: float) -> bool:
    """Is this very NaN the stale marker?"""
    return value != value and struct.pack("=d", value) == STALE_BYTES


def nothing() -> None:
    """For callers without a deadline."""


@dataclass(frozen=True, slots=True)
class SelectHints:
    """What the samples are for, so that a store may choose a tier. It may ignore all of it.

    `range_ms` is 0 for an instant selector; `function` is the call or aggregation directly around it, "" for none;
    `max_samples` is what the query may still read: a store raises TooMuchError rather than load more. `check` raises
    QueryTimeoutError past the query's deadline: call it now and then.
    """

    step_ms: int = 0
    range_ms: int = 0
    lookback_ms: int = 0
    function: str = ""
    grouping: tuple[str, ...] = ()
    by: bool = False
    is_newest_enough: bool = False  # of each series the newest sample in [start, end] will do
    max_samples: int = 0
    check: Callable[[], None] = field(default=nothing, compare=False, repr=False)


class WindowAnswers(Protocol):
    """Windows over a series that a store answers without samples, from pre-aggregated columns."""

    def windows(self, function: str, ends_ms: Sequence[int], range_ms: int) -> Sequence[float | None] | None:
        """`function` over (end - range, end] for each end; None inside where the window is empty.

        None as a whole: this function cannot be answered so, use the samples.
        """
        ...


@dataclass(slots=True)
class SeriesColumns:
    """Samples of one series, times ascending, never two at the same time. The evaluator does not change the columns.

    `resolution_ms` is the distance of samples in a tier, 0 for raw ones: the lookback becomes at least one, a range at
    least two of it.
    """

    labels: Labels
    t: "array[int]"  # 'q', ms
    v: "array[float]"  # 'd'
    resolution_ms: int = 0
    answers: WindowAnswers | None = None


class Storage(Protocol):
    """A store of series."""

    def select(
        self, matchers: Sequence[Matcher], start_ms: int, end_ms: int, hints: SelectHints
    ) -> list[SeriesColumns]:
        """Every series that meets all matchers, with its samples in [start, end]; more on either side does no harm.

        A series with a resolution needs samples from two of it before `start`, since lookback and ranges grow.
        """
        ...


def without_stale(t: "array[int]", v: "array[float]") -> "tuple[array[int], array[float]]":
    """The columns without stale markers; the same objects where there is none."""
    raw = v.tobytes()
    marks = set()
    at = raw.find(STALE_BYTES)
    while at >= 0:
        if at % 8 == 0:
            marks.add(at // 8)
        at = raw.find(STALE_BYTES, at + 1)
    if not marks:
        return t, v
    kept = [index for index in range(len(v)) if index not in marks]
    return array("q", [t[index] for index in kept]), array("d", [v[index] for index in kept])
