"""What the installed service costs, and how soon it is there: `python -m benchmarks.service [--seconds 60]`.

The package is installed on a Debian 12 that boots in a container, so the unit's sandbox is in force. Needs root.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.budgets import CPU_S_PER_MIN, RSS_MB, SWITCHES_PER_S, Budget
from benchmarks.subject import Subject, watch
from tests.packaging.built import built_deb
from tests.servers.process import wait_until
from tests.systemd.installed import AGENT_PORT, SERVICE, Installed

SETTLE_S = 12.0
SCRAPE_S = 15.0
SERVING_S = Budget(5.0, 3.0)  # of installation: dpkg may start the service, to the first answer with readings
_WATCHDOG_S, _RESTART_S, _START_S = 10.0, 2.0, 3.0  # as the unit has them; and what a start may take
KILLED_S = Budget(_RESTART_S + _START_S, _RESTART_S + 1)
STALLED_S = Budget(_WATCHDOG_S + _RESTART_S + _START_S, _WATCHDOG_S + _RESTART_S + 1)

Figure = tuple[str, float, Budget | None]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long costs are measured")
    parser.add_argument("--deb", type=Path, help="the package; built where none is given")
    options = parser.parse_args()
    table = Table("of the installed service", "figure", "must", "aim", "", box=None, header_style="bold")
    with Installed() as machine:
        for what, value, budget in measured(machine, options.deb or built_deb(), options.seconds):
            limits = (f"{budget.must:g}", f"{budget.aim:g}", budget.verdict(value)) if budget else ("", "", "")
            table.add_row(what, f"{value:.2f}", *limits)
    Console().print(table)


def measured(machine: Installed, package: Path, seconds: float) -> Iterator[Figure]:
    """All figures. Raise TimeoutError where the service does not come."""
    begun = time.monotonic()
    machine.install(package)
    yield "dpkg --install, s", time.monotonic() - begun, None
    machine.await_serving()
    yield (
        "start of the service to serving, s",
        _moment(machine, "ActiveEnter") - _moment(machine, "InactiveExit"),
        SERVING_S,
    )
    begun_agent, ready = _moment(machine, "ExecMainStart"), _moment(machine, "ActiveEnter")
    yield "start of the agent to readings of every collector, s", ready - begun_agent, None
    time.sleep(SETTLE_S)
    port = machine.forward(AGENT_PORT)
    window = watch([Subject("service", agent_pid(machine), port, SCRAPE_S)], seconds)["service"]
    yield "CPU, s a minute", window.cpu_s_per_min, CPU_S_PER_MIN
    yield "RSS, MB", window.memory.rss / 1e6, RSS_MB
    yield "context switches a second", window.switches_per_s, SWITCHES_PER_S
    yield "killed (kill -9) to serving, s", _time_to_serve_after(machine, lambda: machine.signal("KILL")), KILLED_S
    yield "stalled (SIGSTOP) to serving, s", _time_to_serve_after(machine, lambda: machine.signal("STOP")), STALLED_S


def _moment(machine: Installed, event: str) -> float:
    """Monotonic seconds of something that systemd noted of the service."""
    name = f"{event}TimestampMonotonic"
    return int(machine.show(SERVICE, name)[name]) / 1e6


def _time_to_serve_after(machine: Installed, harm: Callable[[], None]) -> float:
    before, begun = machine.main_pid(), time.monotonic()
    harm()
    wait_until(lambda: machine.main_pid() not in (0, before), "another process", 120, every=0.05)
    machine.await_serving()
    return _moment(machine, "ActiveEnter") - begun


def agent_pid(machine: Installed) -> int:
    """The agent's process id here, outside of the machine."""
    inside = str(machine.main_pid())
    for process in psutil.Process(machine.init).children(recursive=True):
        status = Path(f"/proc/{process.pid}/status").read_text()
        if next(line.split()[-1] for line in status.splitlines() if line.startswith("NSpid:")) == inside:
            return process.pid
    raise LookupError(f"no process of the machine has the id {inside}")


if __name__ == "__main__":
    main()
