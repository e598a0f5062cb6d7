"""Kernel activity since boot, from /proc/stat, and the state of the random number generator."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from agent.core.errors import SourceError
from agent.core.host import Host, KeptFile
from agent.core.model import Field, Group, Reading, counter, gauge
from agent.core.options import option
from agent.core.units import Seconds
from collectors.sysfs import parse_int, read_int

KERNEL = Group("kernel", (
    gauge("boot_time", "seconds", "Unix time of the boot.", type=int,
          influx="boot_time", prom="node_boot_time_seconds"),
    counter("context_switches", "count", "Switches from one task to another.",
            influx="context_switches", prom="node_context_switches_total"),
    counter("interrupts", "count", "Interrupts served.", influx="interrupts", prom="node_intr_total"),
    counter("processes_forked", "count", "Processes and threads started.",
            influx="processes_forked", prom="node_forks_total"),
    counter("disk_pages_in", "count", "Pages read from disk (kernels before 2.6).", influx="disk_pages_in"),
    counter("disk_pages_out", "count", "Pages written to disk (kernels before 2.6).", influx="disk_pages_out"),
    gauge("procs_running", "count", "Tasks running or ready to run.", prom="node_procs_running"),
    gauge("procs_blocked", "count", "Tasks waiting for a disk.", prom="node_procs_blocked"),
    gauge("entropy_avail", "bits", "Entropy the random number generator holds.",
          influx="entropy_avail", prom="node_entropy_available_bits"),
    gauge("entropy_pool_size", "bits", "Entropy the random number generator can hold.",
          prom="node_entropy_pool_size_bits"),
    counter("hung_tasks", "count", "Tasks found hanging in the kernel.", prom="node_kernel_hung_tasks_total"),
))  # fmt: skip

SOFTIRQS = Group("softirqs", (
    counter("calls", "count", "Soft interrupts served, of all CPUs.", prom="node_softirqs_total"),
), tags=("vector",))  # fmt: skip

# Columns of the softirq line after its total.
_VECTORS = ("hi", "timer", "net_tx", "net_rx", "block", "block_iopoll", "tasklet", "sched", "hrtimer", "rcu")


def _ksm(file: str, help: str, unit: str = "count", prom: str | None = "same", scale: float = 1.0) -> Field:
    """A file of /sys/kernel/mm/ksm; `prom` None where node_exporter does not read it."""
    name = f"node_ksmd_{file}" if prom == "same" else prom
    kind = counter if file in ("full_scans", "stable_node_chains_prune_millisecs") else gauge
    return kind(file, unit, help, influx=f"ksm_{file}", prom=name, scale=scale)


KSM = Group("kernel", (
    _ksm("full_scans", "Times all mergeable memory was scanned.", prom="node_ksmd_full_scans_total"),
    _ksm("max_page_sharing", "How often one page may be shared.", prom=None),
    _ksm("merge_across_nodes", "1 when pages of different NUMA nodes are merged.", "code"),
    _ksm("pages_shared", "Shared pages in use.", "pages"),
    _ksm("pages_sharing", "Pages saved by sharing.", "pages"),
    _ksm("pages_to_scan", "Pages scanned before the scanner sleeps.", "pages"),
    _ksm("pages_unshared", "Pages checked again and again that are unique.", "pages"),
    _ksm("pages_volatile", "Pages that change too fast to be merged.", "pages"),
    _ksm("run", "0 stopped, 1 running, 2 stopped and unmerged.", "code"),
    _ksm("sleep_millisecs", "How long the scanner sleeps between two scans.", "milliseconds",
         "node_ksmd_sleep_seconds", 0.001),
    _ksm("stable_node_chains", "Pages that reached max_page_sharing.", prom=None),
    _ksm("stable_node_chains_prune_millisecs", "How often chains are checked for stale pages.", "milliseconds", None),
    _ksm("stable_node_dups", "Duplicated shared pages.", prom=None),
    _ksm("use_zero_pages", "1 when empty pages share the kernel's zero page.", "code", None),
    _ksm("general_profit", "Memory saved, less what the scanner needs itself.", "bytes", None),
))  # fmt: skip

_LINE = re.compile(rb"^(btime|ctxt|processes|procs_running|procs_blocked|intr|page|softirq) ([\d ]+)", re.MULTILINE)


def parse_stat(text: bytes) -> dict[bytes, list[int]]:
    """Columns of the lines of /proc/stat that are not about one CPU. Raise SourceError when there is none."""
    lines = {}
    for name, columns in _LINE.findall(text):
        # Only the total of `intr` is used; a big host has thousands of columns there.
        wanted = columns.split(None, 1)[:1] if name == b"intr" else columns.split()
        try:
            lines[name] = list(map(int, wanted))
        except ValueError as error:  # Python refuses numbers of thousands of digits
            raise SourceError(f"/proc/stat: {name.decode()} is not a number") from error
    if not any(lines.values()):
        raise SourceError("/proc/stat: no line of counters")
    return lines


@dataclass(slots=True)
class Kernel:
    """Context switches, interrupts, forks, soft interrupts and entropy."""

    name: ClassVar[str] = "kernel"
    groups: ClassVar[tuple[Group, ...]] = (KERNEL, SOFTIRQS, KSM)

    interval: Seconds = option(5.0, "Time between two readings.")
    ksm: bool = option(False, "Same-page merging as well, from /sys/kernel/mm/ksm.")
    host: Host = field(default_factory=Host)
    _stat: KeptFile = field(init=False)
    _entropy: KeptFile = field(init=False)
    _pool_size: KeptFile = field(init=False)
    _hung_tasks: KeptFile = field(init=False)  # absent before Linux 6.13

    def __post_init__(self) -> None:
        self._stat = KeptFile(self.host.proc("stat"))
        self._entropy = KeptFile(self.host.proc("sys/kernel/random/entropy_avail"))
        self._pool_size = KeptFile(self.host.proc("sys/kernel/random/poolsize"))
        self._hung_tasks = KeptFile(self.host.proc("sys/kernel/hung_task_detect_count"))

    def collect(self) -> Iterator[Reading]:
        lines = parse_stat(self._stat.read())

        def column(name: bytes, at: int = 0) -> int | None:
            columns = lines.get(name, ())
            return columns[at] if at < len(columns) else None

        yield KERNEL.row((), (
            column(b"btime"), column(b"ctxt"), column(b"intr"), column(b"processes"),
            column(b"page"), column(b"page", 1), column(b"procs_running"), column(b"procs_blocked"),
            _number_in(self._entropy), _number_in(self._pool_size), _number_in(self._hung_tasks),
        ))  # fmt: skip
        for vector, calls in zip(_VECTORS, lines.get(b"softirq", ())[1:], strict=False):
            yield SOFTIRQS.row((vector,), (calls,))
        if self.ksm:
            yield from self._read_ksm()

    def _read_ksm(self) -> Iterator[Reading]:
        """Nothing on a kernel built without KSM."""
        values = tuple(read_int(self.host.sys(f"kernel/mm/ksm/{file}")) for file in KSM.names)
        if any(value is not None for value in values):
            yield KSM.row((), values)


def _number_in(file: KeptFile) -> int | None:
    try:
        return parse_int(file.read())
    except SourceError:
        return None
