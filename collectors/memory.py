"""Memory of the host, from /proc/meminfo.

`cached` has no Prometheus name: Telegraf's adds SReclaimable, node_memory_Cached_bytes does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from agent.core.errors import SourceError
from agent.core.host import Host, KeptFile
from agent.core.model import Field, Group, Reading, gauge
from agent.core.options import option
from agent.core.units import Seconds


def _same(influx: str, kernel: str, help: str, unit: str = "bytes") -> Field:
    """A line of /proc/meminfo that both dialects publish unchanged."""
    return gauge(kernel, unit, help, influx=influx, prom=f"node_memory_{kernel}")


# Lines of /proc/meminfo with a name in both dialects.
_SHARED = (
    _same("total", "MemTotal_bytes", "RAM the kernel can use."),
    _same("available", "MemAvailable_bytes", "RAM a new process can take before the host swaps."),
    _same("free", "MemFree_bytes", "RAM used for nothing at all."),
    _same("buffered", "Buffers_bytes", "Page cache of block devices."),
    _same("active", "Active_bytes", "Memory used recently, reclaimed last."),
    _same("inactive", "Inactive_bytes", "Memory not used recently, reclaimed first."),
    _same("commit_limit", "CommitLimit_bytes", "Memory that can be promised under strict overcommit."),
    _same("committed_as", "Committed_AS_bytes", "Memory promised to processes."),
    _same("dirty", "Dirty_bytes", "Page cache waiting to be written."),
    _same("mapped", "Mapped_bytes", "Files mapped into processes."),
    _same("page_tables", "PageTables_bytes", "Page tables."),
    _same("shared", "Shmem_bytes", "Shared memory and tmpfs."),
    _same("slab", "Slab_bytes", "Kernel objects."),
    _same("sreclaimable", "SReclaimable_bytes", "Kernel objects that can be reclaimed."),
    _same("sunreclaim", "SUnreclaim_bytes", "Kernel objects that cannot be reclaimed."),
    _same("swap_cached", "SwapCached_bytes", "Swapped-out pages that are in RAM as well."),
    _same("swap_free", "SwapFree_bytes", "Unused swap."),
    _same("swap_total", "SwapTotal_bytes", "Swap there is."),
    _same("vmalloc_chunk", "VmallocChunk_bytes", "Largest free block of the vmalloc area."),
    _same("vmalloc_total", "VmallocTotal_bytes", "Size of the vmalloc area."),
    _same("vmalloc_used", "VmallocUsed_bytes", "Used part of the vmalloc area."),
    _same("write_back", "Writeback_bytes", "Page cache being written."),
    _same("write_back_tmp", "WritebackTmp_bytes", "Memory FUSE uses for writeback."),
    _same("huge_page_size", "Hugepagesize_bytes", "Size of a huge page."),
    _same("huge_pages_total", "HugePages_Total", "Huge pages in the pool.", "pages"),
    _same("huge_pages_free", "HugePages_Free", "Huge pages not yet allocated.", "pages"),
)
_SHARED_KEYS = tuple(shared.name for shared in _SHARED)

MEM = Group("mem", (
    *_SHARED,
    gauge("cached", "bytes", "Page cache, SReclaimable included.", influx="cached"),
    gauge("used", "bytes", "total - available.", influx="used"),
    gauge("used_percent", "percent", "100 * used / total.", influx="used_percent"),
    gauge("available_percent", "percent", "100 * available / total.", influx="available_percent"),
    gauge("high_total", "bytes", "High memory (32-bit kernels).", influx="high_total"),
    gauge("high_free", "bytes", "Free high memory (32-bit kernels).", influx="high_free"),
    gauge("low_total", "bytes", "Low memory (32-bit kernels).", influx="low_total"),
    gauge("low_free", "bytes", "Free low memory (32-bit kernels).", influx="low_free"),
))  # fmt: skip

# The other lines: kernels differ in which they have, and Telegraf has no field for them.
MEMINFO = Group("meminfo", (
    gauge("*", "value", "The line of this name in /proc/meminfo.", type=int, prom="node_memory_*"),
))  # fmt: skip

_LINE = re.compile(rb"^([\w()]+):\s+(\d+)( kB)?", re.MULTILINE)


def parse_meminfo(text: bytes) -> dict[str, int]:
    """Lines of /proc/meminfo by their name on /metrics without `node_memory_`: `Active(anon): 4 kB` is
    `Active_anon_bytes` 4096, a line without kB is a count of pages.

    Raise SourceError when there is no MemTotal, without which nothing else means anything.
    """
    info = {
        _names[name, unit]: int(number) << 10 if unit else int(number) for name, number, unit in _LINE.findall(text)
    }
    if not info.get("MemTotal_bytes"):
        raise SourceError("/proc/meminfo: no MemTotal line")
    return info


class _Names(dict[tuple[bytes, bytes], str]):
    """The public name of a line, worked out once."""

    def __missing__(self, line: tuple[bytes, bytes]) -> str:
        raw, unit = line
        name = raw.decode("ascii", "replace").replace("(", "_").replace(")", "") + ("_bytes" if unit else "")
        self[line] = name
        return name


_names = _Names()


@dataclass(slots=True)
class Memory:
    """RAM, page cache, slab and swap sizes."""

    name: ClassVar[str] = "memory"
    groups: ClassVar[tuple[Group, ...]] = (MEM, MEMINFO)

    interval: Seconds = option(1.0, "Time between two readings.")
    host: Host = field(default_factory=Host)
    _file: KeptFile = field(init=False)

    def __post_init__(self) -> None:
        self._file = KeptFile(self.host.proc("meminfo"))

    def collect(self) -> Iterator[Reading]:
        info = parse_meminfo(self._file.read())
        get = info.get
        total, free, cached = info["MemTotal_bytes"], get("MemFree_bytes", 0), get("Cached_bytes", 0)
        # Kernels before 3.14 do not estimate it.
        available = get("MemAvailable_bytes", free + get("Buffers_bytes", 0) + cached)
        yield MEM.row((), (
            *map(get, _SHARED_KEYS),
            cached + get("SReclaimable_bytes", 0),
            total - available,
            100.0 * (total - available) / total,
            100.0 * available / total,
            get("HighTotal_bytes", 0),
            get("HighFree_bytes", 0),
            get("LowTotal_bytes", 0),
            get("LowFree_bytes", 0),
        ))  # fmt: skip
        for key in _SHARED_KEYS:
            info.pop(key, None)
        yield MEMINFO.expand(info).row((), tuple(info.values()))
