"""Windows of a range vector answered from buckets and samples, without reading all the samples.

The pieces of a series, in order of time: buckets where history is coarse (or where that is enough), samples at the
edges. A window that begins and ends between pieces is answered as PromQL does over all the samples. One that begins or
ends inside a bucket is moved back to the bucket's edge.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import compress, count
from operator import lt
from typing import Final

from sinks.history.promql import numbers
from sinks.history.promql.storage import STALE, without_stale
from sinks.history.tiers import Bucket

_BEYOND: Final = 1.1  # as in rate(): a gap to the window's edge up to this many sample distances is bridged whole


class Pieces:
    """Buckets and samples of one series, appended in order of time; `v` and `t` are its samples for other functions."""

    __slots__ = (
        "_bursts", "_spans", "count", "ends", "first", "first_at", "greatest", "last", "last_at",
        "least", "resets", "t", "total", "v",
    )  # fmt: skip

    def __init__(self) -> None:
        self.t = array("q")
        self.v = array("d")
        self.ends = array("q")
        self.count = array("d")
        self.total = array("d")
        self.least = array("d")
        self.greatest = array("d")
        self.first = array("d")
        self.last = array("d")
        self.resets = array("d")
        self.first_at = array("q")
        self.last_at = array("q")
        self._spans: list[tuple[int, int, int]] = []  # (after, until, step) of stretches made of buckets
        self._bursts: list[int] | None = None

    def add_span(self, after_ms: int, until_ms: int, step_ms: int) -> None:
        """Of (after, until] only the buckets are known."""
        self._spans.append((after_ms, until_ms, step_ms))

    def add_buckets(self, rows: Iterable[tuple[int, Bucket]], lookback_ms: int) -> None:
        """As a sample, a bucket is the value at its end, or nothing where that is older than the lookback."""
        for end, one in rows:
            self.t.append(end)
            self.v.append(STALE if one.is_ended or one.last_before >= lookback_ms else one.last)
            if one.samples:
                self.ends.append(end)
                self.count.append(one.samples)
                self.total.append(one.total)
                self.least.append(one.least)
                self.greatest.append(one.greatest)
                self.first.append(one.first)
                self.last.append(one.last)
                self.resets.append(one.resets)
                self.first_at.append(end - int(one.first_before))
                self.last_at.append(end - int(one.last_distance))

    def add_samples(self, t: array[int], v: array[float]) -> None:
        """Raw samples, stale markers among them."""
        self.t.extend(t)
        self.v.extend(v)
        t, v = without_stale(t, v)
        ones, zeros = array("d", [1.0]) * len(t), array("d", bytes(8 * len(t)))
        for column in (self.ends, self.first_at, self.last_at):
            column.extend(t)
        for values in (self.total, self.least, self.greatest, self.first, self.last):
            values.extend(v)
        self.count.extend(ones)
        self.resets.extend(zeros)

    def edge(self, at_ms: int) -> int:
        """The moment itself, or the last end of a bucket before it where only buckets are known."""
        for after, until, step in self._spans:
            if after < at_ms < until:
                return max(at_ms // step * step, after)
        return at_ms

    def windows(self, function: str, ends_ms: Sequence[int], range_ms: int) -> Sequence[float | None] | None:
        """`function` over (end - range, end] for each end, None where empty; None for a function not known here."""
        answer = ANSWERS.get(function)
        if answer is None:
            return None
        found: list[float | None] = []
        for end in ends_ms:
            begin, finish = self.edge(end - range_ms), self.edge(end)
            low, high = bisect_right(self.ends, begin), bisect_right(self.ends, finish)
            found.append(answer(self, low, high, begin, finish) if low < high else None)
        return found

    def reset_total(self, low: int, high: int) -> float:
        """Sum of the values before the resets that happened between the first and the last sample of the pieces."""
        if self._bursts is None:
            between = compress(count(1), map(lt, self.first[1:], self.last))
            inside = compress(count(), self.resets)
            self._bursts = sorted({*between, *inside})
        total = 0.0
        bursts = self._bursts
        for index in bursts[bisect_left(bursts, low) : bisect_left(bursts, high)]:
            total += self.resets[index]
            if index > low and self.first[index] < self.last[index - 1]:
                total += self.last[index - 1]
        return total

    def samples(self, low: int, high: int) -> float:
        """How many samples the pieces stand for."""
        return sum(self.count[low:high])

    def merged(self, other: Pieces) -> None:
        """Take in the pieces of the same labels from another source; at equal times the other's count."""
        for stamps, columns in (("t", ("v",)), ("ends", _OF_PIECES)):
            order: dict[int, tuple[Pieces, int]] = {end: (self, i) for i, end in enumerate(getattr(self, stamps))}
            order.update({end: (other, i) for i, end in enumerate(getattr(other, stamps))})
            chosen = [order[end] for end in sorted(order)]
            for name in columns:
                values = [getattr(pieces, name)[index] for pieces, index in chosen]
                setattr(self, name, array(getattr(self, name).typecode, values))
            setattr(self, stamps, array("q", sorted(order)))
        self._bursts = None


_OF_PIECES: Final = ("count", "total", "least", "greatest", "first", "last", "resets", "first_at", "last_at")
_Answer = Callable[[Pieces, int, int, int, int], float | None]


def _change(is_counter: bool, per_second: bool) -> _Answer:
    """rate, increase and delta: the change between the first and the last sample, extrapolated to the edges."""

    def answer(pieces: Pieces, low: int, high: int, begin: int, finish: int) -> float | None:
        samples = pieces.samples(low, high)
        if samples < 2:
            return None
        first, change = pieces.first[low], pieces.last[high - 1] - pieces.first[low]
        if is_counter:
            change += pieces.reset_total(low, high)
        first_at, last_at = pieces.first_at[low], pieces.last_at[high - 1]
        sampled = (last_at - first_at) / 1000
        distance = sampled / (samples - 1)
        to_start, to_end = (first_at - begin) / 1000, (finish - last_at) / 1000
        if to_start >= distance * _BEYOND:
            to_start = distance / 2
        if is_counter and change > 0 and first >= 0:  # a counter was 0 no later than the line through it says
            to_start = min(to_start, sampled * (first / change))
        if to_end >= distance * _BEYOND:
            to_end = distance / 2
        factor = (sampled + to_start + to_end) / sampled
        return change * (factor / ((finish - begin) / 1000) if per_second else factor)

    return answer


def _total(pieces: Pieces, low: int, high: int, begin: int, finish: int) -> float:  # noqa: ARG001
    return numbers.total(pieces.total[low:high])


def _mean(pieces: Pieces, low: int, high: int, begin: int, finish: int) -> float:  # noqa: ARG001
    return numbers.total(pieces.total[low:high]) / pieces.samples(low, high)


ANSWERS: Final[dict[str, _Answer]] = {
    "rate": _change(is_counter=True, per_second=True),
    "increase": _change(is_counter=True, per_second=False),
    "delta": _change(is_counter=False, per_second=False),
    "sum_over_time": _total,
    "avg_over_time": _mean,
    "count_over_time": lambda pieces, low, high, begin, finish: pieces.samples(low, high),  # noqa: ARG005
    "present_over_time": lambda pieces, low, high, begin, finish: 1.0,  # noqa: ARG005
    "min_over_time": lambda p, low, high, begin, finish: numbers.lowest(p.least[low:high]),  # noqa: ARG005
    "max_over_time": lambda p, low, high, begin, finish: numbers.highest(p.greatest[low:high]),  # noqa: ARG005
    "first_over_time": lambda p, low, high, begin, finish: p.first[low],  # noqa: ARG005
    "last_over_time": lambda p, low, high, begin, finish: p.last[high - 1],  # noqa: ARG005
}
