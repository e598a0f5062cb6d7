"""Counters of virtual memory, from /proc/vmstat: all of them as Telegraf's kernel_vmstat, a few on /metrics."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from agent.core.errors import SourceError
from agent.core.host import Host, KeptFile
from agent.core.model import Group, Reading, untyped
from agent.core.options import option
from agent.core.units import Seconds

VMSTAT = Group("kernel_vmstat", (
    untyped("*", "count", "The line of this name in /proc/vmstat.", influx="*", prom="node_vmstat_*"),
))  # fmt: skip

_NAME = re.compile(rb"[a-zA-Z_][a-zA-Z0-9_]{0,99}")
_ON_METRICS = re.compile(r"oom_kill|pgpg|pswp|pg.*fault")


def parse_vmstat(text: bytes) -> dict[bytes, int]:
    """Counters by name; lines whose name cannot be published are left out.

    Raise SourceError when a value is no number or there is no line at all.
    """
    words = text.split()
    try:
        counters = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    except ValueError as error:
        raise SourceError("/proc/vmstat: a line is not a name and a number") from error
    for name in [name for name in counters if not _NAME.fullmatch(name)]:
        del counters[name]
    if not counters:
        raise SourceError("/proc/vmstat: no counter")
    return counters


@dataclass(slots=True)
class Vmstat:
    """Paging, reclaim, compaction, out-of-memory kills and the rest of /proc/vmstat."""

    name: ClassVar[str] = "vmstat"
    groups: ClassVar[tuple[Group, ...]] = (VMSTAT,)

    interval: Seconds = option(5.0, "Time between two readings.")
    host: Host = field(default_factory=Host)
    _file: KeptFile = field(init=False)
    _keys: tuple[bytes, ...] = field(default=(), init=False)
    _group: Group = field(default=VMSTAT, init=False)

    def __post_init__(self) -> None:
        self._file = KeptFile(self.host.proc("vmstat"))

    def collect(self) -> Iterator[Reading]:
        counters = parse_vmstat(self._file.read())
        keys = tuple(counters)
        if keys != self._keys:
            self._keys = keys
            self._group = VMSTAT.expand(
                (key.decode() for key in keys), prom=lambda name: _ON_METRICS.match(name) is not None
            )
        yield self._group.row((), tuple(counters.values()))
