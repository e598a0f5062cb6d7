"""Packets on their way from the network card to the protocols, by CPU, from /proc/net/softnet_stat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from agent.core.errors import SourceError
from agent.core.host import Host, read_file
from agent.core.model import Group, Reading, counter, gauge
from agent.core.options import option
from agent.core.units import Seconds

SOFTNET = Group("softnet", (
    counter("processed", "count", "Packets processed.", prom="node_softnet_processed_total"),
    counter("dropped", "count", "Packets dropped because the backlog was full.", prom="node_softnet_dropped_total"),
    counter("times_squeezed", "count", "Times work was left when the budget was used up.",
            prom="node_softnet_times_squeezed_total"),
    counter("cpu_collision", "count", "Times the device was locked by another CPU on sending.",
            prom="node_softnet_cpu_collision_total"),
    counter("received_rps", "count", "Times another CPU handed packets over.",
            prom="node_softnet_received_rps_total"),
    counter("flow_limit_count", "count", "Times a flow reached its limit.",
            prom="node_softnet_flow_limit_count_total"),
    gauge("backlog_len", "count", "Packets that wait.", prom="node_softnet_backlog_len"),
), tags=("cpu",))  # fmt: skip

_COLUMNS = (0, 1, 2, 8, 9, 10, 11)  # of the fields above
_CPU_COLUMN = 12  # since Linux 5.10; before, lines are in the order of the CPUs


def parse_softnet(text: bytes) -> dict[str, tuple[int | None, ...]]:
    """The fields of SOFTNET by CPU; None for columns an older kernel lacks.

    Raise SourceError for a line that is not hexadecimal numbers.
    """
    cpus = {}
    for row, line in enumerate(text.splitlines()):
        try:
            numbers = [int(word, 16) for word in line.split()]
        except ValueError as error:
            raise SourceError(f"/proc/net/softnet_stat: {line[:60]!r} is not hexadecimal numbers") from error
        cpu = numbers[_CPU_COLUMN] if len(numbers) > _CPU_COLUMN else row
        cpus[str(cpu)] = tuple(numbers[at] if at < len(numbers) else None for at in _COLUMNS)
    return cpus


@dataclass(slots=True)
class SoftNet:
    """Packets processed, dropped and waiting, by CPU."""

    name: ClassVar[str] = "softnet"
    groups: ClassVar[tuple[Group, ...]] = (SOFTNET,)

    interval: Seconds = option(30.0, "Time between two readings.")
    host: Host = field(default_factory=Host)

    def collect(self) -> Iterator[Reading]:
        for cpu, values in parse_softnet(read_file(self.host.proc("net/softnet_stat"))).items():
            yield SOFTNET.row((cpu,), values)
