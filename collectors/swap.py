"""Swap space and swapping, from /proc/meminfo and /proc/vmstat.

node_exporter has the same under node_memory_Swap* and node_vmstat_pswp*, which `memory` and `vmstat` publish; here are
Telegraf's two points.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from agent.core.errors import SourceError
from agent.core.host import Host, KeptFile
from agent.core.model import Group, Reading, counter, gauge
from agent.core.options import option
from agent.core.units import Seconds

SWAP = Group("swap", (
    gauge("total", "bytes", "Swap there is.", influx="total", twin="node_memory_SwapTotal_bytes"),
    gauge("used", "bytes", "Swap in use.", influx="used"),
    gauge("free", "bytes", "Unused swap.", influx="free", twin="node_memory_SwapFree_bytes"),
    gauge("used_percent", "percent", "100 * used / total; 0 without swap.", influx="used_percent"),
))  # fmt: skip

SWAPPING = Group("swap", (
    counter("in", "bytes", "Read back from swap since boot.", influx="in", twin="node_vmstat_pswpin"),
    counter("out", "bytes", "Written to swap since boot.", influx="out", twin="node_vmstat_pswpout"),
))  # fmt: skip

# Telegraf takes pages of 4 KiB on every machine, and existing databases hold what it wrote.
_PAGE_BYTES = 4096
_SWAP = re.compile(rb"^Swap(Total|Free):\s+(\d{1,18}) kB", re.MULTILINE)
_PSWP = re.compile(rb"^pswp(in|out) (\d{1,18})$", re.MULTILINE)


def parse_swap(meminfo: bytes) -> tuple[int, int]:
    """Total and free bytes of swap. Raise SourceError when a line is missing (the kernel always writes them)."""
    lines = {name: int(kib) << 10 for name, kib in _SWAP.findall(meminfo)}
    try:
        return lines[b"Total"], lines[b"Free"]
    except KeyError as error:
        raise SourceError(f"/proc/meminfo: no Swap{error.args[0].decode()} line") from error


def parse_swapping(vmstat: bytes) -> tuple[int, int]:
    """Bytes swapped in and out since boot; 0 on a kernel that does not count them."""
    lines = {name: int(pages) * _PAGE_BYTES for name, pages in _PSWP.findall(vmstat)}
    return lines.get(b"in", 0), lines.get(b"out", 0)


@dataclass(slots=True)
class Swap:
    """Swap space in use, and bytes swapped in and out."""

    name: ClassVar[str] = "swap"
    groups: ClassVar[tuple[Group, ...]] = (SWAP, SWAPPING)

    interval: Seconds = option(30.0, "Time between two readings.")
    host: Host = field(default_factory=Host)
    _meminfo: KeptFile = field(init=False)
    _vmstat: KeptFile = field(init=False)

    def __post_init__(self) -> None:
        self._meminfo = KeptFile(self.host.proc("meminfo"))
        self._vmstat = KeptFile(self.host.proc("vmstat"))

    def collect(self) -> Iterator[Reading]:
        total, free = parse_swap(self._meminfo.read())
        yield SWAP.row((), (total, total - free, free, 100.0 * (total - free) / total if total else 0.0))
        try:
            vmstat = self._vmstat.read()
        except SourceError:
            return
        yield SWAPPING.row((), parse_swapping(vmstat))
