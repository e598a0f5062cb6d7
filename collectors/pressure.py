"""Pressure stall information: how long tasks waited for CPU, memory, disks and interrupts, from /proc/pressure.

Telegraf counts microseconds and has no `irq`; node_exporter counts seconds. Neither publishes `full` of the CPU, which
means nothing for a whole host.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host, KeptFile
from agent.core.model import Group, Reading, counter, gauge
from agent.core.options import option
from agent.core.units import Seconds

_RESOURCES = ("cpu", "memory", "io", "irq")
_TAGS = ("resource", "type")

AVERAGES = Group("pressure", (
    gauge("avg10", "percent", "Share of the last 10 s in which tasks waited.", influx="avg10"),
    gauge("avg60", "percent", "Share of the last minute in which tasks waited.", influx="avg60"),
    gauge("avg300", "percent", "Share of the last five minutes in which tasks waited.", influx="avg300"),
), tags=_TAGS)  # fmt: skip

PRESSURE = Group("pressure_stall", (
    counter("cpu_some", "seconds", "Time in which some task waited for a CPU.",
            prom="node_pressure_cpu_waiting_seconds_total"),
    counter("memory_some", "seconds", "Time in which some task waited for memory.",
            prom="node_pressure_memory_waiting_seconds_total"),
    counter("memory_full", "seconds", "Time in which every task waited for memory.",
            prom="node_pressure_memory_stalled_seconds_total"),
    counter("io_some", "seconds", "Time in which some task waited for a disk.",
            prom="node_pressure_io_waiting_seconds_total"),
    counter("io_full", "seconds", "Time in which every task waited for a disk.",
            prom="node_pressure_io_stalled_seconds_total"),
    counter("irq_full", "seconds", "Time in which every task waited for interrupts to be served.",
            prom="node_pressure_irq_stalled_seconds_total"),
))  # fmt: skip

# One Group a series, because each says the same as a Prometheus metric of its own.
TOTALS = {
    stall.name: Group("pressure", (
        counter("total", "count", "Microseconds in which tasks waited.", influx="total", twin=stall.prom),
    ), tags=_TAGS)
    for stall in PRESSURE.fields if not stall.name.startswith("irq")
}  # fmt: skip


class Stall(NamedTuple):
    """A line of /proc/pressure: percent of time over 10, 60 and 300 s, and microseconds since boot."""

    avg10: float
    avg60: float
    avg300: float
    total: int


_LINE = re.compile(
    rb"^(some|full) avg10=(\d{1,5}\.\d+) avg60=(\d{1,5}\.\d+) avg300=(\d{1,5}\.\d+) total=(\d{1,20})$", re.MULTILINE
)


def parse_pressure(text: bytes) -> dict[str, Stall]:
    """Stalls by type (`some`, `full`); empty when the text is something else."""
    return {
        type.decode(): Stall(float(avg10), float(avg60), float(avg300), int(total))
        for type, avg10, avg60, avg300, total in _LINE.findall(text)
    }


@dataclass(slots=True)
class Pressure:
    """How long tasks waited for CPU, memory and disks."""

    name: ClassVar[str] = "pressure"
    groups: ClassVar[tuple[Group, ...]] = (AVERAGES, *TOTALS.values(), PRESSURE)

    interval: Seconds = option(5.0, "Time between two readings.")
    host: Host = field(default_factory=Host)
    _files: dict[str, KeptFile] = field(init=False)

    def __post_init__(self) -> None:
        self._files = {resource: KeptFile(self.host.proc(f"pressure/{resource}")) for resource in _RESOURCES}

    def collect(self) -> Iterator[Reading]:
        stalls = self._read()
        for key, total in TOTALS.items():
            if stall := stalls.get(key):
                resource, _, type = key.partition("_")
                yield total.row((resource, type), (stall.total,))
                yield AVERAGES.row((resource, type), stall[:3])
        yield PRESSURE.row((), tuple(
            stalls[key].total / 1e6 if key in stalls else None for key in PRESSURE.names
        ))  # fmt: skip

    def _read(self) -> dict[str, Stall]:
        """Stalls by Field name of PRESSURE. Raise SourceMissing when the kernel keeps none."""
        stalls, found = {}, ""
        for resource, file in self._files.items():
            try:
                text = file.read()
            except SourceError as error:
                # Without `psi=1` a kernel has the files and refuses to read them.
                found = found or str(error)
                continue
            for type, stall in parse_pressure(text).items():
                stalls[f"{resource}_{type}"] = stall
            if not stalls:
                found = found or f"{file.path}: no line of averages"
        if not stalls:
            raise SourceMissing(found)
        return stalls
