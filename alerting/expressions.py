"""What the judging needs of the query language: is a text a query, what does it read, which numbers does it compare.

The language itself belongs to history; the daemon joins the two.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from agent.core.labels import Labels, Matcher


@dataclass(frozen=True, slots=True)
class Input:
    """One selector of an expression. `name` is "" where no equality fixes the metric's name.

    `range_ms` is 0 for an instant selector. `asks_for_absence`: inside absent() or absent_over_time().
    """

    name: str
    matchers: tuple[Matcher, ...]
    range_ms: int = 0
    asks_for_absence: bool = False


@dataclass(frozen=True, slots=True)
class Expression:
    """A text that is a query. `canonical` is the same in one spacing.

    `thresholds`: where the numbers stand that something is compared with, as (start, end) in `text`; the leading one
    alone where there is one.
    """

    text: str
    canonical: str
    inputs: tuple[Input, ...] = ()
    thresholds: tuple[tuple[int, int], ...] = ()

    @property
    def asks_for_absence(self) -> bool:
        """Is missing data what it looks for?"""
        return any(one.asks_for_absence for one in self.inputs)


class Language(Protocol):
    """Reads queries without carrying them out."""

    def read(self, text: str) -> Expression:
        """The expression. Raise ParseError."""
        ...

    def series(self, text: str) -> Labels:
        """The labels of a series as written, `up{job="node"}`, the metric's name as `__name__`. Raise ParseError."""
        ...


class SeriesNames(Protocol):
    """Whoever knows which series there are."""

    def exists(self, matchers: Collection[Matcher]) -> bool:
        """Is there any series, now or lately, that meets all of them?"""
        ...

    def metrics(self) -> Collection[str]:
        """The names of all metrics."""
        ...
