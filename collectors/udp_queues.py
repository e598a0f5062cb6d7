"""Bytes that wait in UDP sockets, from /proc/net/udp and udp6."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from agent.core.errors import SourceMissing
from agent.core.host import Host, read_file
from agent.core.model import Group, Reading, gauge
from agent.core.options import option
from agent.core.units import Seconds

_HELP = "Bytes that wait in UDP sockets to be sent (tx) or read (rx)."

UDP_QUEUES = Group("udp_queues", (
    gauge("tx", "bytes", _HELP, prom="node_udp_queues", labels={"queue": "tx"}),
    gauge("rx", "bytes", _HELP, prom="node_udp_queues", labels={"queue": "rx"}),
), tags=("ip",))  # fmt: skip

_QUEUES = re.compile(rb"^ *\d+: [0-9A-F]+:[0-9A-F]{4} [0-9A-F]+:[0-9A-F]{4} [0-9A-F]{2} ([0-9A-F]{8}):([0-9A-F]{8}) ",
                     re.MULTILINE)  # fmt: skip


def parse_udp(text: bytes) -> tuple[int, int]:
    """Bytes that wait to be sent and to be read; what is no socket line is passed over."""
    tx_bytes = rx_bytes = 0
    for tx, rx in _QUEUES.findall(text):
        tx_bytes += int(tx, 16)
        rx_bytes += int(rx, 16)
    return tx_bytes, rx_bytes


@dataclass(slots=True)
class UdpQueues:
    """Bytes in the queues of UDP sockets."""

    name: ClassVar[str] = "udp_queues"
    groups: ClassVar[tuple[Group, ...]] = (UDP_QUEUES,)

    interval: Seconds = option(30.0, "Time between two readings.")
    host: Host = field(default_factory=Host)

    def collect(self) -> Iterator[Reading]:
        yield UDP_QUEUES.row(("v4",), parse_udp(read_file(self.host.proc("net/udp"))))
        try:
            text = read_file(self.host.proc("net/udp6"))
        except SourceMissing:
            return  # a kernel without IPv6
        yield UDP_QUEUES.row(("v6",), parse_udp(text))
