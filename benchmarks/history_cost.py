"""What history adds to the agent: `python -m benchmarks.history_cost`.

Agents with and without history run at the same time, alerting off in all, and what they use is compared. The window is
longer than `flush`, so that a write to disk and the building of tiers are in it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack

from benchmarks.budgets import HISTORY_CPU_S_PER_MIN, HISTORY_RSS_MB
from benchmarks.peers import Agent
from benchmarks.subject import Subject, watch
from tests.servers.http_call import call

SECONDS = 720.0
SETTLE_S = 12.0
BUDGET_SERIES = 500
ABOUT_500_SERIES = "cpu memory disk diskio net pressure system vmstat sockstat"


def config(collectors: Sequence[str], *, has_history: bool) -> str:
    wanted: dict[str, object] = {"others": False} | {name: {} for name in collectors} if collectors else {}
    history = {"enabled": has_history}
    return json.dumps(
        {"log": {"level": "warning"}, "alerting": {"enabled": False}, "history": history, "collectors": wanted}
    )


def measure(seconds: float, pairs: int, collectors: Sequence[str]) -> dict[str, float]:
    """CPU s/min and RSS MB that history adds, medians of `pairs`, and how many series it keeps."""
    with ExitStack() as stack:
        without = [stack.enter_context(Agent(config(collectors, has_history=False))) for _ in range(pairs)]
        having = [stack.enter_context(Agent(config(collectors, has_history=True))) for _ in range(pairs)]
        subjects = [
            *(Subject(f"without {at}", agent.pid) for at, agent in enumerate(without)),
            *(Subject(f"with {at}", agent.pid) for at, agent in enumerate(having)),
        ]
        time.sleep(SETTLE_S)
        windows = watch(subjects, seconds)
        found = call(f"{having[0].url}/api/v1/query", params={"query": 'count({__name__=~".+"})'}).json()
        series = float(found["data"]["result"][0]["value"][1])
    cpu = {name: window.cpu_s_per_min for name, window in windows.items()}
    rss = {name: window.memory.rss / 1e6 for name, window in windows.items()}
    return {
        "series": series,
        "agent without history, CPU s/min": statistics.median(cpu[f"without {at}"] for at in range(pairs)),
        "history, CPU s/min": statistics.median(cpu[f"with {at}"] - cpu[f"without {at}"] for at in range(pairs)),
        "agent without history, RSS MB": statistics.median(rss[f"without {at}"] for at in range(pairs)),
        "history, RSS MB": statistics.median(rss[f"with {at}"] - rss[f"without {at}"] for at in range(pairs)),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 with `--strict` where history costs more than its budget."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history_cost", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of the window (default: 720)")
    parser.add_argument("--pairs", type=int, default=2, help="agents of each kind (default: 2)")
    parser.add_argument("--collectors", default=ABOUT_500_SERIES, metavar="NAMES",
                        help="which run, 'all' for all (default: those that make about 500 series)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--strict", action="store_true", help="exit status 1 when over the budget")
    options = parser.parse_args(argv)
    collectors = [] if options.collectors == "all" else options.collectors.split()
    found = measure(options.seconds, options.pairs, collectors)
    share = max(found["series"] / BUDGET_SERIES, 1.0)  # the budget is that of 500 series
    is_over = (
        found["history, CPU s/min"] > HISTORY_CPU_S_PER_MIN.must * share
        or found["history, RSS MB"] > HISTORY_RSS_MB.must * share
    )
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        for what, value in found.items():
            print(f"{what}: {value:.4g}")
        print("over" if is_over else "within", f"the budget of {BUDGET_SERIES} series, scaled by {share:.2g}")
    return 1 if options.strict and is_over else 0


if __name__ == "__main__":
    sys.exit(main())
