"""Sockets in use by protocol and the memory they take, from /proc/net/sockstat and sockstat6."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host, KeptFile
from agent.core.model import Field, Group, Reading, gauge
from agent.core.options import option
from agent.core.units import Seconds


def _count(name: str, help: str, unit: str = "count") -> Field:
    return gauge(name, unit, help, prom=f"node_sockstat_{name}")


SOCKSTAT = Group("sockstat", (
    _count("sockets_used", "Sockets of every kind."),
    _count("TCP_inuse", "IPv4 TCP sockets."),
    _count("TCP_orphan", "TCP sockets that belong to no process any more."),
    _count("TCP_tw", "TCP sockets in TIME_WAIT."),
    _count("TCP_alloc", "TCP sockets of every state, both families."),
    _count("TCP_mem", "Memory of TCP sockets, in pages.", "pages"),
    _count("TCP_mem_bytes", "Memory of TCP sockets.", "bytes"),
    _count("UDP_inuse", "IPv4 UDP sockets."),
    _count("UDP_mem", "Memory of UDP sockets, in pages.", "pages"),
    _count("UDP_mem_bytes", "Memory of UDP sockets.", "bytes"),
    _count("UDPLITE_inuse", "IPv4 UDP-Lite sockets."),
    _count("RAW_inuse", "IPv4 raw sockets."),
    _count("FRAG_inuse", "IPv4 packets being put together."),
    _count("FRAG_memory", "Memory of IPv4 packets being put together.", "bytes"),
    _count("TCP6_inuse", "IPv6 TCP sockets."),
    _count("UDP6_inuse", "IPv6 UDP sockets."),
    _count("UDPLITE6_inuse", "IPv6 UDP-Lite sockets."),
    _count("RAW6_inuse", "IPv6 raw sockets."),
    _count("FRAG6_inuse", "IPv6 packets being put together."),
    _count("FRAG6_memory", "Memory of IPv6 packets being put together.", "bytes"),
))  # fmt: skip

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def parse_sockstat(text: bytes) -> dict[str, int]:
    """`TCP: inuse 5 mem 2` as TCP_inuse 5, TCP_mem 2. Raise SourceError when a count is not a number."""
    counts = {}
    for line in text.splitlines():
        protocol, _, rest = line.partition(b":")
        words = rest.split()
        for key, value in zip(words[::2], words[1::2], strict=False):
            try:
                counts[f"{protocol.decode('ascii', 'replace')}_{key.decode('ascii', 'replace')}"] = int(value)
            except ValueError as error:
                raise SourceError(f"/proc/net/sockstat: {line!r} is not pairs of a name and a number") from error
    return counts


@dataclass(slots=True)
class SockStat:
    """Sockets by protocol."""

    name: ClassVar[str] = "sockstat"
    groups: ClassVar[tuple[Group, ...]] = (SOCKSTAT,)

    interval: Seconds = option(30.0, "Time between two readings.")
    host: Host = field(default_factory=Host)
    _files: tuple[KeptFile, KeptFile] = field(init=False)

    def __post_init__(self) -> None:
        self._files = KeptFile(self.host.proc("net/sockstat")), KeptFile(self.host.proc("net/sockstat6"))

    def collect(self) -> Iterator[Reading]:
        ipv4, ipv6 = self._files
        counts = parse_sockstat(ipv4.read())
        try:
            counts.update(parse_sockstat(ipv6.read()))
        except SourceMissing:
            pass  # a kernel without IPv6
        for protocol in ("TCP", "UDP"):
            if (pages := counts.get(f"{protocol}_mem")) is not None:
                counts[f"{protocol}_mem_bytes"] = pages * _PAGE_BYTES
        yield SOCKSTAT.row((), tuple(map(counts.get, SOCKSTAT.names)))

    def close(self) -> None:
        """Give the descriptors back."""
        for file in self._files:
            file.close()
