"""What a backup does to the agent that started it: `python -m benchmarks.backup_beside`.

A real agent, every collector each second, backs up a tree of files again and again. Meanwhile: how late collectors
begin, and how much the daemon grows. The same is measured before, without a backup, on the same machine.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from agent.control import SOCKET_NAME, ask
from benchmarks.backup import Verdict, show_targets
from benchmarks.peers import Agent, agent_config
from benchmarks.process_tree import parse_status
from benchmarks.sample_files import fill_files
from benchmarks.scraper import percentile

JOB = "bench"
SETTLE_S = 12.0
LOOK_S = 0.4  # each run of a collector, one a second, is seen
DEADLINE_S = 600.0
_LATE = re.compile(r'^vigilhost_collector_lateness_seconds\{.*?collector="([^"]+)".*?\} (\S+)$', re.MULTILINE)
_STATUS = re.compile(r"^vigilhost_backup_last_success_timestamp_seconds\{[^}]*\} (\S+)$", re.MULTILINE)


class Keeping(Agent):
    """The agent with one job that nobody but us runs."""

    def __init__(self, source: Path, store: Path, level: int) -> None:
        super().__init__(agent_config(influxdb_url=None, interval="1s"))
        self._job = {
            "source": {"files": {"paths": [str(source)]}}, "targets": {"local": {"path": str(store)}},
            "schedule": {"at": "never"}, "verification": {"level": level}, "retention": {"keep_last": 2},
        }  # fmt: skip

    def prepare(self) -> None:
        super().prepare()
        jobs = self.data_dir / "backup.d"
        jobs.mkdir()
        file = jobs / f"{JOB}.yaml"
        file.write_text(yaml.safe_dump(self._job))
        file.chmod(0o600)

    def rss(self) -> int:
        """Bytes of the daemon alone."""
        return parse_status(Path(f"/proc/{self.pid}/status").read_text())["VmRSS"] << 10


@dataclass(slots=True)
class Watched:
    """What was seen of the daemon over a while."""

    late_ms: list[float] = field(default_factory=list)
    most_rss: int = 0
    seconds: float = 0.0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 0 unless a target is missed and `--strict` was given."""
    options = _parser().parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="vh-bench-", dir=options.directory) as directory:
        source, store = Path(directory, "source"), Path(directory, "store")
        store.mkdir()
        fill_files(source, options.megabytes)
        with Keeping(source, store, options.level) as agent:
            time.sleep(SETTLE_S)
            end = time.monotonic() + options.seconds
            alone = watch(agent, lambda: time.monotonic() < end)
            before = agent.rss()
            beside = Watched()
            for _ in range(options.rounds):
                backed_up = start(agent)
                watch(agent, lambda done=backed_up: not done(), beside)  # type: ignore[misc]
    verdicts = [
        Verdict("lateness of collectors, p99, while it backs up", percentile(beside.late_ms, 0.99), 50, "ms"),
        Verdict("growth of the daemon's RSS", (beside.most_rss - before) / 1e6, 2, "MB"),
    ]
    if options.json:
        print(json.dumps({"alone": summary(alone), "beside": summary(beside),
                          "targets": {one.what: one.value for one in verdicts}}, indent=1))  # fmt: skip
    else:
        show(alone, beside, verdicts)
    return 1 if options.strict and not all(one.is_met for one in verdicts) else 0


def start(agent: Keeping) -> Callable[[], bool]:
    """Have the agent run the job; what tells whether it has succeeded. Raise TimeoutError after some minutes."""
    known = _STATUS.findall(agent.metrics())
    end = time.monotonic() + DEADLINE_S
    ask(str(agent.state_dir / SOCKET_NAME), "backup_run", job=JOB)

    def is_done() -> bool:
        if time.monotonic() > end:
            raise TimeoutError(f"no backup within {DEADLINE_S:g} s{agent.log[-2000:]}")
        return _STATUS.findall(agent.metrics()) != known

    return is_done


def watch(agent: Keeping, goes_on: Callable[[], bool], seen: Watched | None = None) -> Watched:
    """Look at the daemon while `goes_on`. A collector's lateness that is like the one before is no new run."""
    seen = seen or Watched()
    last = dict(_LATE.findall(agent.metrics()))
    began = time.monotonic()
    while goes_on():
        time.sleep(LOOK_S)
        found = dict(_LATE.findall(agent.metrics()))
        seen.late_ms += [float(late) * 1e3 for name, late in found.items() if late != last.get(name)]
        seen.most_rss = max(seen.most_rss, agent.rss())
        last = found
    seen.seconds += time.monotonic() - began
    return seen


def summary(seen: Watched) -> dict[str, float]:
    return {
        "seconds": round(seen.seconds, 1), "runs": len(seen.late_ms), "p50_ms": percentile(seen.late_ms, 0.5),
        "p99_ms": percentile(seen.late_ms, 0.99), "most_rss_mb": seen.most_rss / 1e6,
    }  # fmt: skip


def show(alone: Watched, beside: Watched, verdicts: Sequence[Verdict]) -> None:
    """Both tables, for people."""
    table = Table("", *summary(alone))
    for name, seen in (("alone", alone), ("while it backs up", beside)):
        table.add_row(name, *(f"{value:.1f}" for value in summary(seen).values()))
    Console().print(table)
    show_targets(verdicts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1024, help="size of the files")
    parser.add_argument("--rounds", type=int, default=5, help="backups, one after the other")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to look before, without a backup")
    parser.add_argument("--level", type=int, default=2, help="how far each backup is verified; 2 is the default")
    parser.add_argument("--directory", default="/var/tmp", help="where: a disk, not memory")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a target is missed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
