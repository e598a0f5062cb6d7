"""What the dashboard shows: rows of panels, and what each asks in either dialect.

`$host` is the dashboard's variable. Legends: `{tag}` stands for the value of that tag or label.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["timeseries", "stat", "table"]
How = Literal["mean", "max", "last", "rate"]


@dataclass(frozen=True, slots=True)
class Prom:
    """A PromQL expression."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Influx:
    """One field. `by`: tags that make series of their own; `where`: a regular expression a tag.

    `how`: mean, max or last of a window, or the growth of a counter a second, for which `by` has every tag that tells
    series apart. Shown is scale * value + offset.
    """

    measurement: str
    field: str
    legend: str
    by: tuple[str, ...] = ()
    where: Mapping[str, str] = dataclasses.field(default_factory=dict)
    how: How = "mean"
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class Line:
    """A line at a rule's threshold, or at `value`. `of_rest`: the rule looks at what is left of 100."""

    rule: str = ""
    of_rest: bool = False
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `unit` is one of Grafana's; `width`: of 24; `top`: where the axis ends; it begins at 0."""

    title: str
    unit: str
    help: str
    prom: tuple[Prom, ...]
    influx: tuple[Influx, ...]
    kind: Kind = "timeseries"
    width: int = 12
    lines: tuple[Line, ...] = ()
    is_stacked: bool = False
    top: float | None = None
    dashed: tuple[str, ...] = ()  # legends of limits, drawn as dashed lines


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


_RATE: Final = "[$__rate_interval]"
_HOST: Final = 'instance=~"$host"'
_REAL_FS: Final = 'fstype!~"tmpfs|ramfs|overlay|squashfs|iso9660|nsfs|fuse.lxcfs"'
_REAL_DISKS: Final = 'device!~"(loop|ram|zram|fd|sr).*"'
_OF_DISKS: Final = {"name": "^(sd|vd|xvd|nvme|mmcblk|md|dm-)"}
_ALL_CPUS: Final = {"cpu": "^cpu-total$"}


def _cpu_used() -> str:
    return f'100 * (1 - avg by (instance) (rate(node_cpu_seconds_total{{{_HOST},mode="idle"}}{_RATE})))'


def _memory_used() -> str:
    return f"100 * (1 - node_memory_MemAvailable_bytes{{{_HOST}}} / node_memory_MemTotal_bytes{{{_HOST}}})"


def _disk_used() -> str:
    which = f"{{{_HOST},{_REAL_FS}}}"
    return f"100 * (1 - node_filesystem_avail_bytes{which} / node_filesystem_size_bytes{which})"


def _stat(title: str, unit: str, help: str, prom: str, influx: Influx, *lines: Line) -> Panel:
    return Panel(title, unit, help, (Prom(prom, title),), (influx,), "stat", 4, lines)


_MODES: Final = ("user", "system", "iowait", "steal", "irq", "softirq", "nice")

_OVERVIEW: Final = Row("Overview", (
    _stat("CPU", "percent", "Share of the CPU time that is used.", _cpu_used(),
          Influx("cpu", "usage_idle", "CPU", where=_ALL_CPUS, scale=-1.0, offset=100.0), Line("HostCpuBusy")),
    _stat("Memory", "percent", "Share of the memory that programs cannot take.", _memory_used(),
          Influx("mem", "used_percent", "Memory"), Line("HostMemoryLow", of_rest=True),
          Line("HostMemoryExhausted", of_rest=True)),
    _stat("Fullest disk", "percent", "Space used on the fullest file system.", f"max({_disk_used()})",
          Influx("disk", "used_percent", "Fullest disk", how="max"), Line("HostDiskFull"),
          Line("HostDiskFullCritical")),
    _stat("Up", "s", "Time since boot.", f"node_time_seconds{{{_HOST}}} - node_boot_time_seconds{{{_HOST}}}",
          Influx("system", "uptime", "Up", how="last")),
    _stat("Alerts firing", "none", "Alerts of this host that fire now.",
          f"vigilhost_alerting_firing{{{_HOST}}}", Influx("vigilhost_alerting", "firing", "Alerts firing", how="last"),
          Line(value=1.0)),
    _stat("Oldest backup", "s", "Age of the newest good copy, of the job that is worst off.",
          f"max(vigilhost_backup_rpo_age_seconds{{{_HOST}}})",
          Influx("vigilhost_backup", "rpo_age_seconds", "Oldest backup", how="max")),
))  # fmt: skip

_CPU: Final = Row("CPU", (
    Panel("CPU time", "percent", "What the CPUs did, all of them together.",
          (Prom(f'100 * avg by (mode) (rate(node_cpu_seconds_total{{{_HOST},mode!="idle"}}{_RATE}))', "{mode}"),),
          tuple(Influx("cpu", f"usage_{mode}", mode, where=_ALL_CPUS) for mode in _MODES),
          is_stacked=True, top=100.0, lines=(Line("HostCpuBusy"),)),
    Panel("Load", "short", "Tasks that run or wait for a CPU or a disk, beside the number of CPUs.",
          (*(Prom(f"node_load{span}{{{_HOST}}}", f"{span} min") for span in (1, 5, 15)),
           Prom(f'count(node_cpu_seconds_total{{{_HOST},mode="idle"}})', "CPUs")),
          (*(Influx("system", f"load{span}", f"{span} min") for span in (1, 5, 15)),
           Influx("system", "n_cpus", "CPUs")),
          dashed=("CPUs",)),
))  # fmt: skip

_MEMORY: Final = Row("Memory", (
    Panel("Memory", "bytes", "What programs use, what the cache takes and gives back, and what there is.",
          (Prom(f"node_memory_MemTotal_bytes{{{_HOST}}} - node_memory_MemAvailable_bytes{{{_HOST}}}", "used"),
           Prom(f"node_memory_Cached_bytes{{{_HOST}}} + node_memory_SReclaimable_bytes{{{_HOST}}}", "cached"),
           Prom(f"node_memory_Dirty_bytes{{{_HOST}}}", "to be written"),
           Prom(f"node_memory_MemTotal_bytes{{{_HOST}}}", "total")),
          (Influx("mem", "used", "used"), Influx("mem", "cached", "cached"), Influx("mem", "dirty", "to be written"),
           Influx("mem", "total", "total")),
          width=8, dashed=("total",)),
    Panel("Memory used", "percent", "Share that programs cannot take any more.", (Prom(_memory_used(), "used"),),
          (Influx("mem", "used_percent", "used"),), width=8, top=100.0,
          lines=(Line("HostMemoryLow", of_rest=True), Line("HostMemoryExhausted", of_rest=True))),
    Panel("Swap", "bytes", "Swap in use.",
          (Prom(f"node_memory_SwapTotal_bytes{{{_HOST}}} - node_memory_SwapFree_bytes{{{_HOST}}}", "used"),
           Prom(f"node_memory_SwapTotal_bytes{{{_HOST}}}", "total")),
          (Influx("swap", "used", "used"), Influx("swap", "total", "total")), width=8, dashed=("total",)),
))  # fmt: skip

_DISK: Final = Row("Disk", (
    Panel("Space used", "percent", "As df shows it for ordinary users.", (Prom(_disk_used(), "{mountpoint}"),),
          (Influx("disk", "used_percent", "{path}", by=("path",)),), top=100.0,
          lines=(Line("HostDiskFull"), Line("HostDiskFullCritical"))),
    Panel("Inodes used", "percent", "Share of the files that can be made.",
          (Prom(f"100 * (1 - node_filesystem_files_free{{{_HOST},{_REAL_FS}}} / "
                f"node_filesystem_files{{{_HOST},{_REAL_FS}}})", "{mountpoint}"),),
          (Influx("disk", "inodes_used_percent", "{path}", by=("path",)),), top=100.0,
          lines=(Line("HostInodesLow", of_rest=True),)),
))  # fmt: skip

_DISKIO: Final = Row("Disk I/O", (
    Panel("Throughput", "binBps", "Bytes read and written a second.",
          (Prom(f"rate(node_disk_read_bytes_total{{{_HOST},{_REAL_DISKS}}}{_RATE})", "{device} read"),
           Prom(f"rate(node_disk_written_bytes_total{{{_HOST},{_REAL_DISKS}}}{_RATE})", "{device} written")),
          tuple(Influx("diskio", f"{side}_bytes", f"{{name}} {word}", by=("name",), where=_OF_DISKS, how="rate")
                for side, word in (("read", "read"), ("write", "written"))), width=8),
    Panel("Requests", "iops", "Requests finished a second.",
          (Prom(f"rate(node_disk_reads_completed_total{{{_HOST},{_REAL_DISKS}}}{_RATE})", "{device} read"),
           Prom(f"rate(node_disk_writes_completed_total{{{_HOST},{_REAL_DISKS}}}{_RATE})", "{device} written")),
          tuple(Influx("diskio", side, f"{{name}} {word}", by=("name",), where=_OF_DISKS, how="rate")
                for side, word in (("reads", "read"), ("writes", "written"))), width=8),
    Panel("Busy", "percent", "Part of the time in which requests were under way.",
          (Prom(f"100 * rate(node_disk_io_time_seconds_total{{{_HOST},{_REAL_DISKS}}}{_RATE})", "{device}"),),
          (Influx("diskio", "io_time", "{name}", by=("name",), where=_OF_DISKS, how="rate", scale=0.1),), width=8,
          top=100.0, lines=(Line("HostDiskSaturated"),)),
))  # fmt: skip

_NETWORK: Final = Row("Network", (
    Panel("Traffic", "binBps", "Bytes a second on each card.",
          (Prom(f'rate(node_network_receive_bytes_total{{{_HOST},device!="lo"}}{_RATE})', "{device} in"),
           Prom(f'rate(node_network_transmit_bytes_total{{{_HOST},device!="lo"}}{_RATE})', "{device} out")),
          (Influx("net", "bytes_recv", "{interface} in", by=("interface",), how="rate"),
           Influx("net", "bytes_sent", "{interface} out", by=("interface",), how="rate"))),
    Panel("Errors and drops", "pps", "Packets a second that were damaged or dropped.",
          (Prom(f"rate(node_network_receive_errs_total{{{_HOST}}}{_RATE})", "{device} errors in"),
           Prom(f"rate(node_network_transmit_errs_total{{{_HOST}}}{_RATE})", "{device} errors out"),
           Prom(f"rate(node_network_receive_drop_total{{{_HOST}}}{_RATE})", "{device} dropped in"),
           Prom(f"rate(node_network_transmit_drop_total{{{_HOST}}}{_RATE})", "{device} dropped out")),
          tuple(Influx("net", field, f"{{interface}} {words}", by=("interface",), how="rate") for field, words in (
              ("err_in", "errors in"), ("err_out", "errors out"), ("drop_in", "dropped in"),
              ("drop_out", "dropped out")))),
))  # fmt: skip

_PRESSURE: Final = Row("Pressure", tuple(
    Panel(title, "percent", help,
          tuple(Prom(f"100 * rate(node_pressure_{metric}_seconds_total{{{_HOST}}}{_RATE})", words)
                for metric, words in metrics),
          tuple(Influx("pressure", "avg60", words, where={"resource": f"^{resource}$", "type": f"^{type}$"})
                for type, words in types),
          width=8, lines=(Line(rule),))
    for title, resource, help, metrics, types, rule in (
        ("CPU pressure", "cpu", "Part of the time in which tasks waited for a CPU.",
         (("cpu_waiting", "some wait"),), (("some", "some wait"),), "HostCpuPressure"),
        ("Memory pressure", "memory", "Part of the time in which tasks waited for memory.",
         (("memory_waiting", "some wait"), ("memory_stalled", "all wait")),
         (("some", "some wait"), ("full", "all wait")), "HostMemoryPressure"),
        ("I/O pressure", "io", "Part of the time in which tasks waited for disks.",
         (("io_waiting", "some wait"), ("io_stalled", "all wait")),
         (("some", "some wait"), ("full", "all wait")), "HostIoPressure"),
    )
))  # fmt: skip

_ALERTS: Final = Row("Alerts", (
    Panel("Alerts", "none", "How many fire and how many are about to.",
          (Prom(f"vigilhost_alerting_firing{{{_HOST}}}", "firing"),
           Prom(f"vigilhost_alerting_pending{{{_HOST}}}", "pending")),
          (Influx("vigilhost_alerting", "firing", "firing", how="max"),
           Influx("vigilhost_alerting", "pending", "pending", how="max")),
          lines=(Line(value=1.0),)),
    Panel("Messages", "none", "Messages that wait for a receiver, and tries that failed.",
          (Prom(f"vigilhost_alerting_queued_messages{{{_HOST}}}", "waiting"),
           Prom(f"increase(vigilhost_receiver_failures_total{{{_HOST}}}{_RATE})", "{receiver} failed")),
          (Influx("vigilhost_alerting", "queued", "waiting", how="max"),
           Influx("vigilhost_receiver", "failures", "{receiver} failed a second", by=("receiver",), how="rate"))),
))  # fmt: skip
_FIRING: Final = Panel(
    "Firing and pending", "none", "The alerts themselves; `vigilhost alerts` has who was told.",
    (Prom(f"ALERTS{{{_HOST}}}", "{alertname}"),), (), "table", 24,
)  # fmt: skip

_BACKUPS: Final = Row("Backups", (
    Panel("Age of the newest copy", "s", "Beside the oldest that it may be (rpo).",
          (Prom(f"vigilhost_backup_rpo_age_seconds{{{_HOST}}}", "{exported_job}"),
           Prom(f"vigilhost_backup_rpo_target_seconds{{{_HOST}}}", "{exported_job} rpo")),
          (Influx("vigilhost_backup", "rpo_age_seconds", "{job}", by=("job",), how="max"),
           Influx("vigilhost_backup", "rpo_target_seconds", "{job} rpo", by=("job",), how="last")),
          width=8, dashed=("{job} rpo", "{exported_job} rpo")),
    Panel("Size", "bytes", "Of the newest copy on each target.",
          (Prom(f"vigilhost_backup_size_bytes{{{_HOST}}}", "{exported_job} on {target}"),),
          (Influx("vigilhost_backup_target", "size_bytes", "{job} on {target}", by=("job", "target"), how="last"),),
          width=8),
    Panel("How long", "s", "The last run, and the last restore that was tried.",
          (Prom(f"vigilhost_backup_duration_seconds{{{_HOST}}}", "{exported_job} backup"),
           Prom(f"vigilhost_backup_rto_measured_seconds{{{_HOST}}}", "{exported_job} restore")),
          (Influx("vigilhost_backup", "duration_seconds", "{job} backup", by=("job",), how="last"),
           Influx("vigilhost_backup", "rto_measured_seconds", "{job} restore", by=("job",), how="last")), width=8),
))  # fmt: skip

_AGENT: Final = Row("The agent itself", (
    Panel("Waiting for its sink", "s", "Age of the oldest reading that a sink has not had.",
          (Prom(f"vigilhost_journal_reader_oldest_age_seconds{{{_HOST}}}", "{reader}"),),
          (Influx("vigilhost_journal_reader", "oldest_age_seconds", "{reader}", by=("reader",), how="max"),)),
    Panel("Failures of collectors", "cpm", "Readings a minute that failed.",
          (Prom(f"60 * rate(vigilhost_collector_failures_total{{{_HOST}}}{_RATE})", "{collector}"),),
          (Influx("vigilhost_collector", "failures_total", "{collector}", by=("collector",), how="rate", scale=60.0),)),
))  # fmt: skip


def rows(source: str) -> tuple[Row, ...]:
    """The rows for one source; only an agent and its own history have the series of alerts by name."""
    alerts = Row(_ALERTS.title, (*_ALERTS.panels, _FIRING)) if source == "vigilhost" else _ALERTS
    return (_OVERVIEW, _CPU, _MEMORY, _DISK, _DISKIO, _NETWORK, _PRESSURE, alerts, _BACKUPS, _AGENT)
