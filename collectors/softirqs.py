"""Soft interrupts by vector and CPU, from /proc/softirqs; their totals are in `kernel`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from agent.core.errors import SourceError
from agent.core.host import Host, read_file
from agent.core.model import Group, Reading, counter
from agent.core.options import option
from agent.core.units import Seconds

SOFTIRQS = Group("softirqs_cpu", (
    counter("count", "count", "Soft interrupts served by this CPU.", prom="node_softirqs_functions_total"),
), tags=("cpu", "type"))  # fmt: skip


def parse_softirqs(text: bytes) -> dict[str, dict[str, int]]:
    """Count by vector and CPU, without the CPUs that never served one.

    The kernel has a column for every CPU that could ever be plugged in; those that are not there are zero throughout.
    Raise SourceError when the first line names no CPU or a count is no number.
    """
    header, _, body = text.partition(b"\n")
    cpus = [word[3:].decode("ascii", "replace") for word in header.split() if word.startswith(b"CPU")]
    if not cpus:
        raise SourceError("/proc/softirqs: the first line names no CPU")
    rows: dict[str, list[int]] = {}
    for row in body.split(b"\n"):
        vector, colon, cells = row.partition(b":")
        if not colon:
            continue
        try:
            counts = list(map(int, cells.split()))
        except ValueError as error:
            raise SourceError(f"/proc/softirqs: {row[:80]!r} is not a row of numbers") from error
        if len(counts) == len(cpus):
            rows[vector.strip().decode("utf-8", "replace")] = counts
    used = [any(column) for column in zip(*rows.values(), strict=True)]
    return {
        vector: {cpu: count for cpu, count, is_used in zip(cpus, counts, used, strict=True) if is_used}
        for vector, counts in rows.items()
    }


@dataclass(slots=True)
class Softirqs:
    """How often each CPU served each kind of soft interrupt."""

    name: ClassVar[str] = "softirqs"
    groups: ClassVar[tuple[Group, ...]] = (SOFTIRQS,)

    interval: Seconds = option(30.0, "Time between two readings.")
    host: Host = field(default_factory=Host)

    def collect(self) -> Iterator[Reading]:
        for vector, counts in parse_softirqs(read_file(self.host.proc("softirqs"))).items():
            for cpu, count in counts.items():
                yield SOFTIRQS.row((cpu, vector), (count,))
