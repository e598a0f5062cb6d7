"""What the agent costs beside its peers: `python -m benchmarks.agent`.

Agent and peers run at the same time, so that a noisy machine is as noisy for each: read the ratios. The store that the
agent sends to is not measured.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from benchmarks import budgets
from benchmarks.budgets import Budget
from benchmarks.peers import Agent, Collectd, agent_config
from benchmarks.scraper import percentile
from benchmarks.subject import Subject, Window, watch
from tests.servers.node_exporter import NodeExporter
from tests.servers.promql_api import Series
from tests.servers.victoriametrics import VictoriaMetrics

SETTLE_S = 12.0  # caches fill; the first flush, which imports the client, is over
STARTS = 5
SCRAPE_S = 15.0
FLUSHED_S = 12.0  # after this the sink, which writes each 10 s, has delivered what was collected before
NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Mode:
    """A configuration of the agent."""

    name: str
    interval: str | None
    has_sink: bool


MODES = (
    Mode("defaults", None, has_sink=True),
    Mode("all at 1 s", "1s", has_sink=True),
    Mode("no influxdb", None, has_sink=False),
)
PEERS = ("node_exporter", "collectd")


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report. `peers`: the same figure of those measured beside it."""

    mode: str
    what: str
    value: float
    budget: Budget | None
    peers: dict[str, float]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 0 unless something is over its budget and `--strict` was given."""
    options = _parser().parse_args(argv)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed agent is byte-compiled; so is this one after a start
    modes = [mode for mode in MODES if mode.name in options.modes.split(",")]
    peers = [name for name in options.peers.split(",") if name]
    rounds = [
        [figure for mode in modes for figure in measure(mode, options.seconds, peers)] for _ in range(options.rounds)
    ]
    figures = medians(rounds)
    if options.json:
        print(json.dumps({"machine": machine(), "figures": [as_json(figure) for figure in figures]}, indent=1))
    else:
        _print(figures)
    is_over = any(figure.budget and figure.budget.verdict(figure.value) == "over" for figure in figures)
    return 1 if is_over and options.strict else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agent", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of a window (default: 60)")
    parser.add_argument("--rounds", type=int, default=1, help="how often to measure all; the medians are shown")
    parser.add_argument("--peers", default=",".join(PEERS), help="who runs beside it (default: %(default)s)")
    parser.add_argument("--modes", default=",".join(mode.name for mode in MODES), help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--strict", action="store_true", help="exit status 1 when a figure is over its budget")
    return parser


def measure(mode: Mode, seconds: float, peers: Iterable[str]) -> list[Figure]:
    """Run the agent in this mode beside its peers. Raise ServerError when one does not start."""
    with ExitStack() as stack:
        store = stack.enter_context(VictoriaMetrics()) if mode.has_sink else None
        config = agent_config(influxdb_url=store.url if store else None, interval=mode.interval)
        start_s = _time_to_start(config) if mode.name == "defaults" else NAN
        agent = stack.enter_context(Agent(config))
        subject = Subject("vigilhost", agent.pid, agent.port, SCRAPE_S)
        beside = [one for name in peers for one in _peers(name, stack)]
        time.sleep(SETTLE_S)
        windows = watch([subject, *beside], seconds)
        subject.scrape_interval = 1.0
        scraped = watch([subject, *beside], seconds)
        samples, lateness_ms = 0, NAN
        if store is not None:
            time.sleep(FLUSHED_S)
            own = windows["vigilhost"]
            samples = count_between(store.export(), own.begin, own.end)
            lateness_ms = lateness_p99_ms(store.export('{__name__="vigilhost_collector_lateness_seconds"}'), own.begin)
    return [*_costs(mode, windows, samples), *_answers(mode, scraped, lateness_ms, start_s)]


def _peers(name: str, stack: ExitStack) -> list[Subject]:
    if name == "node_exporter":
        each_second = stack.enter_context(NodeExporter())
        seldom = stack.enter_context(NodeExporter())
        return [
            Subject("node_exporter 1s", each_second.pid, each_second.port, 1.0, 0.3),
            Subject("node_exporter 15s", seldom.pid, seldom.port, SCRAPE_S, 0.6),
        ]
    if name == "collectd":
        collectd = stack.enter_context(Collectd())
        return [Subject("collectd", collectd.pid, counted=collectd.samples)]
    raise SystemExit(f"--peers: {name}: no such peer; there are {', '.join(PEERS)}")


def _time_to_start(config: str) -> float:
    """Seconds from exec to the first answer with a reading, the median of some starts; the first one is not counted."""
    taken = []
    for _ in range(1 + STARTS):
        begun = time.perf_counter()
        with Agent(config):
            taken.append(time.perf_counter() - begun)
    return statistics.median(taken[1:])


def count_between(series: Iterable[Series], begin: float, end: float) -> int:
    """Samples with a time in [begin, end), Unix seconds."""
    return sum(begin <= at < end for one in series for at in one.times)


def lateness_p99_ms(series: Iterable[Series], begin: float) -> float:
    """Of the runs after `begin`: how long after its slot a run began. A value like the one before is no new run."""
    late = []
    for one in series:
        values = [value for at, value in zip(one.times, one.values, strict=True) if at >= begin]
        late += [value * 1e3 for before, value in itertools.pairwise(values) if value != before]
    return percentile(late, 0.99)


def _costs(mode: Mode, windows: dict[str, Window], samples: int) -> list[Figure]:
    """What running costs, scraped each 15 s. `samples`: field values the store has of that time; 0 without a store."""
    own = windows.pop("vigilhost")
    is_default = mode.name == "defaults"
    rss_budget = {"defaults": budgets.RSS_WITH_INFLUXDB_MB, "no influxdb": budgets.RSS_MB}.get(mode.name)

    def figure(what: str, value: float, budget: Budget | None, of_peer: str | None = None) -> Figure:
        peers = {name: getattr(window, of_peer) for name, window in windows.items()} if of_peer else {}
        return Figure(mode.name, what, value, budget, peers)

    yours = [figure("CPU s/min", own.cpu_s_per_min, budgets.CPU_S_PER_MIN if is_default else None, "cpu_s_per_min")]
    if samples:
        cost = {name: window.us_per_sample() for name, window in windows.items()}
        budget = None if is_default else budgets.US_PER_SAMPLE
        yours.append(Figure(mode.name, "CPU us/sample", own.us_per_sample(samples), budget, cost))
        rates = {name: window.samples / window.seconds for name, window in windows.items()}
        yours.append(Figure(mode.name, "samples/s", samples / own.seconds, None, rates))
    switches = budgets.SWITCHES_PER_S if is_default else None
    yours.append(figure("context switches/s", own.switches_per_s, switches, "switches_per_s"))
    rss = {name: window.memory.rss / 1e6 for name, window in windows.items()}
    pss = {name: window.memory.pss / 1e6 for name, window in windows.items()}
    yours.append(Figure(mode.name, "RSS MB", own.memory.rss / 1e6, rss_budget, rss))
    yours.append(Figure(mode.name, "PSS MB", own.memory.pss / 1e6, None, pss))
    written = budgets.WRITTEN_MB_PER_DAY if is_default else None
    yours.append(figure("written MB/day", own.written_mb_per_day, written))
    return yours


def _answers(mode: Mode, windows: dict[str, Window], lateness_ms: float, start_s: float) -> list[Figure]:
    """How it answers, scraped each second."""
    own = windows["vigilhost"]
    peer = {name: window for name, window in windows.items() if name == "node_exporter 1s"}
    figures = [Figure(mode.name, "lateness p99 ms", lateness_ms, budgets.LATENESS_P99_MS, {})]
    if mode.name == "defaults":
        figures += [
            Figure(mode.name, "/metrics series", own.series, None, {name: one.series for name, one in peer.items()}),
            Figure(mode.name, "/metrics p50 ms", own.scrape_ms(0.5), budgets.SCRAPE_P50_MS,
                   {name: one.scrape_ms(0.5) for name, one in peer.items()}),
            Figure(mode.name, "/metrics p99 ms", own.scrape_ms(0.99), None,
                   {name: one.scrape_ms(0.99) for name, one in peer.items()}),
            Figure(mode.name, "/metrics CPU us/series", own.scrape_us_per_series, budgets.SCRAPE_US_PER_SERIES,
                   {name: one.scrape_us_per_series for name, one in peer.items()}),
            Figure(mode.name, "start to first sample s", start_s, budgets.START_S, {}),
        ]  # fmt: skip
    return [figure for figure in figures if not math.isnan(figure.value)]


def medians(rounds: Sequence[Sequence[Figure]]) -> list[Figure]:
    """The median round of each figure, the agent's and each peer's."""
    return [
        Figure(
            same[0].mode,
            same[0].what,
            statistics.median(one.value for one in same),
            same[0].budget,
            {name: statistics.median(one.peers[name] for one in same) for name in same[0].peers},
        )
        for same in zip(*rounds, strict=True)
    ]


def machine() -> str:
    """What this was measured on."""
    kernel, load = os.uname().release, " ".join(f"{one:.2f}" for one in os.getloadavg())
    python = ".".join(map(str, sys.version_info[:3]))
    return f"{os.cpu_count()} cores, Linux {kernel}, Python {python}, load average {load}"


def as_json(figure: Figure) -> dict[str, object]:
    """A figure with its verdict and its ratios to the peers."""
    verdict = figure.budget.verdict(figure.value) if figure.budget else ""
    ratios = {name: figure.value / value for name, value in figure.peers.items() if value}
    return {**asdict(figure), "verdict": verdict, "ratios": ratios}


def _print(figures: Sequence[Figure]) -> None:
    names = list(dict.fromkeys(name for figure in figures for name in figure.peers))
    table = Table("mode", "what", "vigilhost", "must", "aim", "", *names, box=None, header_style="bold")
    for column in (table.columns[at] for at in (2, 3, 4, *range(6, 6 + len(names)))):
        column.justify = "right"
    for figure in figures:
        budget = figure.budget
        cells = [f"{budget.must:g}", f"{budget.aim:g}", budget.verdict(figure.value)] if budget else ["", "", ""]
        table.add_row(figure.mode, figure.what, _short(figure.value), *cells,
                      *(_beside(figure, name) for name in names))  # fmt: skip
    Console(width=150).print(machine(), table, sep="\n")


def _beside(figure: Figure, name: str) -> str:
    value = figure.peers.get(name)
    if value is None or math.isnan(value):
        return ""
    return f"{_short(value)} ({figure.value / value:.2f}x)" if value else _short(value)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
