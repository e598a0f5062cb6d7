"""Interrupts by line and CPU, from /proc/interrupts.

A host with 64 CPUs has ten thousand cells here, nearly all of them zero for ever; `max_series` bounds what is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from agent.core.errors import SourceError
from agent.core.host import Host, read_file
from agent.core.model import Group, Reading, counter
from agent.core.options import option
from agent.core.units import Seconds

INTERRUPTS = Group("interrupts", (
    counter("count", "count", "Interrupts served by this CPU.", prom="node_interrupts_total"),
), tags=("cpu", "devices", "info", "type"))  # fmt: skip


class Line(NamedTuple):
    """One interrupt: `type` is its number or short name, `info` its controller or its long name."""

    type: str
    info: str
    devices: str
    counts: list[int]  # in the order of the CPUs


def parse_interrupts(text: bytes) -> tuple[list[str], list[Line]]:
    """Numbers of the online CPUs, and the interrupts counted for each of them (ERR and MIS are not).

    Raise SourceError when the first line names no CPU or a count is no number.
    """
    header, _, body = text.partition(b"\n")
    cpus = [word[3:].decode("ascii", "replace") for word in header.split() if word.startswith(b"CPU")]
    if not cpus:
        raise SourceError("/proc/interrupts: the first line names no CPU")
    lines: dict[str, Line] = {}
    for row in body.split(b"\n"):
        name, _, rest = row.partition(b":")
        *cells, tail = rest.split(None, len(cpus)) or [b""]
        if len(cells) < len(cpus):
            continue
        try:
            counts = list(map(int, cells))
        except ValueError as error:
            raise SourceError(f"/proc/interrupts: {row[:80]!r} is not a row of {len(cpus)} numbers") from error
        type = name.strip().decode("utf-8", "replace")
        words = tail.decode("utf-8", "replace").split()
        named = 1 if type.isdigit() else len(words)
        lines[type] = Line(type, " ".join(words[:named]), " ".join(words[named:]), counts)
    return cpus, list(lines.values())


def choose(lines: Iterable[Line], limit: int, kept: set[str]) -> set[str]:
    """Types whose cells that are not zero fit into `limit`: those kept before, then those that fired most."""
    room, chosen = limit, set()
    for line in sorted(lines, key=lambda line: (line.type not in kept, -sum(line.counts))):
        cells = len(line.counts) - line.counts.count(0)
        if cells <= room:
            room -= cells
            chosen.add(line.type)
    return chosen


@dataclass(slots=True)
class Interrupts:
    """How often each device interrupted each CPU."""

    name: ClassVar[str] = "interrupts"
    groups: ClassVar[tuple[Group, ...]] = (INTERRUPTS,)

    interval: Seconds = option(30.0, "Time between two readings.")
    max_series: int = option(1000, "Beyond this many, series that are zero are left out, then the rarest interrupts.",
                             minimum=1)  # fmt: skip
    host: Host = field(default_factory=Host)
    _kept: set[str] = field(default_factory=set, init=False)

    def collect(self) -> Iterator[Reading]:
        cpus, lines = parse_interrupts(read_file(self.host.proc("interrupts")))
        if len(lines) * len(cpus) <= self.max_series:
            for line in lines:
                for cpu, count in zip(cpus, line.counts, strict=True):
                    yield INTERRUPTS.row((cpu, line.devices, line.info, line.type), (count,))
            return
        self._kept = choose(lines, self.max_series, self._kept)
        for line in lines:
            if line.type in self._kept:
                for cpu, count in zip(cpus, line.counts, strict=True):
                    if count:
                        yield INTERRUPTS.row((cpu, line.devices, line.info, line.type), (count,))
