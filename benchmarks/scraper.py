"""A scraper as Prometheus is one: one connection kept open, GET /metrics again and again."""

from __future__ import annotations

import gzip
import http.client
import math
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from benchmarks.process_tree import ProcessTree
from tests.servers.process import LOOPBACK

_SETTLED_S = 0.02  # after an answer, for what the server does once it is sent


@dataclass(frozen=True, slots=True)
class Scrape:
    """One answer: when it was asked for (Unix seconds), how long it took, and what it cost the server."""

    at: float
    seconds: float
    samples: int
    cpu_ns: int  # of the server, from before the request until a moment after the answer


def count_samples(exposition: bytes) -> int:
    """Lines that carry a value."""
    return sum(1 for line in exposition.splitlines() if line and not line.startswith(b"#"))


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least `share` (0-1) of all values do not exceed; NaN when there are none."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


class Scraper:
    """Scrapes each `interval` seconds, `phase` seconds past the whole second, in a thread, while in its `with` block.

    The phase keeps it off the full second, when everybody's timers fire and what is measured is the queue.
    """

    def __init__(self, port: int, tree: ProcessTree, interval: float, phase: float) -> None:
        self._tree = tree
        self._interval = interval
        self._phase = phase
        self._connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scraper")
        self.scrapes: list[Scrape] = []
        self.error: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        self._ending.set()
        self._thread.join()
        self._connection.close()
        if self.error is not None and kind is None:
            raise self.error

    @property
    def samples(self) -> int:
        """Samples of all scrapes together."""
        return sum(scrape.samples for scrape in self.scrapes)

    def _run(self) -> None:
        try:
            while not self._ending.wait(self._until_next()):
                self.scrapes.append(self._scrape())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.error = error

    def _until_next(self) -> float:
        past = (time.time() - self._phase) % self._interval
        return self._interval - past

    def _scrape(self) -> Scrape:
        before = self._tree.cpu_of_first()
        at, begun = time.time(), time.perf_counter()
        self._connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
        response = self._connection.getresponse()
        body = response.read()
        took = time.perf_counter() - begun
        if response.status != 200:
            raise ValueError(f"/metrics answered {response.status}")
        time.sleep(_SETTLED_S)
        cpu_ns = self._tree.cpu_of_first() - before
        if response.getheader("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        return Scrape(at, took, count_samples(body), cpu_ns)
