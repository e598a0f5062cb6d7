"""Load, CPUs, users and uptime, from /proc/loadavg, /proc/uptime, the CPU topology and utmp.

Telegraf writes three points of one measurement, hence three Groups.
"""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from agent.core.errors import SourceError
from agent.core.host import Host, KeptFile, read_file
from agent.core.model import Group, Reading, counter, gauge, untyped
from agent.core.options import option
from agent.core.units import Seconds

SYSTEM = Group("system", (
    gauge("load1", "load", "Tasks running or waiting for a CPU or a disk, averaged over a minute.",
          influx="load1", prom="node_load1"),
    gauge("load5", "load", "Tasks running or waiting, averaged over five minutes.", influx="load5", prom="node_load5"),
    gauge("load15", "load", "Tasks running or waiting, averaged over fifteen minutes.",
          influx="load15", prom="node_load15"),
    gauge("n_cpus", "count", "CPUs online, hyper-threads counted each.", influx="n_cpus"),
    gauge("n_physical_cpus", "count", "CPU cores online.", influx="n_physical_cpus"),
    gauge("n_users", "count", "Login sessions.", influx="n_users"),
    gauge("n_unique_users", "count", "People logged in, each counted once.", influx="n_unique_users"),
))  # fmt: skip

UPTIME = Group("system", (
    counter("uptime", "seconds", "Time since boot.", type=int, influx="uptime"),
))  # fmt: skip

UPTIME_FORMAT = Group("system", (
    untyped("uptime_format", "text", "Time since boot, for people.", influx="uptime_format"),
))  # fmt: skip

# 64-bit machines that kept 32-bit times in utmp have the short record.
_UTMP_RECORD = 400 if os.uname().machine in ("aarch64", "riscv64", "loongarch64") else 384
_USER_PROCESS = 7


def parse_loadavg(text: bytes) -> tuple[float, float, float]:
    """The three averages. Raise SourceError when they are not there."""
    try:
        one, five, fifteen = map(float, text.split()[:3])
    except ValueError as error:
        raise SourceError(f"/proc/loadavg: found {text[:40]!r}; should start with three numbers") from error
    return one, five, fifteen


def parse_uptime(text: bytes) -> int:
    """Whole seconds since boot. Raise SourceError when there is no number."""
    try:
        return int(float(text.split()[0]))
    except (IndexError, ValueError, OverflowError) as error:
        raise SourceError(f"/proc/uptime: found {text[:40]!r}; should start with seconds") from error


def format_uptime(seconds: int) -> str:
    """As Telegraf shows it: `14 days, 11:07`, hours padded with a blank."""
    days, minutes = seconds // 86400, seconds // 60
    day_part = f"{days} day{'s' if days > 1 else ''}, " if days else ""
    return f"{day_part}{minutes // 60 % 24:2d}:{minutes % 60:02d}"


def parse_utmp(records: bytes, size: int = _UTMP_RECORD) -> list[bytes]:
    """Users of the login sessions, one entry a session, from whole records of `size` bytes."""
    starts = range(0, len(records) - size + 1, size)
    types = (int.from_bytes(records[at : at + 2], sys.byteorder) for at in starts)
    return [
        records[at + 44 : at + 76].partition(b"\0")[0]
        for at, type in zip(starts, types, strict=True)
        if type == _USER_PROCESS
    ]


def parse_cpu_list(text: bytes) -> int:
    """How many CPUs a list like `0-3,8` names; 0 when it names none or is no list."""
    count = 0
    for part in text.strip().split(b","):
        first, _, last = part.partition(b"-")
        if not first.isdigit() or (last and not last.isdigit()):
            return 0
        count += max(int(last or first) - int(first) + 1, 0)
    return count


def count_cores(cpuinfo: bytes) -> tuple[int, int | None]:
    """CPUs and cores named in /proc/cpuinfo; cores None where it does not tell (most ARM, some guests)."""
    cpus = len(re.findall(rb"^processor\s*:", cpuinfo, re.MULTILINE))
    packages = re.findall(rb"^physical id\s*: *(.*)$", cpuinfo, re.MULTILINE)
    cores = re.findall(rb"^core id\s*: *(.*)$", cpuinfo, re.MULTILINE)
    pairs = set(zip(packages, cores, strict=False))
    return cpus, len(pairs) or None


@dataclass(slots=True)
class System:
    """Load averages, number of CPUs, logged-in users and uptime."""

    name: ClassVar[str] = "system"
    groups: ClassVar[tuple[Group, ...]] = (SYSTEM, UPTIME, UPTIME_FORMAT)

    interval: Seconds = option(5.0, "Time between two readings.")
    host: Host = field(default_factory=Host)
    _loadavg: KeptFile = field(init=False)
    _uptime: KeptFile = field(init=False)
    _online: KeptFile = field(init=False)
    _online_seen: bytes | None = field(default=None, init=False)
    _cpus: tuple[int | None, int | None] = field(default=(None, None), init=False)

    def __post_init__(self) -> None:
        self._loadavg = KeptFile(self.host.proc("loadavg"))
        self._uptime = KeptFile(self.host.proc("uptime"))
        self._online = KeptFile(self.host.sys("devices/system/cpu/online"))

    def collect(self) -> Iterator[Reading]:
        loads = parse_loadavg(self._loadavg.read())
        uptime = parse_uptime(self._uptime.read())
        users = self._users()
        sessions, people = (None, None) if users is None else (len(users), len(set(users)))
        yield SYSTEM.row((), (*loads, *self._count_cpus(), sessions, people))
        yield UPTIME.row((), (uptime,))
        yield UPTIME_FORMAT.row((), (format_uptime(uptime),))

    def _users(self) -> list[bytes] | None:
        """None when utmp is missing (newer distributions have dropped it) or unreadable."""
        try:
            # Not kept open: programs replace the file.
            return parse_utmp(read_file(self.host.file("/run/utmp")))
        except SourceError:
            return None

    def _count_cpus(self) -> tuple[int | None, int | None]:
        """CPUs and cores online, counted again when a CPU comes or goes."""
        try:
            online = self._online.read()
        except SourceError:
            online = b""
        if online != self._online_seen:
            self._online_seen = online
            self._cpus = self._from_topology(online) if parse_cpu_list(online) else self._from_cpuinfo()
        return self._cpus

    def _from_topology(self, online: bytes) -> tuple[int, int | None]:
        cores = set()
        start = glob.escape(self.host.sys("devices/system/cpu"))
        for path in glob.glob(f"{start}/cpu[0-9]*/topology/thread_siblings_list"):
            try:
                cores.add(read_file(path))
            except SourceError:
                continue  # the CPU went offline meanwhile
        return parse_cpu_list(online), len(cores) or None

    def _from_cpuinfo(self) -> tuple[int | None, int | None]:
        try:
            return count_cores(read_file(self.host.proc("cpuinfo")))
        except SourceError:
            return None, None
