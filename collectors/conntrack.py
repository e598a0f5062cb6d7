"""Tracked connections and the limit on them, from /proc/sys/net/netfilter and /proc/net/stat/nf_conntrack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from agent.core.errors import SourceError
from agent.core.host import Host, KeptFile
from agent.core.model import Field, Group, Reading, gauge
from agent.core.options import option
from agent.core.units import Seconds

# Telegraf reads these numbers as floats, and a field keeps its type for ever.
CONNTRACK = Group("conntrack", (
    gauge("ip_conntrack_count", "count", "Connections being tracked.", type=float, influx="ip_conntrack_count",
          prom="node_nf_conntrack_entries"),
    gauge("ip_conntrack_max", "count", "Connections that can be tracked before new ones are dropped.", type=float,
          influx="ip_conntrack_max", prom="node_nf_conntrack_entries_limit"),
    gauge("ip_conntrack_buckets", "count", "Size of the hash table.", type=float, influx="ip_conntrack_buckets"),
))  # fmt: skip


def _stat(name: str, help: str) -> Field:
    # node_exporter declares these counters as gauges, and the type is part of the metric.
    return gauge(name, "count", help, prom=f"node_nf_conntrack_stat_{name}")


CONNTRACK_STAT = Group("conntrack_stat", (
    _stat("found", "Look-ups that found an entry."),
    _stat("invalid", "Packets that cannot be tracked."),
    _stat("ignore", "Packets already attached to an entry."),
    _stat("insert", "Entries put into the table."),
    _stat("insert_failed", "Entries that were in the table already."),
    _stat("drop", "Packets dropped because an entry could not be made."),
    _stat("early_drop", "Entries dropped to make room for new ones."),
    _stat("search_restart", "Look-ups that began again because the table was resized."),
))  # fmt: skip


def parse_conntrack_stat(text: bytes) -> dict[str, int]:
    """Counters by name, summed over the CPUs (one line of hexadecimal numbers each).

    Raise SourceError when a line does not fit the header.
    """
    header, *lines = text.splitlines() or [b""]
    names = header.decode("ascii", "replace").split()
    total = dict.fromkeys(names, 0)
    for line in lines:
        try:
            for name, value in zip(names, line.split(), strict=True):
                total[name] += int(value, 16)
        except ValueError as error:
            raise SourceError(
                f"/proc/net/stat/nf_conntrack: {line[:60]!r} is not {len(names)} hexadecimal numbers"
            ) from error
    return total


@dataclass(slots=True)
class Conntrack:
    """Tracked connections, the limit on them and what happened to packets on the way."""

    name: ClassVar[str] = "conntrack"
    groups: ClassVar[tuple[Group, ...]] = (CONNTRACK, CONNTRACK_STAT)

    interval: Seconds = option(30.0, "Time between two readings.")
    host: Host = field(default_factory=Host)
    _count: KeptFile = field(init=False)
    _limit: KeptFile = field(init=False)
    _buckets: KeptFile = field(init=False)
    _stat: KeptFile = field(init=False)

    def __post_init__(self) -> None:
        directory = self.host.proc("sys/net/netfilter")
        self._count = KeptFile(f"{directory}/nf_conntrack_count")
        self._limit = KeptFile(f"{directory}/nf_conntrack_max")
        self._buckets = KeptFile(f"{directory}/nf_conntrack_buckets")
        self._stat = KeptFile(self.host.proc("net/stat/nf_conntrack"))

    def collect(self) -> Iterator[Reading]:
        count, limit = _number(self._count), _number(self._limit)
        try:
            buckets = _number(self._buckets)
        except SourceError:
            buckets = None  # may be hidden from a container that sees the other two
        yield CONNTRACK.row((), (count, limit, buckets))
        try:
            text = self._stat.read()
        except SourceError:
            return  # readable by root alone on some kernels, absent without CONFIG_NF_CONNTRACK_PROCFS
        yield CONNTRACK_STAT.row((), tuple(map(parse_conntrack_stat(text).get, CONNTRACK_STAT.names)))

    def close(self) -> None:
        """Give the descriptors back."""
        for file in (self._count, self._limit, self._buckets, self._stat):
            file.close()


def _number(file: KeptFile) -> float:
    text = file.read()
    try:
        return float(int(text))
    except (ValueError, OverflowError) as error:
        raise SourceError(f"{file.path}: {text[:40]!r} is not a number") from error
