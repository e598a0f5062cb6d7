"""What the agent may cost, and whether it does."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that is acceptable, and what we want."""

    must: float
    aim: float

    def verdict(self, measured: float) -> str:
        """`over` the budget, `ok`, or `aim` when what we want is reached; empty when nothing was measured."""
        if math.isnan(measured):
            return ""
        if measured > self.must:
            return "over"
        return "aim" if measured <= self.aim else "ok"


CPU_S_PER_MIN = Budget(0.20, 0.10)
US_PER_SAMPLE = Budget(9, 5)
SWITCHES_PER_S = Budget(6, 3)
RSS_MB = Budget(52, 44)
RSS_WITH_INFLUXDB_MB = Budget(66, 58)
SCRAPE_US_PER_SERIES = Budget(8, 2)
SCRAPE_P50_MS = Budget(4, 1)
WRITTEN_MB_PER_DAY = Budget(400, 150)
LATENESS_P99_MS = Budget(20, 5)
START_S = Budget(1.0, 0.4)
HISTORY_CPU_S_PER_MIN = Budget(0.03, 0.015)  # at 500 series
HISTORY_RSS_MB = Budget(6, 4)  # at 500 series
