"""Samples as they are kept, streamed: one stretch of one series in memory at a time, each read in a turn of its own."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from time import monotonic
from typing import Final

from agent.core.labels import Labels, Matcher
from agent.core.query import DEFAULT_LIMITS, Limits
from agent.http.asked import exactly, selector
from agent.http.encoding import PIECE_BYTES
from agent.http.export_formats import FORMATS, Columns, Format, Writer
from agent.http.faces import HistoryFace, MetricFacts
from agent.http.service import Allowance, Service

__all__ = ["FORMATS", "Export", "stretches"]

STRETCH_MS: Final = 6 * 3_600_000  # 21,600 samples at one a second
_LINES_AT_ONCE: Final = 2000  # samples of one piece of text
_TURN_S: Final = 0.05  # work between two looks at who else wants to ask


def stretches(
    history: HistoryFace, series: Sequence[Labels], start_ms: int, end_ms: int, limits: Limits = DEFAULT_LIMITS
) -> Iterator[tuple[Labels, Columns]]:
    """The samples in [start, end], series by series, some thousand at a time; blocking. Raise QueryError."""
    querier = history.querier()
    for labels in series:
        text = exactly(labels)
        at = start_ms - 1  # a range is open on the left
        while at < end_ms:
            until = min(at + STRETCH_MS, end_ms)
            for points in querier.instant(f"{text}[{until - at}ms]", until, limits).matrix():
                times, values = points.times_ms, points.values
                for low in range(0, len(times), _LINES_AT_ONCE):
                    yield labels, (times[low : low + _LINES_AT_ONCE], values[low : low + _LINES_AT_ONCE])
            at = until


def extent(history: HistoryFace, selectors: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int) -> tuple[int, int]:
    """The part of [start, end] outside which history has nothing of these series; blocking.

    Someone who asks for everything since 1970 is not to wait for half a century of empty stretches.
    """

    def is_there(low: int, high: int) -> bool:
        return any(history.series(matchers, low, high) for matchers in selectors)

    if not is_there(start_ms, end_ms):
        return start_ms, start_ms
    first = bisect_left(range(start_ms, end_ms), True, key=lambda at: is_there(start_ms, at))
    low = start_ms + first
    after = bisect_left(range(low, end_ms), True, key=lambda at: not is_there(at + 1, end_ms))
    return low, low + after


class Export:
    """One export: `begin` finds the series, then `stream` gives the text."""

    def __init__(self, service: Service, selectors: Sequence[str], start_ms: int, end_ms: int) -> None:
        self._service = service
        self._history = service.must_history()
        self._selectors = selectors
        self._start_ms = start_ms
        self._end_ms = end_ms
        self.series: list[Labels] = []
        self._facts: Mapping[str, MetricFacts] = {}

    async def begin(self) -> None:
        """Find the series. Raise Refusal."""
        self.series, self._facts = await self._service.ask(self._find)

    def _find(self, _: Allowance) -> tuple[list[Labels], Mapping[str, MetricFacts]]:
        history = self._history
        parsed = [selector(text) for text in self._selectors]
        self._start_ms, self._end_ms = extent(history, parsed, self._start_ms, self._end_ms)
        found = sorted({one for each in parsed for one in history.series(each, self._start_ms, self._end_ms)})
        return found, history.metadata()

    async def stream(self, form: Format) -> AsyncGenerator[bytes, None]:
        """The text as UTF-8, piece by piece. Raise Refusal when history stops answering: the export is cut short."""
        texts = self._texts(form.writer(self._facts))
        while piece := await self._service.ask(lambda _: _taken(texts)):
            yield piece

    def _texts(self, writer: Writer) -> Iterator[str]:
        yield writer.head(self.series)
        for labels, columns in stretches(
            self._history, self.series, self._start_ms, self._end_ms, self._service.limits
        ):
            yield writer.part(labels, columns)
        yield writer.tail()


def _taken(texts: Iterator[str]) -> bytes:
    """The next texts, as many as fit into a piece and a turn; empty at the end."""
    held: list[str] = []
    size = 0
    ends_at = monotonic() + _TURN_S
    for text in texts:
        held.append(text)
        size += len(text)
        if size >= PIECE_BYTES or (size and monotonic() > ends_at):
            break
    return "".join(held).encode("utf-8", "replace")
