"""Bonded interfaces and how many of their parts work, from /sys/class/net."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from agent.core.errors import SourceMissing
from agent.core.host import Host, read_file
from agent.core.model import Group, Reading, gauge
from agent.core.options import option
from agent.core.units import Seconds
from collectors.sysfs import read_attribute, read_text

BONDING = Group("bonding", (
    gauge("slaves", "count", "Interfaces the bond is made of.", prom="node_bonding_slaves"),
    gauge("active", "count", "Interfaces of the bond whose link is up.", prom="node_bonding_active"),
), tags=("master",))  # fmt: skip


@dataclass(slots=True)
class Bonding:
    """Parts of bonded interfaces, and those that work."""

    name: ClassVar[str] = "bonding"
    groups: ClassVar[tuple[Group, ...]] = (BONDING,)

    interval: Seconds = option(30.0, "Time between two readings.")
    host: Host = field(default_factory=Host)

    def collect(self) -> Iterator[Reading]:
        path = self.host.sys("class/net/bonding_masters")
        masters = read_file(path).split()
        if not masters:
            raise SourceMissing(f"{path}: no bonded interfaces")
        for raw in masters:
            master = raw.decode("utf-8", "surrogateescape")
            slaves = read_attribute(self.host.sys(f"class/net/{master}/bonding/slaves"))
            if slaves is not None:
                names = slaves.decode("utf-8", "surrogateescape").split()
                active = sum(self._is_up(master, name) for name in names)
                yield BONDING.row((raw.decode("utf-8", "replace"),), (len(names), active))

    def _is_up(self, master: str, slave: str) -> bool:
        """True when the link of a part works; `slave_` is what kernels before 3.13 call `lower_`."""
        for link in ("lower", "slave"):
            path = self.host.sys(f"class/net/{master}/{link}_{slave}/bonding_slave/mii_status")
            if (status := read_text(path)) is not None:
                return status == "up"
        return False
