"""Traffic of network interfaces, from /proc/net/dev and, for what that file lacks, /sys/class/net.

Telegraf leaves out loopback and interfaces that are down, node_exporter does not, so each dialect has its own rows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import ClassVar, NamedTuple

from agent.core.errors import SourceError
from agent.core.host import Host, KeptFile
from agent.core.model import Field, Group, Reading, counter, gauge
from agent.core.options import option
from agent.core.units import Seconds
from collectors.sysfs import compiled, read_int

_IFF_UP = 0x1
_IFF_LOOPBACK = 0x8
_COLUMNS = 16  # of /proc/net/dev, after the name
_MOST_KEPT = 64  # descriptors; a host with a thousand veths must not use up the limit of 1024


def _telegraf(name: str, unit: str, help: str, twin: str) -> Field:
    return counter(name, unit, help, influx=name, twin=f"node_network_{twin}")


NET = Group("net", (
    _telegraf("bytes_sent", "bytes", "Bytes sent.", "transmit_bytes_total"),
    _telegraf("bytes_recv", "bytes", "Bytes received.", "receive_bytes_total"),
    _telegraf("packets_sent", "count", "Packets sent.", "transmit_packets_total"),
    _telegraf("packets_recv", "count", "Packets received.", "receive_packets_total"),
    _telegraf("err_in", "count", "Packets received with an error.", "receive_errs_total"),
    _telegraf("err_out", "count", "Packets that could not be sent.", "transmit_errs_total"),
    _telegraf("drop_in", "count", "Received packets dropped, those missed by the hardware included.",
              "receive_drop_total"),
    _telegraf("drop_out", "count", "Packets dropped before they were sent.", "transmit_drop_total"),
    gauge("speed", "megabits_per_second", "Speed of the link, -1 when not known.", influx="speed",
          twin="node_network_speed_bytes"),
), tags=("interface",))  # fmt: skip


def _node(name: str, help: str, unit: str = "count") -> Field:
    return counter(name, unit, help, prom=f"node_network_{name}_total")


# In the order of the columns of /proc/net/dev; the last one comes from sysfs.
NODE_NETWORK = Group("node_network", (
    _node("receive_bytes", "Bytes received.", "bytes"),
    _node("receive_packets", "Packets received."),
    _node("receive_errs", "Packets received with an error."),
    _node("receive_drop", "Received packets dropped, those missed by the hardware included."),
    _node("receive_fifo", "Receive buffer overruns."),
    _node("receive_frame", "Packets received with a framing error."),
    _node("receive_compressed", "Compressed packets received."),
    _node("receive_multicast", "Multicast packets received."),
    _node("transmit_bytes", "Bytes sent.", "bytes"),
    _node("transmit_packets", "Packets sent."),
    _node("transmit_errs", "Packets that could not be sent."),
    _node("transmit_drop", "Packets dropped before they were sent."),
    _node("transmit_fifo", "Send buffer underruns."),
    _node("transmit_colls", "Collisions."),
    _node("transmit_carrier", "Packets lost because the carrier went away."),
    _node("transmit_compressed", "Compressed packets sent."),
    _node("receive_nohandler", "Packets received for which there was no protocol handler."),
), tags=("device",))  # fmt: skip


def parse_net_dev(text: bytes) -> dict[str, tuple[int, ...]]:
    """The 16 counters of each interface by its name. Raise SourceError when a line is not as the kernel writes it."""
    devices = {}
    for line in text.splitlines()[2:]:
        name, _, counters = line.rpartition(b":")  # a name may hold a colon (old alias interfaces), counters cannot
        try:
            values = tuple(map(int, counters.split()))
        except ValueError:
            values = ()
        if len(values) != _COLUMNS:
            raise SourceError(f"/proc/net/dev: {line!r} has not a name and {_COLUMNS} counters")
        devices[name.strip().decode("utf-8", "replace")] = values
    return devices


class _Details(NamedTuple):
    """What is known about one interface besides its counters."""

    is_measured: bool  # for Telegraf's rows
    speed: int  # Mbit/s, -1 when not known


@dataclass(slots=True)
class Net:
    """Bytes, packets, errors and drops of each network interface."""

    name: ClassVar[str] = "net"
    groups: ClassVar[tuple[Group, ...]] = (NET, NODE_NETWORK)

    interval: Seconds = option(5.0, "Time between two readings.")
    interfaces: list[str] = option(
        list,
        "Interfaces of the `net` measurement, as shell patterns; empty means all that are up, without loopback.",
        example='["eth*", "enp0s[0-1]", "lo"]',
    )
    device_exclude: str = option("^$", "Regular expression of the devices that node_network_* leaves out.")
    details_interval: Seconds = option(30.0, "Time between two looks at flags and speed.")
    host: Host = field(default_factory=Host)
    _now: Callable[[], float] = time.monotonic
    _file: KeptFile = field(init=False)
    _details: dict[str, _Details] = field(init=False, default_factory=dict)
    _details_until: float = field(init=False, default=0.0)
    _excluded: dict[str, bool] = field(init=False, default_factory=dict)
    _nohandler: dict[str, KeptFile] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        compiled("device_exclude", self.device_exclude)
        self._file = KeptFile(self.host.proc("net/dev"))

    def collect(self) -> Iterator[Reading]:
        devices = parse_net_dev(self._file.read())
        if self._now() >= self._details_until or devices.keys() != self._details.keys():
            self._look_at(devices)
        for name, values in devices.items():
            is_measured, speed = self._details[name]
            if is_measured:
                yield NET.row((name,), (
                    values[8], values[0], values[9], values[1], values[2], values[10], values[3], values[11], speed
                ))  # fmt: skip
            if not self._excluded[name]:
                yield NODE_NETWORK.row((name,), (*values, self._read_nohandler(name)))

    def _look_at(self, devices: dict[str, tuple[int, ...]]) -> None:
        exclude = compiled("device_exclude", self.device_exclude)
        self._details = {name: self._details_of(name) for name in devices}
        self._excluded = {name: exclude.search(name) is not None for name in devices}
        self._details_until = self._now() + self.details_interval
        self._nohandler = {
            name: self._nohandler.get(name) or KeptFile(self._path(name, "statistics/rx_nohandler"))
            for name in list(devices)[:_MOST_KEPT]
        }

    def _details_of(self, name: str) -> _Details:
        speed = read_int(self._path(name, "speed"))
        if self.interfaces:
            is_measured = any(fnmatchcase(name, pattern) for pattern in self.interfaces)
        else:
            flags = read_int(self._path(name, "flags"))
            # Without sysfs only the name tells loopback, and every interface counts as up.
            is_measured = name != "lo" if flags is None else bool(flags & _IFF_UP) and not flags & _IFF_LOOPBACK
        return _Details(is_measured, -1 if speed is None else speed)

    def _read_nohandler(self, name: str) -> int | None:
        """/proc/net/dev has no column for it; None without sysfs."""
        kept = self._nohandler.get(name)
        if kept is None:
            return read_int(self._path(name, "statistics/rx_nohandler"))
        try:
            return int(kept.read())
        except (SourceError, ValueError):
            return None

    def _path(self, name: str, attribute: str) -> str:
        return os.path.join(self.host.sys("class/net"), name, attribute)

    def close(self) -> None:
        """Give the descriptors back."""
        for kept in (self._file, *self._nohandler.values()):
            kept.close()
