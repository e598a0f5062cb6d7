"""The basics of a host that has no /proc (macOS, the BSDs), through psutil, under the names the Linux collectors use.

psutil costs three times what reading /proc by hand does, so on Linux this stays off.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from agent.core.errors import SourceMissing
from agent.core.model import Group, Reading
from agent.core.options import option
from agent.core.units import Seconds
from collectors.cpu import CPU, CPU_TIME
from collectors.disk import DISK, FILESYSTEM
from collectors.diskio import DISKIO
from collectors.memory import MEM
from collectors.net import NET, NODE_NETWORK
from collectors.swap import SWAP
from collectors.system import SYSTEM, UPTIME

_MODES = ("user", "system", "nice", "idle")  # those every system counts


@dataclass(slots=True)
class Portable:
    """CPU, memory, swap, load, disks and networks of hosts other than Linux."""

    name: ClassVar[str] = "portable"
    groups: ClassVar[tuple[Group, ...]] = (
        CPU, CPU_TIME, MEM, SWAP, SYSTEM, UPTIME, DISK, FILESYSTEM, DISKIO, NET, NODE_NETWORK,
    )  # fmt: skip

    interval: Seconds = option(5.0, "Time between two readings.")
    _psutil: Any = field(init=False, default=None)
    _cpus: list[Any] = field(init=False, default_factory=list)

    def collect(self) -> Iterator[Reading]:
        if self._psutil is None:
            try:
                import psutil  # only hosts that need it pay for it
            except ImportError as error:
                raise SourceMissing("psutil is not installed for this system") from error
            self._psutil = psutil
        yield from self._cpu()
        yield from self._memory()
        yield from self._system()
        yield from self._disks()
        yield from self._networks()

    def _cpu(self) -> Iterator[Reading]:
        before, self._cpus = self._cpus, self._psutil.cpu_times(percpu=True)
        for at, now in enumerate(self._cpus):
            yield CPU_TIME.read(str(at), **{mode: getattr(now, mode, None) for mode in _MODES})
            if len(before) == len(self._cpus):
                usage = _usage(before[at], now)
                if usage:
                    yield CPU.read(f"cpu{at}", **usage)

    def _memory(self) -> Iterator[Reading]:
        memory = self._psutil.virtual_memory()
        yield MEM.read(
            MemTotal_bytes=memory.total,
            MemAvailable_bytes=memory.available,
            MemFree_bytes=memory.free,
            used=memory.used,
            used_percent=100.0 * (memory.total - memory.available) / memory.total,
            available_percent=100.0 * memory.available / memory.total,
        )
        swap = self._psutil.swap_memory()
        yield SWAP.read(total=swap.total, used=swap.used, free=swap.free, used_percent=float(swap.percent))

    def _system(self) -> Iterator[Reading]:
        one, five, fifteen = os.getloadavg()
        yield SYSTEM.read(load1=one, load5=five, load15=fifteen, n_cpus=self._psutil.cpu_count())
        yield UPTIME.read(uptime=int(time.time() - self._psutil.boot_time()))

    def _disks(self) -> Iterator[Reading]:
        seen = set()
        for part in self._psutil.disk_partitions(all=False):
            usage = _quietly(partial(self._psutil.disk_usage, part.mountpoint))
            if usage is None or part.mountpoint in seen:
                continue
            seen.add(part.mountpoint)
            mode = "ro" if "ro" in part.opts.split(",") else "rw"
            yield DISK.read(
                *_in_order(DISK, path=part.mountpoint, device=part.device.removeprefix("/dev/"), fstype=part.fstype,
                           mode=mode),
                total=usage.total, used=usage.used, free=usage.free, used_percent=float(usage.percent),
            )  # fmt: skip
            yield FILESYSTEM.read(
                *_in_order(FILESYSTEM, device=part.device, fstype=part.fstype, mountpoint=part.mountpoint),
                size_bytes=usage.total, avail_bytes=usage.free, free_bytes=usage.total - usage.used,
                readonly=int(mode == "ro"), device_error=0,
            )  # fmt: skip
        for name, io in (_quietly(partial(self._psutil.disk_io_counters, perdisk=True)) or {}).items():
            yield DISKIO.read(name, reads=io.read_count, writes=io.write_count, read_bytes=io.read_bytes,
                              write_bytes=io.write_bytes)  # fmt: skip

    def _networks(self) -> Iterator[Reading]:
        for name, io in (self._psutil.net_io_counters(pernic=True) or {}).items():
            counters = {
                "bytes_sent": io.bytes_sent, "bytes_recv": io.bytes_recv, "packets_sent": io.packets_sent,
                "packets_recv": io.packets_recv, "err_in": io.errin, "err_out": io.errout, "drop_in": io.dropin,
                "drop_out": io.dropout,
            }  # fmt: skip
            if name not in ("lo", "lo0"):
                yield NET.read(name, **counters)
            yield NODE_NETWORK.read(
                name,
                receive_bytes=io.bytes_recv, transmit_bytes=io.bytes_sent, receive_packets=io.packets_recv,
                transmit_packets=io.packets_sent, receive_errs=io.errin, transmit_errs=io.errout,
                receive_drop=io.dropin, transmit_drop=io.dropout,
            )  # fmt: skip


def _usage(before: Any, now: Any) -> dict[str, float]:
    """Percent of the time between two looks that was spent in each mode; empty when no time passed."""
    spent = {mode: max(0.0, getattr(now, mode, 0.0) - getattr(before, mode, 0.0)) for mode in now._fields}
    total = sum(spent[mode] for mode in spent if mode not in ("guest", "guest_nice"))  # those are inside user and nice
    return {f"usage_{mode}": 100.0 * spent[mode] / total for mode in _MODES if mode in spent} if total > 0 else {}


def _in_order(group: Group, **tags: str) -> list[str]:
    """Tag values in the Group's order; those this source does not know are empty."""
    return [tags.get(tag.influx) or tags.get(tag.prom) or "" for tag in group.tags]


def _quietly(ask: Callable[[], Any]) -> Any:
    """The answer; None for an empty drive or a mount that may not be looked at."""
    try:
        return ask()
    except OSError:
        return None
