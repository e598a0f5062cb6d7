"""A history as an agent has it after a month, made without waiting for one."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from agent.core.clock import FakeClock
from agent.core.labels import Labels, labels_of
from sinks.history.history import History
from sinks.history.options import HistoryOptions

DAY_S = 86_400
WRITE_S = 600
SERIES, DAYS = 100, 30
_RANDOM = 7


class Host:
    """Counters and gauges of some processors and disks; every second or so another row of their values."""

    def __init__(self, series: int) -> None:
        self._random = Random(_RANDOM)
        self.counters = [self._labels("bench_requests_total", n) for n in range(series // 2)]
        self.gauges = [self._labels("bench_level", n) for n in range(series - series // 2)]
        self._totals = [0.0] * len(self.counters)

    def _labels(self, name: str, number: int) -> Labels:
        return labels_of({"__name__": name, "job": "node", "instance": "bench", "device": f"d{number % 10}",
                          "core": str(number // 10)})  # fmt: skip

    def row(self, at_s: int, every_s: int) -> dict[Labels, float]:
        """The values at this second; a third of the series never changes."""
        one = self._random
        for place in range(0, len(self._totals), 3):
            self._totals[place] += one.randrange(40) * every_s
            self._totals[place - 1] += every_s
        gauges = dict.fromkeys(self.gauges, 20.0)
        wave = math.sin(at_s / 900)
        for place in range(0, len(self.gauges), 3):
            gauges[self.gauges[place]] = round(50 + 40 * wave + one.random(), 2)
            gauges[self.gauges[place - 1]] = float(at_s // 60 % 7)
        return {**dict(zip(self.counters, self._totals, strict=True)), **gauges}


def filled(kept: Path, series: int = SERIES, days: int = DAYS) -> int:
    """The end of the history in `kept`, which is made where there is none, some minutes' work; Unix seconds."""
    end = kept / "end"
    if not end.exists():
        now_s = int(time.time())
        (kept / "history").mkdir(parents=True)
        fill(kept / "history", now_s, series, days)
        end.write_text(str(now_s))
    return int(end.read_text())


def fill(directory: Path, end_s: int, series: int, days: int) -> None:
    """`days` up to `end_s`: the last one with a sample a second, those before with one a minute."""
    clock = FakeClock(end_s - days * DAY_S)
    history = History(HistoryOptions(), str(directory), clock, "bench")
    host = Host(series)
    written_s = 0
    for at_s, every_s in _moments(end_s - days * DAY_S, end_s):
        history.record("bench", at_s * 1000, host.row(at_s, every_s))
        if at_s - written_s >= WRITE_S:
            clock.step_wall(at_s - clock.wall_ns() / 1e9)
            if not history.write():
                raise SystemExit(f"history cannot be filled: {history.status().trouble}")
            written_s = at_s
    history.close()


def _moments(start_s: int, end_s: int) -> Iterator[tuple[int, int]]:
    last_day_s = max(end_s - DAY_S, start_s)
    yield from ((at_s, 60) for at_s in range(start_s, last_day_s, 60))
    yield from ((at_s, 1) for at_s in range(last_day_s, end_s + 1))
