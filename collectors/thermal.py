"""Thermal zones and the devices that cool them, from /sys/class/thermal."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from agent.core.errors import SourceMissing
from agent.core.host import Host
from agent.core.model import Group, Reading, gauge
from agent.core.options import option
from agent.core.units import Seconds
from collectors.sysfs import read_int, read_text

ZONE = Group("thermal_zone", (
    gauge("temp", "celsius", "Temperature of the zone.", prom="node_thermal_zone_temp"),
), tags=("type", "zone"))  # fmt: skip

COOLING = Group("cooling_device", (
    gauge("cur_state", "count", "How hard the device cools now.", prom="node_cooling_device_cur_state"),
    gauge("max_state", "count", "How hard the device can cool.", prom="node_cooling_device_max_state"),
), tags=("name", "type"))  # fmt: skip


@dataclass(slots=True)
class Thermal:
    """Temperature of each thermal zone, and how hard it is cooled."""

    name: ClassVar[str] = "thermal"
    groups: ClassVar[tuple[Group, ...]] = (ZONE, COOLING)

    interval: Seconds = option(30.0, "Time between two readings.")
    host: Host = field(default_factory=Host)

    def collect(self) -> Iterator[Reading]:
        zones, devices = self._numbered("thermal_zone"), self._numbered("cooling_device")
        if not zones and not devices:
            raise SourceMissing(f"{self.host.sys('class/thermal')}: no thermal zone and no cooling device")
        for number, path in zones:
            # A zone whose sensor is asleep answers with an error: it is left out and the others are not.
            type, temp = read_text(f"{path}/type"), read_int(f"{path}/temp")
            if type is not None and temp is not None:
                yield ZONE.row((type, number), (temp / 1000,))
        for number, path in devices:
            type = read_text(f"{path}/type")
            now, most = read_int(f"{path}/cur_state"), read_int(f"{path}/max_state")
            if type is not None and (now is not None or most is not None):
                yield COOLING.row((number, type), (now, most))

    def _numbered(self, kind: str) -> list[tuple[str, str]]:
        """Number and directory of each zone or device, in the order of their numbers."""
        start = self.host.sys(f"class/thermal/{kind}")
        found = [(path[len(start) :], path) for path in glob.glob(f"{glob.escape(start)}[0-9]*")]
        return sorted(((n, path) for n, path in found if n.isdecimal()), key=lambda zone: int(zone[0]))
