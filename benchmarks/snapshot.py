"""What the default collectors give on a host made of files: the same readings wherever it is measured."""

from __future__ import annotations

import os
import time

from agent.config import load
from agent.core.collector import Collector
from agent.core.errors import SourceError
from agent.core.host import Host
from agent.core.model import Reading, Tick
from tests.collectors.hosts import FIXTURES, HostTree


def fixture_host(name: str = "big") -> Host:
    """A host of the tests, read in place."""
    path = FIXTURES / name
    return Host(proc_root=str(path / "proc"), sys_root=str(path / "sys"), root=str(path))


def ticks_of(tree: HostTree) -> list[Tick]:
    """One Tick a collector that works there, from a second look at the host some seconds on: rates need two."""
    collectors = [entry.build(host=tree.host) for entry in load(os.devnull).settings.collectors.values()]
    first = {collector.name for collector in collectors if _look(collector) is not None}
    tree.later()
    now_ns, ticks = time.time_ns(), []
    for collector in collectors:
        readings = _look(collector) if collector.name in first else None
        if readings is not None:
            ticks.append(Tick(now_ns, collector.name, readings))
    return ticks


def _look(collector: Collector) -> list[Reading] | None:
    """Its readings; None when the host lacks what it measures."""
    try:
        return [item for item in collector.collect() if isinstance(item, Reading)]
    except SourceError:
        return None
