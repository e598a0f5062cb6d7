"""Neighbours known by ARP, from /proc/net/arp."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from agent.core.host import Host, read_file
from agent.core.model import Group, Reading, gauge
from agent.core.options import option
from agent.core.units import Seconds
from collectors.sysfs import compiled

ARP = Group("arp", (
    gauge("entries", "count", "Neighbours in the ARP table.", prom="node_arp_entries"),
), tags=("device",))  # fmt: skip


def parse_arp(text: bytes) -> dict[str, int]:
    """Entries by device: the sixth column after a header line; a line without one is passed over."""
    entries = Counter(words[5] for line in text.splitlines()[1:] if len(words := line.split()) == 6)
    return {device.decode("utf-8", "replace"): count for device, count in entries.items()}


@dataclass(slots=True)
class Arp:
    """Size of the ARP table by device."""

    name: ClassVar[str] = "arp"
    groups: ClassVar[tuple[Group, ...]] = (ARP,)

    interval: Seconds = option(30.0, "Time between two readings.")
    device_exclude: str = option("^$", "Regular expression of the devices to leave out.")
    host: Host = field(default_factory=Host)

    def __post_init__(self) -> None:
        compiled("device_exclude", self.device_exclude)

    def collect(self) -> Iterator[Reading]:
        exclude = compiled("device_exclude", self.device_exclude)
        for device, count in parse_arp(read_file(self.host.proc("net/arp"))).items():
            if not exclude.search(device):
                yield ARP.row((device,), (count,))
