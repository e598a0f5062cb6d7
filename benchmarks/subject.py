"""One process that is measured for a while, and what came of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from benchmarks.process_tree import Memory, ProcessTree, Use
from benchmarks.scraper import Scrape, Scraper, percentile


@dataclass(slots=True)
class Subject:
    """Who is measured, and how often a scraper asks it; `counted` gives the samples it has delivered so far."""

    name: str
    pid: int
    port: int = 0
    scrape_interval: float = 0.0  # seconds; 0: it is not scraped
    scrape_phase: float = 0.4  # seconds past the full second
    counted: Callable[[], int] | None = None
    tree: ProcessTree = field(init=False)

    def __post_init__(self) -> None:
        self.tree = ProcessTree(self.pid)


@dataclass(frozen=True, slots=True)
class Window:
    """What one subject did between two moments (Unix seconds)."""

    begin: float
    end: float
    use: Use
    memory: Memory
    samples: int  # scraped, or as the subject counts them
    scrapes: Sequence[Scrape]

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    @property
    def cpu_s_per_min(self) -> float:
        return self.use.cpu_ns / 1e9 / self.seconds * 60

    @property
    def switches_per_s(self) -> float:
        return self.use.switches / self.seconds

    @property
    def written_mb_per_day(self) -> float:
        return self.use.written / 1e6 / self.seconds * 86400

    def us_per_sample(self, samples: int | None = None) -> float:
        """CPU microseconds a sample; infinite without samples."""
        count = self.samples if samples is None else samples
        return self.use.cpu_ns / 1e3 / count if count else float("inf")

    def scrape_ms(self, share: float) -> float:
        """A percentile of the time a scrape takes."""
        return percentile([scrape.seconds * 1e3 for scrape in self.scrapes], share)

    @property
    def series(self) -> int:
        """Samples of the last scrape; 0 without one."""
        return self.scrapes[-1].samples if self.scrapes else 0

    @property
    def scrape_us_per_series(self) -> float:
        """CPU of a scrape, the median, by the samples it gives; NaN without scrapes."""
        costs = [scrape.cpu_ns / 1e3 / scrape.samples for scrape in self.scrapes if scrape.samples]
        return statistics.median(costs) if costs else float("nan")


def watch(subjects: Sequence[Subject], seconds: float) -> dict[str, Window]:
    """Measure all of them over the same seconds."""
    begin = time.time()
    before = {subject.name: subject.tree.look() for subject in subjects}
    counted = {subject.name: subject.counted() for subject in subjects if subject.counted is not None}
    with ExitStack() as stack:
        scrapers = {
            subject.name: stack.enter_context(
                Scraper(subject.port, subject.tree, subject.scrape_interval, subject.scrape_phase)
            )
            for subject in subjects
            if subject.scrape_interval
        }
        while (left := begin + seconds - time.time()) > 0:
            time.sleep(min(1.0, left))
            for subject in subjects:
                subject.tree.look()
        end = time.time()
        used = {subject.name: subject.tree.look().since(before[subject.name]) for subject in subjects}
    windows = {}
    for subject in subjects:
        scraper = scrapers.get(subject.name)
        samples = scraper.samples if scraper else 0
        if subject.counted is not None:
            samples = subject.counted() - counted[subject.name]
        scrapes = scraper.scrapes if scraper else []
        windows[subject.name] = Window(begin, end, used[subject.name], subject.tree.memory(), samples, scrapes)
    return windows
