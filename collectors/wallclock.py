"""The wall clock: what time the host believes it is, its zone, and the hardware it counts with."""

from __future__ import annotations

import glob
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from agent.core.host import Host
from agent.core.model import Group, Reading, gauge
from agent.core.options import option
from agent.core.units import Seconds
from collectors.sysfs import read_text

TIME = Group("time", (
    gauge("time", "seconds", "Unix time of the host when it was read.", prom="node_time_seconds"),
))  # fmt: skip

ZONE = Group("time_zone", (
    gauge("offset", "seconds", "What the local time zone adds to UTC.", prom="node_time_zone_offset_seconds"),
), tags=("time_zone",))  # fmt: skip

CLOCKSOURCE_CURRENT = Group("clocksource_current", (
    gauge("current", "info", "The clock source in use; always 1.", prom="node_time_clocksource_current_info"),
), tags=("clocksource", "device"))  # fmt: skip

CLOCKSOURCE_AVAILABLE = Group("clocksource_available", (
    gauge("available", "info", "A clock source the kernel could use; always 1.",
          prom="node_time_clocksource_available_info"),
), tags=("clocksource", "device"))  # fmt: skip


@dataclass(slots=True)
class Wallclock:
    """Time of day, time zone and clock source."""

    name: ClassVar[str] = "time"
    groups: ClassVar[tuple[Group, ...]] = (TIME, ZONE, CLOCKSOURCE_CURRENT, CLOCKSOURCE_AVAILABLE)

    interval: Seconds = option(30.0, "Time between two readings.")
    host: Host = field(default_factory=Host)
    _wall: Callable[[], float] = time.time

    def collect(self) -> Iterator[Reading]:
        now = self._wall()
        yield TIME.row((), (now,))
        local = time.localtime(now)
        yield ZONE.row((local.tm_zone,), (float(local.tm_gmtoff),))
        start = self.host.sys("devices/system/clocksource/clocksource")
        for path in glob.glob(f"{glob.escape(start)}[0-9]*"):
            device = path[len(start) :]
            for source in _words(f"{path}/current_clocksource")[:1]:
                yield CLOCKSOURCE_CURRENT.row((source, device), (1,))
            for source in dict.fromkeys(_words(f"{path}/available_clocksource")):
                yield CLOCKSOURCE_AVAILABLE.row((source, device), (1,))


def _words(path: str) -> list[str]:
    return (read_text(path) or "").split()
