"""What the scheduler did on each CPU, from /proc/schedstat."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from agent.core.errors import SourceError
from agent.core.host import Host, KeptFile
from agent.core.model import Group, Reading, counter
from agent.core.options import option
from agent.core.units import Seconds

SCHEDSTAT = Group("schedstat", (
    counter("running", "seconds", "Time tasks ran on this CPU.", prom="node_schedstat_running_seconds_total"),
    counter("waiting", "seconds", "Time tasks waited for this CPU.", prom="node_schedstat_waiting_seconds_total"),
    counter("timeslices", "count", "Times a task was given this CPU.", prom="node_schedstat_timeslices_total"),
), tags=("cpu",))  # fmt: skip

# After the CPU come six counters of the scheduler's own, then nanoseconds run, nanoseconds waited and timeslices.
_CPU = re.compile(rb"^cpu(\d{1,9})(?: \d+){6} (\d{1,30}) (\d{1,30}) (\d{1,30})(?!\S)", re.MULTILINE)


def parse_schedstat(text: bytes) -> dict[bytes, tuple[float, float, int]]:
    """Seconds running, seconds waiting and timeslices by CPU number. Raise SourceError when no CPU is listed."""
    cpus = {
        cpu: (int(running) / 1e9, int(waiting) / 1e9, int(slices))
        for cpu, running, waiting, slices in _CPU.findall(text)
    }
    if not cpus:
        raise SourceError("/proc/schedstat: no cpu line with nine numbers")
    return cpus


@dataclass(slots=True)
class Schedstat:
    """Time tasks ran on, and waited for, each CPU."""

    name: ClassVar[str] = "schedstat"
    groups: ClassVar[tuple[Group, ...]] = (SCHEDSTAT,)

    interval: Seconds = option(30.0, "Time between two readings.")
    host: Host = field(default_factory=Host)
    _file: KeptFile = field(init=False)

    def __post_init__(self) -> None:
        self._file = KeptFile(self.host.proc("schedstat"))

    def collect(self) -> Iterator[Reading]:
        for cpu, values in parse_schedstat(self._file.read()).items():
            yield SCHEDSTAT.row((cpu.decode(),), values)
