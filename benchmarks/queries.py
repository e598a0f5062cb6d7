"""What queries cost the rest of the agent: `python -m benchmarks.queries`.

A real agent over a filled history (a day of one sample a second, 30 days of summaries) is asked heavy things one after
another, and between them nothing. How late its event loop ran is told for each, beside the idle seconds: everything
else the agent does waits that long. On a busy machine the loop is late by itself; `own` is the most that the agent can
have caused, the median of the rounds, and what the budget is for. `--strict` makes more than that an exit status.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from rich.console import Console
from rich.table import Table

from benchmarks.filled_history import DAY_S, DAYS, SERIES, filled
from benchmarks.loop_lag import Lag, lags
from benchmarks.peers import Agent
from benchmarks.scraper import percentile
from tests.servers.http_call import call

MOST_STALL_MS = 50.0
IDLE_S = 2.0
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_DEEP = 90


class Probed(Agent):
    """An agent with a probe on its loop, over a state directory that is there already."""

    def __init__(self, state: Path) -> None:
        super().__init__("log: {level: warning}\n")
        self._state = state

    @property
    def state_dir(self) -> Path:
        return self._state

    @property
    def lag_file(self) -> Path:
        return self._state / "loop-lag"

    def command(self) -> list[str | Path]:
        argv = super().command()
        lagging = ["env", f"LOOP_LAG_FILE={self.lag_file}", argv[0], "-m", "benchmarks.loop_lag"]
        return [*lagging, *argv[argv.index("run") :]]


@dataclass(frozen=True, slots=True)
class Question:
    """One thing asked; `path` below /api/v1."""

    what: str
    path: str
    params: dict[str, object]


@dataclass(frozen=True, slots=True)
class Answer:
    """How it went, in ms, MB and HTTP's status, and when: monotonic seconds."""

    took_ms: float
    status: int
    size_mb: float
    begin: float
    end: float


def questions(now_s: int) -> list[Question]:
    """Heavy ones, of every kind that stays within the limits or runs into one."""
    day = {"start": now_s - DAY_S, "end": now_s}
    month = {"start": (now_s - 30 * DAY_S) // 3600 * 3600, "end": now_s // 3600 * 3600}

    def ranged(what: str, query: str, window: dict[str, int], step: int) -> Question:
        return Question(what, "query_range", {"query": query, **window, "step": step})

    def instant(what: str, query: str) -> Question:
        return Question(what, "query", {"query": query, "time": now_s})

    one = 'bench_level{device="d0",core="0"}'
    return [
        ranged("one series, 24 h, 500 steps", one, day, 173),
        ranged("one series, 24 h, 10,800 points", one, day, 8),
        ranged("one series, 30 d of 5m tier, 8,640 points", one, month, 300),
        ranged("50 series, 24 h, rate[5m], 500 steps", "rate(bench_requests_total[5m])", day, 173),
        ranged("sum by of 50 series, 24 h, 10,800 points", "sum by (device) (bench_level)", day, 8),
        ranged("50 series, 30 d of 5m tier, 8,640 points", "bench_level", month, 300),
        ranged("50 series, 30 d, max_over_time[1h]", "max_over_time(bench_level[1h])", month, 3600),
        ranged("quantile over 24 h in windows of 1 h", f"quantile_over_time(0.99, {one}[1h])", day, 300),
        ranged("topk of 50, 24 h, 10,800 points", "topk(5, bench_level)", day, 8),
        ranged("join of 50 x 50, 24 h: too much", "bench_requests_total / on (device, core) bench_level", day, 173),
        instant("a day of samples of one series", f"{one}[1d]"),
        instant("a day of samples of 50 series", "bench_level[1d]"),
        instant("quantile of a day", f"quantile_over_time(0.99, {one}[1d])"),
        instant("rate[1d] of 50 series", "rate(bench_requests_total[1d])"),
        instant("subquery [1d:10s]", "max_over_time(rate(bench_requests_total[1m])[1d:10s])"),
        instant("every series", '{__name__=~".+"}'),
        instant("a pattern to explode", '{__name__=~"(.*.*.*.*.*.*x){20}|bench_(l|le|lev|level)+"}'),
        instant("a pattern of 40 kB", '{__name__=~"' + "|".join(f"x{n}.*y" for n in range(4000)) + '"}'),
        instant("1 + 1 + ..., 20 kB", "1+" * 10_000 + "1"),
        instant("brackets, 10,000 deep", "(" * 10_000 + "1" + ")" * 10_000),
        instant(f"brackets, {_DEEP} deep", "(" * _DEEP + one + ")" * _DEEP),
        Question("a body of 10 MB", "query", {"query": "x" * 10_000_000}),
        Question("all series", "series", {"match[]": '{__name__!=""}'}),
        Question("values of a label", "label/__name__/values", {}),
        Question("statistics of a day, 50 series", "metrics/stats", {"metric": "bench_level", **day}),
        Question("current values", "metrics/current", {}),
        Question("export of a day, 10 series, csv", "metrics/export", {"match[]": 'bench_level{core="0"}', **day,
                                                                      "format": "csv"}),
    ]  # fmt: skip


def ask(agent: Probed, question: Question) -> Answer:
    """Ask and wait for the whole answer."""
    path = f"{agent.url}/api/v1/{question.path}"
    is_read_only = question.path.startswith(("metrics", "label"))
    begin = time.monotonic()
    if is_read_only:
        answer = call(path, params=question.params, timeout=120)
    else:
        answer = call(path, "POST", urlencode(question.params), FORM, timeout=120)
    end = time.monotonic()
    return Answer((end - begin) * 1000, answer.status, len(answer.body) / 1e6, begin, end)


def measure(state: Path, now_s: int, rounds: int) -> tuple[list[tuple[str, list[Answer]]], list[Lag]]:
    """Ask everything `rounds` times, with idle seconds in between; what the probe saw."""
    asked = questions(now_s)
    answers: list[list[Answer]] = [[] for _ in asked]
    idle: list[Answer] = []
    with Probed(state) as agent:
        time.sleep(IDLE_S)
        for _ in range(rounds):
            begin = time.monotonic()
            time.sleep(IDLE_S)
            idle.append(Answer(IDLE_S * 1000, 200, 0, begin, time.monotonic()))
            for question, found in zip(asked, answers, strict=True):
                found.append(ask(agent, question))
        time.sleep(2.0)  # the probe writes once a second
        seen = lags(agent.lag_file)
    names = ["nothing", *(question.what for question in asked)]
    return list(zip(names, [idle, *answers], strict=True)), seen


def report(found: Sequence[tuple[str, list[Answer]]], seen: Sequence[Lag]) -> float:
    """Print a line for each question; the longest stall that was the agent's own doing, in ms."""
    table = Table(title="how late the event loop runs while the agent answers, ms")
    for heading in ("asked", "status", "took", "MB", "p50", "p99", "most", "own"):
        table.add_column(heading, justify="left" if heading == "asked" else "right")
    longest = 0.0
    for name, answers in found:
        during = [[one for one in seen if answer.begin <= one.at <= answer.end + 0.05] for answer in answers]
        late = [one.late * 1000 for looks in during for one in looks] or [0.0]
        own = statistics.median(max([one.own * 1000 for one in looks], default=0.0) for looks in during)
        if name != "nothing":
            longest = max(longest, own)
        took = statistics.median(one.took_ms for one in answers)
        shown = [f"{ms:.1f}" for ms in (percentile(late, 0.5), percentile(late, 0.99), max(late), own)]
        table.add_row(name, str(answers[-1].status), f"{took:.0f}", f"{answers[-1].size_mb:.1f}", *shown)
    Console(width=110).print(table)
    return longest


def main(argv: Sequence[str] | None = None) -> int:
    """Fill, ask, print; 1 where the loop stood still for too long and `--strict` was given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queries", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often to ask everything (default: 3)")
    parser.add_argument("--series", type=int, default=SERIES, help="series of the filled history (default: 100)")
    parser.add_argument("--days", type=int, default=DAYS, help="days of it (default: 30)")
    parser.add_argument("--state", type=Path, help="keep the filled history there, or use the one that is")
    parser.add_argument("--strict", action="store_true", help="exit status 1 when the loop stalls beyond its budget")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        kept: Path = options.state or Path(scratch) / "kept"
        now_s = filled(kept, options.series, options.days)
        state = Path(scratch) / "state"
        shutil.copytree(kept, state)
        longest = report(*measure(state, now_s, options.rounds))
    print(f"longest stall {longest:.0f} ms, budget {MOST_STALL_MS:.0f} ms")
    return 1 if options.strict and longest > MOST_STALL_MS else 0


if __name__ == "__main__":
    sys.exit(main())
