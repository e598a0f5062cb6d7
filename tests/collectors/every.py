"""Every collector that reads a host, over one fixture host, with everything pinned that would differ by machine.

The clock, the time zone, the page size, the clock ticks and what statvfs answers come from here; files come from the
fixture. So the same fixture gives the same readings everywhere, whoever runs the tests.
"""

from __future__ import annotations

import errno
import os
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar
from unittest.mock import patch

import collectors.cpu
import collectors.sockstat
import collectors.system
from agent.config.tables import COLLECTORS
from agent.core.clock import NS
from agent.core.collector import Collector
from agent.core.errors import SourceError
from agent.core.host import Host
from agent.core.model import Failed, Reading, Tick
from collectors.table import BUILTIN
from collectors.timex import ClockState
from tests.collectors.hosts import HostTree

# These measure something else than files of the host: the agent, other programs, systemd's bus.
ELSEWHERE = frozenset({"agent", "exec", "portable", "prometheus", "systemd"})
NAMES = tuple(name for name in BUILTIN if name not in ELSEWHERE)

FIRST_SLOT_S = 1_700_000_000
LATER_S = 5  # what the `.later` overlays are made for


@dataclass(slots=True)
class Clock:
    """Seconds since the first slot."""

    passed: float = 0.0

    def monotonic(self) -> float:
        return 1000.0 + self.passed

    def wall(self) -> float:
        return FIRST_SLOT_S + self.passed


@dataclass(frozen=True, slots=True)
class FixedStat:
    """A file system whose size follows from its mount point."""

    f_blocks: int
    f_bfree: int
    f_bavail: int
    f_files: int
    f_ffree: int
    f_frsize: ClassVar[int] = 4096
    f_bsize: ClassVar[int] = 4096


def fixed_statvfs(root: str, path: str) -> FixedStat:
    """What `statvfs` says of a mount below `root`: a share of it is kept back for root, as ext4 does.

    Raise TimeoutError for one that hangs and OSError for one we may not see.
    """
    point = path.removeprefix(root) or "/"
    if point.startswith("/mnt/backup"):
        raise TimeoutError(errno.ETIMEDOUT, "no answer in time")
    if point.startswith("/home/demo"):
        raise PermissionError(errno.EACCES, "Permission denied")
    seed = zlib.crc32(point.encode())
    blocks, files = 1_000_000 + seed % 9_000_000, 100_000 + seed % 900_000
    free = blocks * (seed % 80 + 10) // 100
    return FixedStat(blocks, free, max(free - blocks // 20, 0), files, files * (seed % 70 + 20) // 100)


def fixed_clock_state() -> tuple[int, ClockState]:
    """A clock that follows a server, in nanoseconds."""
    return 0, ClockState(
        offset=-153_211, freq=1_234_567, maxerror=14_500, esterror=420, status=0x2001, constant=7, tick=10_000, tai=37
    )


@contextmanager
def same_everywhere() -> Iterator[None]:
    """No trace of the machine the tests run on: time zone, page size, ticks a second, size of utmp's records."""
    utmp = partial(collectors.system.parse_utmp, size=384)
    try:
        with (
            patch.dict(os.environ, {"TZ": "UTC"}),
            patch.object(collectors.cpu, "_TICKS_PER_S", 100),
            patch.object(collectors.sockstat, "_PAGE_BYTES", 4096),
            patch.object(collectors.system, "parse_utmp", utmp),
        ):
            time.tzset()
            yield
    finally:
        time.tzset()  # the environment has its own zone again


def build(name: str, host: Host, clock: Clock, **options: Any) -> Collector:
    """A collector of the table that reads `host` and lives by `clock`."""
    cls = COLLECTORS.find(name)
    fields = cls.__dataclass_fields__
    collector: Any = cls(**({"host": host} if "host" in fields else {}), **options)
    pins: dict[str, Any] = {
        "_now": clock.monotonic,
        "_wall": clock.wall,
        "_read": fixed_clock_state,
        "_page_bytes": 4096,
        "_ticks_a_second": 100,
        "stat_local": partial(fixed_statvfs, host.root),
        "stat_remote": partial(fixed_statvfs, host.root),
    }
    for pin in pins.keys() & fields.keys():
        setattr(collector, pin, pins[pin])
    built: Collector = collector
    return built


def close(collector: Collector) -> None:
    """Give its descriptors back, where it keeps any."""
    getattr(collector, "close", lambda: None)()


@dataclass(slots=True)
class Run:
    """What all collectors said at one moment; `silent` are those that had nothing to read, and why."""

    ticks: list[Tick]
    silent: dict[str, str]


def tick_of(collector: Collector, clock: Clock) -> Tick:
    """One collect. Raise SourceError."""
    items = list(collector.collect())
    return Tick(
        int(clock.wall()) * NS,
        collector.name,
        [item for item in items if isinstance(item, Reading)],
        tuple(item for item in items if isinstance(item, Failed)),
    )


def run(built: list[Collector], clock: Clock) -> Run:
    """One collect of each."""
    result = Run([], {})
    for collector in built:
        try:
            result.ticks.append(tick_of(collector, clock))
        except SourceError as error:
            result.silent[collector.name] = f"{type(error).__name__}: {error}"
    return result


def run_twice(
    tree: HostTree, names: Iterable[str] = NAMES, options: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
) -> tuple[Run, Run]:
    """Collect, let the host grow older, collect again; `options` by name where they are not the defaults."""
    settle_files(tree)
    clock = Clock()
    built = [build(name, tree.host, clock, **options.get(name, {})) for name in names]
    try:
        with same_everywhere():
            first = run(built, clock)
            tree.later()
            clock.passed = LATER_S
            return first, run(built, clock)
    finally:
        for collector in built:
            close(collector)


def settle_files(tree: HostTree) -> None:
    """Files that are told apart by when they were written were all written at the same moment."""
    for path in tree.path.glob("var/lib/vigilhost/textfile/*"):
        os.utime(path, (FIRST_SLOT_S - 60, FIRST_SLOT_S - 60))
