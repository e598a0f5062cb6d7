"""What the default collectors give on a host made of files: the same readings wherever it is measured."""

from __future__ import annotations

import os
import time

from agent.config import load
from agent.core.errors import SourceError
from agent.core.host import Host
from agent.core.model import Reading, Tick
from tests.collectors.hosts import FIXTURES


def fixture_host(name: str = "big") -> Host:
    """A host of the tests, read in place."""
    path = FIXTURES / name
    return Host(proc_root=str(path / "proc"), sys_root=str(path / "sys"), root=str(path))


def ticks_of(host: Host) -> list[Tick]:
    """One Tick a collector that works there, from the second look: rates and percentages need two."""
    collectors = [entry.build(host=host) for entry in load(os.devnull).settings.collectors.values()]
    now_ns, ticks = time.time_ns(), []
    for collector in collectors:
        try:
            list(collector.collect())
            items = list(collector.collect())
        except SourceError:
            continue  # the host lacks what it measures
        ticks.append(Tick(now_ns, collector.name, [item for item in items if isinstance(item, Reading)]))
    return ticks
