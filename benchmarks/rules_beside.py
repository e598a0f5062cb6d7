"""A thousand rules in a running agent, and how soon a breach is told: `python -m benchmarks.rules_beside`.

Two agents run side by side, every collector each second: one without rules, one with rules over its own series. Each
look asks how long the last evaluation took and how late collectors began. Then a number in a textfile is made to breach
a rule of a third agent, again and again, and its web hook (a stand-in) tells when it heard.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from benchmarks.backup import Verdict, show_targets
from benchmarks.peers import Agent, agent_config
from benchmarks.scraper import percentile
from tests.servers.scripted_http import Reply, ScriptedHttp

SETTLE_S = 20.0
LOOK_S = 0.4
INTERVAL_S = 5.0  # of the rule that is breached; the group of the thousand keeps to its own
EVALUATED_EVERY_S = 15.0
_METRICS = ("node_memory_MemFree_bytes", "node_load1", "node_cpu_seconds_total", "node_network_receive_bytes_total",
            "node_disk_read_bytes_total", "node_filesystem_avail_bytes", "node_vmstat_pgfault", "node_procs_running",
            "node_context_switches_total", "vigilhost_collector_duration_seconds")  # fmt: skip
_LATE = re.compile(r'^vigilhost_collector_lateness_seconds\{.*?collector="([^"]+)".*?\} (\S+)$', re.MULTILINE)
_TOOK = re.compile(r"^vigilhost_alerting_evaluation_seconds(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
_BREACH = "groups: [{name: b, interval: %gs, rules: [{alert: Breach, expr: queue_length > 10}]}]"


class Judging(Agent):
    """The agent with rules of its own in `rules.d`."""

    def __init__(self, config: str, rules: str) -> None:
        super().__init__(config)
        self._rules = rules

    def prepare(self) -> None:
        super().prepare()
        (self.data_dir / "rules.d").mkdir()
        (self.data_dir / "rules.d" / "bench.yaml").write_text(self._rules)
        self.measure("", 0)

    def measure(self, queue: str, length: int) -> None:
        """From now on the length of this queue is the only one."""
        fresh = self.data_dir / "queue.new"
        fresh.write_text(f'queue_length{{queue="{queue}"}} {length}\n')
        fresh.rename(self.data_dir / "queue.prom")


@dataclass(slots=True)
class Seen:
    """What was seen of an agent, in milliseconds."""

    late: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)


def thousand(count: int) -> str:
    """Rules that differ, over counters and gauges of the agent itself, none of which fires."""
    rules = []
    for number in range(count):
        metric = _METRICS[number % len(_METRICS)]
        asked = f"rate({metric}[5m])" if metric.endswith("_total") else f"avg_over_time({metric}[{1 + number % 9}m])"
        rules.append({"alert": f"Rule{number}", "expr": f"{asked} > 1e15 + {number}", "for": "1m"})
    return json.dumps({"groups": [{"name": "bench", "interval": f"{EVALUATED_EVERY_S:g}s", "rules": rules}]})


def watch(agents: dict[str, Judging], seconds: float) -> dict[str, Seen]:
    """Look at each for a while. What is like the look before is no new run."""
    seen = {name: Seen() for name in agents}
    last: dict[str, tuple[dict[str, str], list[str]]] = {name: ({}, []) for name in agents}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(LOOK_S)
        for name, agent in agents.items():
            text = agent.metrics()
            late, took = dict(_LATE.findall(text)), _TOOK.findall(text)
            known_late, known_took = last[name]
            if known_late:
                seen[name].late += [float(value) * 1e3 for at, value in late.items() if value != known_late.get(at)]
                seen[name].took += [float(value) * 1e3 for value in took if took != known_took]
            last[name] = late, took
    return seen


def told_after(rounds: int) -> list[float]:
    """Seconds from the breach, and then from its end, to the web hook's hearing of it."""
    with ExitStack() as stack:
        hook = stack.enter_context(ScriptedHttp(Reply(200)))
        config = (
            "log: {level: warning}\n"
            "collectors: {others: false, memory: {}, textfile: {interval: 1s, directory: DIRECTORY}}\n"
            "alerting:\n  rules: {defaults: false}\n"
            f"  receivers: {{ops: {{type: webhook, url: '{hook.url}/hook'}}}}\n"
            "  route: {receiver: ops, group_by: [queue], group_wait: 0s, group_interval: 1s}\n"
        )
        agent = stack.enter_context(Breached(config, _BREACH % INTERVAL_S))
        time.sleep(SETTLE_S)
        heard = []
        for number in range(2 * rounds):
            known, began = len(hook.requests), time.monotonic()
            queue = f"{number // 2}"  # a new one each time: an alert that comes and goes is damped
            agent.measure(queue, 50 if number % 2 == 0 else 0)
            while len(hook.requests) == known:
                if time.monotonic() > began + 60:
                    raise TimeoutError(f"nothing was told within 60 s{agent.log[-2000:]}")
                time.sleep(0.005)
            heard.append(hook.requests[known].at - began)
            time.sleep(1.0 + number % 7 * 0.61)  # breaches come at any moment of the interval
    return heard


class Breached(Judging):
    """Reads the number from a file beside its configuration."""

    def prepare(self) -> None:
        self.config = self.config.replace("DIRECTORY", str(self.data_dir))
        super().prepare()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 0 unless a target is missed and `--strict` was given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rules_beside", description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0, help="length of the window (default: 180)")
    parser.add_argument("--rules", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--breaches", type=int, default=12, help="how often one is made (default: 12)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--strict", action="store_true", help="exit status 1 when a target is missed")
    options = parser.parse_args(argv)
    config = agent_config(influxdb_url=None, interval="1s") + "alerting: {rules: {defaults: false}}\n"
    with ExitStack() as stack:
        agents = {
            name: stack.enter_context(Judging(config, thousand(count)))
            for name, count in (("without", 0), ("with", options.rules))
        }
        time.sleep(SETTLE_S)
        seen = watch(agents, options.seconds)
    heard = told_after(options.breaches)
    found = {
        "evaluations": len(seen["with"].took), "evaluation, median s": statistics.median(seen["with"].took) / 1e3,
        "lateness without rules, p50 ms": percentile(seen["without"].late, 0.5),
        "lateness without rules, p99 ms": percentile(seen["without"].late, 0.99),
        "lateness with them, p50 ms": percentile(seen["with"].late, 0.5),
        "told after, median s": statistics.median(heard),
    }  # fmt: skip
    verdicts = [
        Verdict(f"the slowest evaluation of {options.rules} rules", max(seen["with"].took) / 1e3, 2, "s"),
        Verdict("lateness of collectors beside them, p99", percentile(seen["with"].late, 0.99), 20, "ms"),
        Verdict(f"a breach and its end are told, the slowest of {len(heard)}", max(heard), INTERVAL_S + 2, "s"),
    ]
    if options.json:
        print(json.dumps(found | {one.what: one.value for one in verdicts}, indent=1))
    else:
        for what, value in found.items():
            print(f"{what}: {value:.4g}")
        show_targets(verdicts)
    return 1 if options.strict and not all(one.is_met for one in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
