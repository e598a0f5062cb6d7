"""Which tier answers which stretch of a query.

The finest tier that reaches back to the start is the base. Where the moments of a query fall on the ends of buckets, a
coarser tier gives the same answer and is used for long stretches; so is one for the middle of a single long window.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sinks.history.promql.storage import SelectHints
from sinks.history.tiers import FIVE_MINUTES, ONE_HOUR, RAW, TIERS, Tier
from sinks.history.windows import ANSWERS

LONG_WINDOW_MS: Final = 3_600_000  # a single window this long is answered from buckets
_WORTH: Final = 72  # buckets; a shorter stretch is read as samples


@dataclass(frozen=True, slots=True)
class Coverage:
    """How far back each tier reaches where a coarser one reaches farther, and up to when it is built; ms."""

    raw_from_ms: int
    five_from_ms: int
    five_until_ms: int
    hour_until_ms: int


@dataclass(frozen=True, slots=True)
class Segment:
    """Samples or buckets with after < time <= until."""

    tier: Tier
    after_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Segments in order of time. `remark`: what is approximate about it, "" for nothing."""

    segments: tuple[Segment, ...]
    resolution_ms: int = 0
    remark: str = ""

    @property
    def is_raw(self) -> bool:
        return all(segment.tier is RAW for segment in self.segments)


def make_plan(start_ms: int, end_ms: int, hints: SelectHints, coverage: Coverage) -> Plan:
    """How to read [start, end] for what the hints say."""
    base = RAW
    if start_ms < coverage.raw_from_ms:
        base = ONE_HOUR if start_ms < coverage.five_from_ms else FIVE_MINUTES
    is_windowed = hints.range_ms > 0 and hints.function in ANSWERS
    if base is RAW and is_windowed and hints.step_ms == 0 and hints.range_ms >= LONG_WINDOW_MS:
        return _one_window(start_ms, end_ms, coverage)
    best = _aligned(end_ms, hints, is_windowed)
    while best.number > base.number and end_ms - start_ms < _WORTH * best.step_ms:
        best = TIERS[best.number - 1]
    if best.number > base.number:
        base = best
    if base is RAW:
        return Plan((Segment(RAW, start_ms - 1, end_ms),))
    is_exact = best.number >= base.number
    after_ms = start_ms - 1 if is_exact else start_ms - 1 - 2 * base.step_ms
    segments = _segments(after_ms, end_ms, hints.step_ms, base, is_exact, coverage)
    coarse = [segment for segment in segments if segment.tier is not RAW]
    if not coarse:
        return Plan(tuple(segments))
    if is_exact:
        return Plan(tuple(segments))
    return Plan(tuple(segments), base.step_ms, _remark(hints, is_windowed, coarse))


def _aligned(end_ms: int, hints: SelectHints, is_windowed: bool) -> Tier:
    """The coarsest tier at whose bucket ends every moment of the query lies, and every window's begin."""
    if hints.function == "timestamp" or (hints.range_ms and not is_windowed):
        return RAW
    for tier in (ONE_HOUR, FIVE_MINUTES):
        if not any(moment % tier.step_ms for moment in (end_ms, hints.step_ms, hints.range_ms)):
            return tier
    return RAW


def _one_window(start_ms: int, end_ms: int, coverage: Coverage) -> Plan:
    """A single window: samples up to the first bucket, buckets as far as they are built, samples again."""
    step = FIVE_MINUTES.step_ms
    after_ms = start_ms - 1
    first = -(-after_ms // step) * step
    last = min(coverage.five_until_ms, end_ms) // step * step
    if last <= first:
        return Plan((Segment(RAW, after_ms, end_ms),))
    segments = (Segment(RAW, after_ms, first), Segment(FIVE_MINUTES, first, last), Segment(RAW, last, end_ms))
    return Plan(tuple(segment for segment in segments if segment.after_ms < segment.until_ms))


def _segments(
    after_ms: int, end_ms: int, step_ms: int, base: Tier, is_exact: bool, coverage: Coverage
) -> list[Segment]:
    """From coarse to fine. A tier goes on where the finer one begins if the query would not see the difference."""
    found = []
    for tier, finer_from_ms, built_ms in (
        (ONE_HOUR, coverage.five_from_ms, coverage.hour_until_ms),
        (FIVE_MINUTES, coverage.raw_from_ms, coverage.five_until_ms),
    ):
        if tier.number > base.number:
            continue
        suffices = (is_exact and tier is base) or step_ms >= 2 * tier.step_ms
        until_ms = built_ms if suffices else min(built_ms, -(-finer_from_ms // tier.step_ms) * tier.step_ms)
        until_ms = min(until_ms, -(-end_ms // tier.step_ms) * tier.step_ms)
        if until_ms > after_ms:
            found.append(Segment(tier, after_ms, until_ms))
            after_ms = until_ms
    if after_ms < end_ms:
        found.append(Segment(RAW, after_ms, end_ms))
    return found


def _remark(hints: SelectHints, is_windowed: bool, coarse: list[Segment]) -> str:
    until = datetime.fromtimestamp(coarse[-1].until_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    names = " and ".join(segment.tier.name for segment in coarse)
    if is_windowed:
        return f"history until {until} is kept in buckets of {names}: windows there begin and end with a bucket"
    if hints.range_ms:
        return f"history until {until} is kept in buckets of {names}: {hints.function} sees one sample of each there"
    return f"history until {until} is kept in buckets of {names}: values there are those at the end of a bucket"
