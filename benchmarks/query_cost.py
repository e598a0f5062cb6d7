"""What queries of one series cost: `python -m benchmarks.query_cost`, over a history as `benchmarks.queries` fills it.

All are asked in turn, again and again. CPU time is what a query costs whatever else the machine does; wall time is what
one waits here and now.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.core.clock import FakeClock
from agent.core.query import Querier
from benchmarks.budgets import Budget
from benchmarks.filled_history import DAY_S, filled
from benchmarks.scraper import percentile
from sinks.history.history import History
from sinks.history.options import HistoryOptions

DAY_MS = DAY_S * 1000
GAUGE = 'bench_level{device="d0",core="0"}'
COUNTER = 'bench_requests_total{device="d0",core="0"}'
QUERY_MS = Budget(200, 50)
TIER_MS = Budget(200, 100)


def queries(querier: Querier, now_ms: int) -> dict[str, tuple[Budget, Callable[[], object]]]:
    """Name, budget in ms, and the query itself."""
    rate = f"rate({COUNTER}[5m])"
    start, end = (now_ms - 30 * DAY_MS) // 3_600_000 * 3_600_000, now_ms // 3_600_000 * 3_600_000
    day, month = now_ms - DAY_MS, now_ms - 30 * DAY_MS
    return {
        "24 h of one second, 500 steps": (QUERY_MS, lambda: querier.range(GAUGE, day, now_ms, 173_000)),
        "rate[5m] over 24 h, 500 steps": (QUERY_MS, lambda: querier.range(rate, day, now_ms, 173_000)),
        "rate[1d] at one moment": (QUERY_MS, lambda: querier.instant(f"rate({COUNTER}[1d])", now_ms)),
        "30 d of the 5m tier, 8,640 points": (TIER_MS, lambda: querier.range(GAUGE, start, end, 300_000)),
        "30 d, 500 steps beside the buckets": (TIER_MS, lambda: querier.range(GAUGE, month, now_ms, 5_184_000)),
        "rate[2h] over 30 d, 500 steps": (
            TIER_MS, lambda: querier.range(f"rate({COUNTER}[2h])", month, now_ms, 5_184_000)),
        "max_over_time[1h] over 30 d, each hour": (
            TIER_MS, lambda: querier.range(f"max_over_time({GAUGE}[1h])", start, end, 3_600_000)),
        "max_over_time[30d] at one moment": (TIER_MS, lambda: querier.instant(f"max_over_time({GAUGE}[30d])", now_ms)),
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Fill, ask, print; 1 where the CPU of a query is over its budget and `--strict` was given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.query_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="how often to ask each (default: 40)")
    parser.add_argument("--state", type=Path, help="keep the filled history there, or use the one that is")
    parser.add_argument("--strict", action="store_true", help="exit status 1 when over the budget")
    options = parser.parse_args(argv)
    is_over = False
    with tempfile.TemporaryDirectory() as scratch:
        kept: Path = options.state or Path(scratch) / "kept"
        now_s = filled(kept)
        shutil.copytree(kept / "history", Path(scratch) / "history")
        history = History(HistoryOptions(), str(Path(scratch) / "history"), FakeClock(now_s), "bench")
        asked = queries(history.querier(), now_s * 1000)
        cpu: dict[str, list[float]] = {what: [] for what in asked}
        wall: dict[str, list[float]] = {what: [] for what in asked}
        for _ in range(options.rounds):
            for what, (_, ask) in asked.items():
                began, used = time.perf_counter(), time.thread_time()
                ask()
                wall[what].append((time.perf_counter() - began) * 1000)
                cpu[what].append((time.thread_time() - used) * 1000)
        for what, (budget, _) in asked.items():
            p50, p95 = percentile(cpu[what], 0.5), percentile(cpu[what], 0.95)
            waited = f"waited p50 {percentile(wall[what], 0.5):.1f} p95 {percentile(wall[what], 0.95):.1f} ms"
            verdict = budget.verdict(p95)
            print(f"{what}: CPU p50 {p50:.1f} p95 {p95:.1f} ms ({verdict}, must {budget.must:g} ms); {waited}")
            is_over = is_over or verdict == "over"
        history._store.close()
    return 1 if options.strict and is_over else 0


if __name__ == "__main__":
    sys.exit(main())
