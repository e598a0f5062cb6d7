"""Coarser copies of history: for each series and bucket what is needed to answer a window exactly.

A bucket holds the samples in (end - step, end], as a PromQL window does. Columns of a bucket, all doubles: how many
samples, their sum, least, greatest, first and last; the sum of the values just before each counter reset, so that
increase = last - first + resets; and how long before the end the first and the last sample were. Where a stale marker
ended the series after its last sample, that last distance is stored as -1 - distance.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, compress, pairwise
from math import isfinite
from operator import lt
from typing import Final, NamedTuple

from sinks.history.columns import ABSENT, ABSENT_BYTES, Block, Layout, collapsed, expanded, present
from sinks.history.promql import numbers
from sinks.history.promql.storage import STALE_BYTES, is_stale

KINDS: Final = 9  # columns of one series in a block of a tier


class Bucket(NamedTuple):
    """What is kept of the samples in one bucket; times are distances to its end, ms."""

    samples: float
    total: float
    least: float
    greatest: float
    first: float
    last: float
    resets: float
    first_before: float
    last_before: float  # -1 - distance where the series had ended

    @property
    def is_ended(self) -> bool:
        return self.last_before < 0

    @property
    def last_distance(self) -> float:
        return -1 - self.last_before if self.last_before < 0 else self.last_before


@dataclass(frozen=True, slots=True)
class Tier:
    """One level of detail. Blocks of a coarser tier cover a window each, once all of it is there."""

    number: int
    name: str
    step_ms: int
    window_ms: int


RAW: Final = Tier(0, "raw", 0, 0)
FIVE_MINUTES: Final = Tier(1, "5m", 300_000, 3_600_000)
ONE_HOUR: Final = Tier(2, "1h", 3_600_000, 86_400_000)
TIERS: Final = (RAW, FIVE_MINUTES, ONE_HOUR)
_MISSING: Final = (ABSENT,) * KINDS


def bucket_end(time_ms: int, step_ms: int) -> int:
    """End of the bucket that holds the moment."""
    return -(-time_ms // step_ms) * step_ms


def window_start(time_ms: int, tier: Tier) -> int:
    """Start of the window of a tier that holds the moment; windows too are open on the left."""
    return bucket_end(time_ms, tier.window_ms) - tier.window_ms


def from_samples(block: Block, step_ms: int) -> Block | None:
    """The buckets of raw rows; None where there are no samples."""
    times = block.times
    ends = list(dict.fromkeys(map(lambda at: bucket_end(at, step_ms), times)))  # noqa: C417
    bounds = []
    low = 0
    for end in ends:
        high = bisect_right(times, end, low)
        bounds.append((low, high))
        low = high
    found: dict[int, list[tuple[float, ...]]] = {}
    for series, column in zip(block.layout.series, block.columns, strict=True):
        if column != ABSENT_BYTES:
            found[series] = _buckets(times, column, ends, bounds)
    return _block(ends, found)


def _buckets(
    times: array[int], column: bytes, ends: list[int], bounds: list[tuple[int, int]]
) -> list[tuple[float, ...]]:
    if len(column) == 8:
        (value,) = array("d", column)
        if isfinite(value):
            counts = [high - low for low, high in bounds]
            edges = [(end - times[low], end - times[high - 1]) for end, (low, high) in zip(ends, bounds, strict=True)]
            return [
                (n, value * n, value, value, value, value, 0.0, *edge) for n, edge in zip(counts, edges, strict=True)
            ]
        column *= len(times)
    if ABSENT_BYTES in column or STALE_BYTES in column:
        t, v = present(times, column)
        low = 0
        exact: list[tuple[float, ...]] = []
        for end in ends:
            high = bisect_right(t, end, low)
            exact.append(bucket(t[low:high], v[low:high], end) or _MISSING)
            low = high
        return exact
    values = array("d", column)
    return [
        bucket(times[low:high], values[low:high], end) or _MISSING
        for end, (low, high) in zip(ends, bounds, strict=True)
    ]


def bucket(times: Sequence[int], values: array[float], end_ms: int) -> Bucket | None:
    """The bucket of these samples, stale markers among them; None where there is nothing at all."""
    if not times:
        return None
    is_ended = False
    if STALE_BYTES in values.tobytes():
        is_ended = is_stale(values[-1])
        kept = [index for index, value in enumerate(values) if not is_stale(value)]
        if not kept:
            return Bucket(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0 - (end_ms - times[-1]))
        times, values = [times[index] for index in kept], array("d", [values[index] for index in kept])
    last_before = float(end_ms - times[-1])
    return Bucket(
        float(len(values)),
        numbers.total(values),
        numbers.lowest(values),
        numbers.highest(values),
        values[0],
        values[-1],
        sum(compress(values, map(lt, values[1:], values)), 0.0),
        float(end_ms - times[0]),
        -1.0 - last_before if is_ended else last_before,
    )


def from_buckets(blocks: Sequence[Block], step_ms: int) -> Block | None:
    """Coarser buckets of finer ones, whose blocks come in order of time; None where there are none."""
    ends = list(dict.fromkeys(bucket_end(at, step_ms) for block in blocks for at in block.times))
    by_series: dict[int, dict[int, list[tuple[int, Bucket]]]] = {}
    for block in blocks:
        for series, rows in rows_of(block).items():
            by_end = by_series.setdefault(series, {})
            for fine_end, one in rows:
                by_end.setdefault(bucket_end(fine_end, step_ms), []).append((fine_end, one))
    return _block(ends, {
        series: [_combined(by_end[end], end) if end in by_end else _MISSING for end in ends]
        for series, by_end in by_series.items()
    })  # fmt: skip


def _combined(parts: list[tuple[int, Bucket]], end_ms: int) -> Bucket:
    full = [(end, one) for end, one in parts if one.samples]
    last_end, last = parts[-1]
    is_ended = last.is_ended
    if not full:
        return Bucket(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0 - (end_ms - last_end + last.last_distance))
    resets = [one.resets for _, one in full]
    resets += [a.last for (_, a), (_, b) in pairwise(full) if b.first < a.last]
    last_before = end_ms - full[-1][0] + full[-1][1].last_distance
    return Bucket(
        sum(one.samples for _, one in full),
        numbers.total([one.total for _, one in full]),
        numbers.lowest([one.least for _, one in full]),
        numbers.highest([one.greatest for _, one in full]),
        full[0][1].first,
        full[-1][1].last,
        sum(resets),
        end_ms - full[0][0] + full[0][1].first_before,
        -1.0 - last_before if is_ended else last_before,
    )


def rows_of(block: Block) -> dict[int, list[tuple[int, Bucket]]]:
    """The buckets of every series in a block of a tier, by series, in order of their ends."""
    return {
        series: rows_of_columns(block.times, block.columns[place * KINDS : (place + 1) * KINDS])
        for place, series in enumerate(block.layout.series)
    }


def rows_of_columns(times: array[int], columns: Sequence[bytes]) -> list[tuple[int, Bucket]]:
    """Ends and buckets of one series, those without any sample left out."""
    rows = len(times)
    if columns[0] == ABSENT_BYTES:
        return []
    kinds = [array("d", expanded(column, rows)) for column in columns]
    found = list(zip(times, map(Bucket._make, zip(*kinds, strict=True)), strict=True))
    if ABSENT_BYTES in columns[0]:
        return [(end, one) for end, one in found if one.samples == one.samples]
    return found


def _block(ends: list[int], found: dict[int, list[tuple[float, ...]]]) -> Block | None:
    series = [one for one, rows in found.items() if any(row is not _MISSING for row in rows)]
    if not series:
        return None
    columns = [collapsed(array("d", values).tobytes()) for one in series for values in zip(*found[one], strict=True)]
    return Block(Layout(series), array("q", ends), columns)


def united(old: Block, new: Block) -> Block:
    """The buckets of both; where both have one, the new one. A clock set back makes a window be built twice."""
    rows = {series: dict(found) for series, found in rows_of(old).items()}
    for series, fresh in rows_of(new).items():
        rows.setdefault(series, {}).update(fresh)
    ends = sorted(set(chain(old.times, new.times)))
    found: dict[int, list[tuple[float, ...]]] = {
        series: [by_end.get(end, _MISSING) for end in ends] for series, by_end in rows.items()
    }
    block = _block(ends, found)
    assert block is not None
    return block
