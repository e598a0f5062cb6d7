"""Ticks kept in memory for the sinks, a bounded number of them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice

from agent.core.model import Tick

MOST_TICKS = 20_000


@dataclass(frozen=True, slots=True)
class RecentBatch:
    """Ticks and the number of the first one behind them."""

    ticks: list[Tick]
    next_position: int


class Recent:
    """The newest Ticks, numbered; readers that fall behind by more than `MOST_TICKS` lose the oldest."""

    def __init__(self) -> None:
        self._ticks: deque[Tick] = deque(maxlen=MOST_TICKS)
        self._end = 0

    def append(self, tick: Tick) -> None:
        self._ticks.append(tick)
        self._end += 1

    def reader(self) -> RecentReader:
        return RecentReader(self)

    def since(self, position: int, most: int) -> tuple[list[Tick], int]:
        """At most `most` Ticks from `position` on, and the position behind them."""
        first = max(position, self._end - len(self._ticks))
        begin = first - (self._end - len(self._ticks))
        found = list(islice(self._ticks, begin, begin + most))
        return found, first + len(found)


class RecentReader:
    """One reader's place."""

    def __init__(self, recent: Recent) -> None:
        self._recent = recent
        self._position = 0

    def read(self, max_records: int, max_bytes: int) -> RecentBatch | None:
        del max_bytes  # memory is bounded by the number of Ticks
        ticks, end = self._recent.since(self._position, max_records)
        return RecentBatch(ticks, end) if ticks else None

    def commit(self, position: int) -> None:
        self._position = position
