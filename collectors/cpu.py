"""Time of each CPU by mode, from /proc/stat.

The dialects share no row: Telegraf's are percentages since the last reading, with a `cpu-total` row and guest time
taken out of user and nice; node_exporter's are seconds since boot, per CPU only, guest time left in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import sub
from typing import ClassVar

from agent.core.errors import SourceError
from agent.core.host import Host, KeptFile
from agent.core.model import Group, Reading, counter, gauge
from agent.core.options import option
from agent.core.units import Seconds

# Columns of /proc/stat in the kernel's order; the first eight add up to all the time there was.
_MODES = (
    ("user", "Time in user space."),
    ("nice", "Time in user space at low priority."),
    ("system", "Time in the kernel."),
    ("idle", "Time doing nothing."),
    ("iowait", "Idle time with a disk request outstanding."),
    ("irq", "Time serving interrupts."),
    ("softirq", "Time serving soft interrupts."),
    ("steal", "Time the hypervisor gave to others."),
)
_COLUMNS = 10
_IDLE = 3
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")

CPU = Group("cpu", (
    *(gauge(f"usage_{mode}", "percent", f"{help[:-1]}, share of the time since the last reading.",
            influx=f"usage_{mode}", twin="node_cpu_seconds_total") for mode, help in _MODES),
    gauge("usage_guest", "percent", "Share of time running a guest.",
          influx="usage_guest", twin="node_cpu_guest_seconds_total"),
    gauge("usage_guest_nice", "percent", "Share of time running a low priority guest.",
          influx="usage_guest_nice", twin="node_cpu_guest_seconds_total"),
), tags=("cpu",))  # fmt: skip

CPU_TIME = Group("cpu_time", (
    *(counter(mode, "seconds", "Seconds each CPU spent in each mode.",
              prom="node_cpu_seconds_total", labels={"mode": mode}) for mode, _ in _MODES),
    counter("guest", "seconds", "Seconds each CPU spent running guests; user and nice hold them as well.",
            prom="node_cpu_guest_seconds_total", labels={"mode": "user"}),
    counter("guest_nice", "seconds", "Seconds each CPU spent running guests; user and nice hold them as well.",
            prom="node_cpu_guest_seconds_total", labels={"mode": "nice"}),
), tags=("cpu",))  # fmt: skip

Ticks = tuple[int, ...]


def parse_stat(text: bytes) -> dict[bytes, Ticks]:
    """Clock ticks by mode for `cpu` (all of them) and each `cpuN`; columns an old kernel lacks are 0.

    Raise SourceError when there is no CPU line or one is not made of numbers.
    """
    cpus: dict[bytes, Ticks] = {}
    for line in text.partition(b"\nintr ")[0].split(b"\n"):
        if not line.startswith(b"cpu"):
            continue
        name, *columns = line.split()
        if len(name) > 3 and not name[3:].isdigit():
            continue
        try:
            ticks = tuple(map(int, columns[:_COLUMNS]))
        except ValueError as error:
            raise SourceError(f"/proc/stat: {line[:80]!r} is not a line of numbers") from error
        cpus[name] = ticks if len(ticks) == _COLUMNS else ticks + (0,) * (_COLUMNS - len(ticks))
    if not cpus:
        raise SourceError("/proc/stat: no cpu line")
    return cpus


def settle(before: Ticks, now: Ticks) -> tuple[Ticks, Ticks | None]:
    """What to publish when a counter went back, and the growth since `before`; None when the counters began anew.

    The kernel's idle and iowait step back a little now and then: the old value stands until it is passed. When idle
    loses three seconds the CPU was taken out and put back: its counters started again.
    """
    if before[_IDLE] - now[_IDLE] >= 3 * _TICKS_PER_S:
        return now, None
    kept = tuple(map(max, before, now))
    return kept, tuple(map(sub, kept, before))


def usage(delta: Ticks) -> tuple[float, ...] | None:
    """Percent by mode of ten growths; None when no time has passed. Guest time is taken out of user and nice."""
    total = sum(delta[:8])
    if total <= 0:
        return None
    user, nice, *others, guest, guest_nice = delta
    # Guest and user are read a moment apart, so guest can be ahead by a tick.
    user, nice = max(user - guest, 0), max(nice - guest_nice, 0)
    return tuple([100.0 * ticks / total for ticks in (user, nice, *others, guest, guest_nice)])


@dataclass(slots=True)
class Cpu:
    """Where the time of each CPU goes."""

    name: ClassVar[str] = "cpu"
    groups: ClassVar[tuple[Group, ...]] = (CPU, CPU_TIME)

    interval: Seconds = option(1.0, "Time between two readings.")
    percpu: bool = option(True, "Percentages of each CPU besides those of all together (InfluxDB only).")
    host: Host = field(default_factory=Host)
    _file: KeptFile = field(init=False)
    _before: dict[bytes, Ticks] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._file = KeptFile(self.host.proc("stat"))

    def collect(self) -> Iterator[Reading]:
        before, self._before = self._before, parse_stat(self._file.read())
        for name, ticks in self._before.items():
            old, growth = before.get(name), None
            if old is not None:
                growth = tuple(map(sub, ticks, old))
                if min(growth) < 0:
                    ticks, growth = settle(old, ticks)  # noqa: PLW2901
                    self._before[name] = ticks
            is_one = len(name) > 3
            if is_one:
                seconds = tuple([value / _TICKS_PER_S for value in ticks])
                yield CPU_TIME.row((name[3:].decode(),), seconds)
            if growth is not None and (self.percpu or not is_one):
                percent = usage(growth)
                if percent is not None:
                    yield CPU.row((name.decode() if is_one else "cpu-total",), percent)
