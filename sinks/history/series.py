"""Every series known, in memory or on disk, and finding those that a query means.

A series belongs to one source (a collector): the same labels from two sources are two series, joined when asked for.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from agent.core.labels import METRIC_NAME, Labels, Matcher, value_of


@dataclass(slots=True, frozen=True)
class Series:
    """A number for a label set of a source."""

    number: int
    source: int
    labels: Labels


class Registry:
    """Numbers for sources and series. The event loop adds, queries read, the writer saves."""

    def __init__(self, most_series: int) -> None:
        self._guard = threading.Lock()
        self._most = most_series
        self._sources: dict[str, int] = {}
        self._by_labels: dict[int, dict[Labels, Series]] = {}  # by source
        self._by_number: dict[int, Series] = {}
        self._by_name: dict[str, list[Series]] = {}
        self._pairs: dict[tuple[str, str], tuple[str, str]] = {}  # labels, each once: most are those of many series
        self._forgotten = 0  # since the pairs were last looked through
        self._next = 1
        self._next_source = 1
        self.refused = 0  # series beyond the most
        self.unsaved: list[Series] = []
        self.unsaved_sources: list[tuple[int, str]] = []

    def load(self, sources: Iterable[tuple[int, str]], series: Iterable[Series]) -> None:
        """Take over what a file knows."""
        with self._guard:
            for number, name in sources:
                self._sources.setdefault(name, number)
                self._next_source = max(self._next_source, number + 1)
            for one in series:
                self._add(Series(one.number, one.source, self._shared(one.labels)))

    def begin_apart(self) -> None:
        """The file cannot be read yet: count where it will hardly have counted, so that both can be joined later."""
        with self._guard:
            self._next = random.randrange(2**31, 2**32 - 2**24)
            self._next_source = random.randrange(2**20, 2**31)

    def source(self, name: str) -> int:
        """The number of a source."""
        with self._guard:
            known = self._sources.get(name)
            if known is None:
                known = self._sources[name] = self._next_source
                self._next_source += 1
                self.unsaved_sources.append((known, name))
            return known

    def number(self, source: int, labels: Labels) -> int | None:
        """The number of a series; None for a new one where there are too many already."""
        known = self._by_labels.get(source, {}).get(labels)
        if known is None:
            with self._guard:
                if len(self._by_number) >= self._most:
                    self.refused += 1
                    return None
                known = Series(self._next, source, self._shared(labels))
                self._add(known)
                self.unsaved.append(known)
        return known.number

    def _shared(self, labels: Labels) -> Labels:
        return tuple([self._pairs.setdefault(pair, pair) for pair in labels])

    def _add(self, series: Series) -> None:
        self._by_labels.setdefault(series.source, {})[series.labels] = series
        self._by_number[series.number] = series
        self._by_name.setdefault(value_of(series.labels, METRIC_NAME), []).append(series)
        self._next = max(self._next, series.number + 1)

    def forget_all_saved(self) -> None:
        """The file is gone: everything is to be saved again."""
        with self._guard:
            self.unsaved = list(self._by_number.values())
            self.unsaved_sources = [(number, name) for name, number in self._sources.items()]

    def forget(self, numbers: Iterable[int]) -> None:
        """These series have no samples left anywhere."""
        with self._guard:
            gone = [one for number in numbers if (one := self._by_number.pop(number, None)) is not None]
            for one in gone:
                del self._by_labels[one.source][one.labels]
            for name in {value_of(one.labels, METRIC_NAME) for one in gone}:
                self._by_name[name] = [one for one in self._by_name[name] if one.number in self._by_number]
                if not self._by_name[name]:
                    del self._by_name[name]
            self._forgotten += len(gone)
            if self._forgotten > len(self._by_number):
                self._forgotten = 0
                self._pairs = {pair: pair for one in self._by_number.values() for pair in one.labels}

    def sources(self) -> dict[str, int]:
        """The numbers of all sources by name."""
        with self._guard:
            return dict(self._sources)

    def numbers(self) -> list[int]:
        """All series."""
        with self._guard:
            return list(self._by_number)

    def find(self, matchers: Sequence[Matcher]) -> list[Series]:
        """Every series that meets all matchers."""
        with self._guard:
            candidates = self._named(matchers)
        others = [(m.name, m.matches) for m in matchers if m.name != METRIC_NAME]
        return [one for one in candidates if _meets(one.labels, others)]

    def _named(self, matchers: Sequence[Matcher]) -> list[Series]:
        named = [matcher for matcher in matchers if matcher.name == METRIC_NAME]
        exact = next((matcher.value for matcher in named if matcher.op == "="), None)
        names = self._by_name if exact is None else {exact} & self._by_name.keys()
        return [one for name in names if all(matcher.matches(name) for matcher in named) for one in self._by_name[name]]


def _meets(labels: Labels, conditions: list[tuple[str, Callable[[str], bool]]]) -> bool:
    values = dict(labels)
    return all(matches(values.get(name, "")) for name, matches in conditions)
