"""Which series history has, for checking rules against them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.core.labels import METRIC_NAME, Labels, Matcher


class Remembered(Protocol):
    """History, as far as it is asked here. Times in ms."""

    def series(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Labels]: ...

    def label_values(self, name: str, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class KnownSeries:
    """A SeriesNames: what history had at some time in [start, end]."""

    history: Remembered
    start_ms: int
    end_ms: int

    def exists(self, matchers: Collection[Matcher]) -> bool:
        """Is there any series that meets all of them?"""
        return bool(self.history.series(tuple(matchers), self.start_ms, self.end_ms))

    def metrics(self) -> Collection[str]:
        """The names of all metrics."""
        return self.history.label_values(METRIC_NAME, (), self.start_ms, self.end_ms)
