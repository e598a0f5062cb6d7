"""What network interfaces are: state, speed, MTU, addresses, from /sys/class/net."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from agent.core.host import Host
from agent.core.model import Field, Group, Reading, Value, counter, gauge
from agent.core.options import option
from agent.core.units import Seconds
from collectors.sysfs import as_text, compiled, list_names, parse_int

_IFF_UP = 0x1


def _count(file: str, help: str, name: str = "") -> tuple[str, Field]:
    return file, counter(file, "count", help, prom=f"node_network_{name or file}_total")


def _state(file: str, help: str, name: str = "", unit: str = "code") -> tuple[str, Field]:
    return file, gauge(file, unit, help, prom=f"node_network_{name or file}")


# Numeric attributes: the file below /sys/class/net/<device>, and what it is published as.
_ATTRIBUTES = (
    _state("addr_assign_type", "How the address was given: 0 permanent, 1 random, 2 stolen, 3 set.",
           "address_assign_type"),
    _state("carrier", "1 when the link has a carrier.", unit="bool"),
    _count("carrier_changes", "Times the carrier came or went."),
    _count("carrier_up_count", "Times the carrier came.", "carrier_up_changes"),
    _count("carrier_down_count", "Times the carrier went.", "carrier_down_changes"),
    _state("dev_id", "Tells devices apart that share an address.", "device_id"),
    _state("dormant", "1 when the interface waits for an event, such as authentication.", unit="bool"),
    _state("flags", "Flags of the interface (IFF_*)."),
    _state("ifindex", "Index of the interface.", "iface_id"),
    _state("iflink", "Index of the interface this one is stacked on.", "iface_link"),
    _state("link_mode", "0 default, 1 dormant.", "iface_link_mode"),
    _state("mtu", "Largest packet that can be sent.", "mtu_bytes", unit="bytes"),
    _state("name_assign_type", "How the name was given: 1 by the kernel, 2 predictable, 3 by a user, 4 renamed."),
    _state("netdev_group", "Group of the device.", "net_dev_group"),
    ("speed", gauge("speed", "megabits_per_second", "Speed of the link in bytes per second, negative when not known.",
                    prom="node_network_speed_bytes", scale=125000.0)),
    _state("tx_queue_len", "Packets that can wait to be sent.", "transmit_queue_length", unit="count"),
    _state("type", "Hardware type (ARPHRD_*).", "protocol_type"),
)  # fmt: skip

NETCLASS = Group("netclass", (
    gauge("up", "bool", "1 when the interface is operational.", prom="node_network_up"),
    *(published for _, published in _ATTRIBUTES),
), tags=("device",))  # fmt: skip

NETWORK_INFO = Group("network_info", (
    gauge("info", "info", "Attributes of the interface that are not numbers, value always 1.",
          prom="node_network_info"),
), tags=("address", "adminstate", "broadcast", "device", "duplex", "ifalias", "operstate"))  # fmt: skip


@dataclass(slots=True)
class NetClass:
    """State, speed, MTU and addresses of each network interface."""

    name: ClassVar[str] = "netclass"
    groups: ClassVar[tuple[Group, ...]] = (NETCLASS, NETWORK_INFO)

    interval: Seconds = option(30.0, "Time between two readings.")
    device_exclude: str = option("^$", "Regular expression of the devices to leave out.")
    host: Host = field(default_factory=Host)

    def __post_init__(self) -> None:
        compiled("device_exclude", self.device_exclude)

    def collect(self) -> Iterator[Reading]:
        root = self.host.sys("class/net")
        exclude = compiled("device_exclude", self.device_exclude)
        for entry in list_names(root):
            name = as_text(entry)
            if exclude.search(name):
                continue
            try:
                directory = os.open(os.path.join(root, entry), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                continue  # bonding_masters is a file; a device may have gone since the listing
            try:
                yield from _read_device(name, directory)
            finally:
                os.close(directory)


def _read_device(name: str, directory: int) -> Iterator[Reading]:
    numbers: list[Value] = []
    for attribute, _ in _ATTRIBUTES:
        content = _read_at(directory, attribute)
        numbers.append(None if content is None else parse_int(content.rstrip()))
    address, broadcast, duplex, ifalias, operstate = (
        (_read_at(directory, attribute) or b"").decode("utf-8", "replace").strip("\n")
        for attribute in ("address", "broadcast", "duplex", "ifalias", "operstate")
    )
    flags = numbers[_FLAGS_AT]
    adminstate = "unknown" if not isinstance(flags, int) else "up" if flags & _IFF_UP else "down"
    yield NETWORK_INFO.row((address, adminstate, broadcast, name, duplex, ifalias, operstate), (1,))
    yield NETCLASS.row((name,), (int(operstate == "up"), *numbers))


_FLAGS_AT = [attribute for attribute, _ in _ATTRIBUTES].index("flags")


def _read_at(directory: int, attribute: str) -> bytes | None:
    """An attribute below an open directory (half the cost of a whole path, 22 times a device); None when unknown."""
    try:
        fd = os.open(attribute, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    try:
        return os.read(fd, 4096)
    except OSError:
        return None
    finally:
        os.close(fd)
