"""The agent measures itself: its collectors, sinks, journal and process, published like everything else."""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Protocol

from agent import __version__, backup_metrics, journal_metrics
from agent.alert_metrics import ALERTING, RECEIVER
from agent.core.clock import NS
from agent.core.host import read_file, source_error
from agent.core.model import Field, Group, Reading, counter, gauge
from agent.core.options import option
from agent.core.stat_helper import StatHelper
from agent.core.units import Seconds
from agent.history_metrics import HISTORY
from agent.scheduler import Scheduler
from sinks.carrier import DeliveryStats
from sinks.journal import Journal


def _own(prefix: str, *fields: tuple[Callable[..., Field], str, str, str, type]) -> tuple[Field, ...]:
    """Fields of our own: one name in both dialects."""
    return tuple(
        kind(name, unit, help, type=type_, influx=name, prom=f"vigilhost_{prefix}_{name}")
        for kind, name, unit, help, type_ in fields
    )


COLLECTOR = Group("vigilhost_collector", _own(
    "collector",
    (gauge, "success", "bool", "Whether the last run gave readings.", bool),
    (gauge, "missing", "bool", "Whether the host lacks what it measures.", bool),
    (gauge, "duration_seconds", "seconds", "Duration of the last run.", float),
    (gauge, "lateness_seconds", "seconds", "How long after its slot the last run began.", float),
    (gauge, "last_success_timestamp_seconds", "seconds", "Slot of the last successful run, 0 before the first.", float),
    (gauge, "readings", "count", "Readings of the last successful run.", int),
    (counter, "runs_total", "count", "Runs that ended.", int),
    (counter, "failures_total", "count", "Runs that failed.", int),
    (counter, "timeouts_total", "count", "Runs given up at their deadline.", int),
    (counter, "skipped_slots_total", "count", "Slots without a run, because the one before was not over.", int),
    (counter, "dropped_readings_total", "count", "Readings beyond the collector's cap.", int),
    (counter, "cpu_seconds_total", "seconds", "CPU time of all runs.", float),
), ("collector",))  # fmt: skip

# What node_exporter says of its collectors; dashboards show it.
SCRAPE = Group("node_scrape", (
    gauge("duration", "seconds", "Duration of the collector's last run.",
          prom="node_scrape_collector_duration_seconds"),
    gauge("success", "bool", "Whether the collector's last run succeeded.", type=bool,
          prom="node_scrape_collector_success"),
), ("collector",))  # fmt: skip

SINK = Group("vigilhost_sink", _own(
    "sink",
    (gauge, "up", "bool", "Whether the last write was taken.", bool),
    (gauge, "lasting_error", "bool", "Whether a person must act: token, bucket, address.", bool),
    (gauge, "latency_seconds", "seconds", "Age of the newest reading when it was taken.", float),
    (gauge, "write_seconds", "seconds", "Duration of the last write.", float),
    (gauge, "last_success_timestamp_seconds", "seconds", "When a write was last taken, 0 before the first.", float),
    (counter, "lines_total", "count", "Lines taken.", int),
    (counter, "writes_total", "count", "Writes taken.", int),
    (counter, "bytes_total", "bytes", "Bytes taken, before compression.", int),
    (counter, "retries_total", "count", "Writes tried again.", int),
    (counter, "dead_letters_total", "count", "Lines the sink will never take, put aside.", int),
    (counter, "dropped_values_total", "count", "Values line protocol cannot carry: NaN, infinities.", int),
), ("sink",))  # fmt: skip
SINK_ERRORS = Group("vigilhost_sink_errors", (
    counter("errors", "count", "Answers that were no success, by kind.", influx="errors",
            prom="vigilhost_sink_errors_total"),
), ("sink", "kind"))  # fmt: skip

AGENT = Group("vigilhost_agent", (
    *_own(
        "agent",
        (gauge, "uptime_seconds", "seconds", "Time since the agent started.", float),
        (gauge, "loop_lag_seconds", "seconds", "How late the event loop heard of the last collecting.", float),
        (gauge, "threads", "count", "Threads of the agent.", int),
        (gauge, "resident_memory_bytes", "bytes", "Resident memory of the agent.", int),
        (gauge, "open_fds", "count", "Open file descriptors of the agent.", int),
        (counter, "cpu_seconds_total", "seconds", "CPU time of the agent.", float),
        (counter, "ticks_total", "count", "Ticks published.", int),
        (counter, "clock_jumps_total", "count", "Times a collector was aligned anew after the wall clock jumped.", int),
        (gauge, "stuck_mounts", "count", "Mounts whose helper process hangs for good.", int),
        (counter, "abandoned_lanes_total", "count", "Threads left behind in calls that did not return.", int),
    ),
    gauge("config_last_reload_successful", "bool", "Whether the configuration in the files is the one in force.",
          type=bool, influx="config_last_reload_successful", prom="vigilhost_config_last_reload_successful"),
    gauge("config_last_reload_success_timestamp_seconds", "seconds", "When the configuration in force was taken over.",
          influx="config_last_reload_success_timestamp_seconds",
          prom="vigilhost_config_last_reload_success_timestamp_seconds"),
))  # fmt: skip
BUILD = Group("vigilhost_build", (
    gauge("info", "info", "The version that runs.", prom="vigilhost_build_info"),
), ("version", "python"))  # fmt: skip

# The names every Prometheus client library gives; dashboards of the host show them for the job.
PROCESS = Group("process", (
    gauge("virtual_memory", "bytes", "Virtual memory of the agent.", type=float, prom="process_virtual_memory_bytes"),
    gauge("resident_memory", "bytes", "Resident memory of the agent.", type=float,
          prom="process_resident_memory_bytes"),
    gauge("start_time", "seconds", "When the agent started, Unix time.", prom="process_start_time_seconds"),
    counter("cpu", "seconds", "CPU time of the agent, user and system.", prom="process_cpu_seconds_total"),
    gauge("open_fds", "count", "Open file descriptors of the agent.", type=float, prom="process_open_fds"),
    gauge("max_fds", "count", "File descriptors the agent may open.", type=float, prom="process_max_fds"),
    gauge("virtual_memory_max", "bytes", "Virtual memory the agent may use.", type=float,
          prom="process_virtual_memory_max_bytes"),
))  # fmt: skip


_PAGE_BYTES = resource.getpagesize()
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_STARTED_AT = time.monotonic()  # imported once, when the agent starts; a reload makes SelfMetrics anew


class _HasReadings(Protocol):
    def readings(self) -> Iterator[Reading]: ...


@dataclass(slots=True)
class SelfMetrics:
    """The agent's own health: collectors, sinks, journal, memory, event loop."""

    name: ClassVar[str] = "agent"
    groups: ClassVar[tuple[Group, ...]] = (
        COLLECTOR, SCRAPE, SINK, SINK_ERRORS, AGENT, BUILD, PROCESS, *journal_metrics.GROUPS, HISTORY,
        ALERTING, RECEIVER, *backup_metrics.GROUPS,
    )  # fmt: skip

    interval: Seconds = option(30.0, "Time between two readings.")
    scheduler: Scheduler | None = None
    sink_stats: Callable[[], Mapping[str, DeliveryStats]] = dict
    journal: Journal | None = None
    stat_helper: StatHelper | None = None
    history: _HasReadings | None = None
    backups: _HasReadings | None = None
    alerts: _HasReadings | None = None
    reload_state: Callable[[], tuple[bool, float]] = lambda: (True, 0.0)  # the last one succeeded; when one last did

    def collect(self) -> Iterator[Reading]:
        process = _own_process()
        yield PROCESS.row((), tuple(process[name] for name in PROCESS.names))
        yield BUILD.row((__version__, platform.python_version()), (1,))
        for name, stats in self.sink_stats().items():
            yield from _sink(name, stats)
        if self.scheduler is not None:
            yield self._agent(self.scheduler, process)
            yield from _collectors(self.scheduler)
        if self.journal is not None:
            yield from journal_metrics.readings(self.journal)
        for keeper in (self.history, self.alerts, self.backups):
            if keeper is not None:
                yield from keeper.readings()

    def _agent(self, scheduler: Scheduler, process: Mapping[str, float]) -> Reading:
        is_reloaded, reloaded_at = self.reload_state()
        return AGENT.read(
            uptime_seconds=time.monotonic() - _STARTED_AT,
            loop_lag_seconds=scheduler.loop_lag_s,
            threads=int(process["threads"]),
            resident_memory_bytes=int(process["resident_memory"]),
            open_fds=int(process["open_fds"]),
            cpu_seconds_total=process["cpu"],
            ticks_total=scheduler.published,
            clock_jumps_total=scheduler.clock_jumps,
            stuck_mounts=len(self.stat_helper.stuck) if self.stat_helper is not None else 0,
            abandoned_lanes_total=scheduler.abandoned_lanes,
            config_last_reload_successful=is_reloaded,
            config_last_reload_success_timestamp_seconds=reloaded_at,
        )


def _own_process() -> dict[str, float]:
    """What the kernel says of this process, from proc(5), by field of PROCESS, and `threads`.

    prometheus_client's ProcessCollector gives the same; importing it costs 4.5 MB. Raise SourceMissing without /proc.
    """
    try:
        with open("/proc/self/stat", "rb") as file:
            stat = file.read().rpartition(b")")[2].split()
        open_fds = len(os.listdir("/proc/self/fd"))
    except OSError as error:
        raise source_error(error) from error
    user, system, threads, started, virtual, resident = (int(stat[at - 3]) for at in (14, 15, 20, 22, 23, 24))
    return {
        "virtual_memory": float(virtual),
        "resident_memory": float(resident * _PAGE_BYTES),
        "start_time": _booted_at() + started / _TICKS_A_SECOND,
        "cpu": (user + system) / _TICKS_A_SECOND,
        "open_fds": float(open_fds),
        "max_fds": float(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        "virtual_memory_max": float(resource.getrlimit(resource.RLIMIT_AS)[1] % 2**64),
        "threads": float(threads),
    }


@cache
def _booted_at() -> float:
    """Unix time of the boot, in seconds."""
    for line in read_file("/proc/stat").splitlines():
        if line.startswith(b"btime "):
            return float(line.split()[1])
    return 0.0


def _collectors(scheduler: Scheduler) -> Iterator[Reading]:
    for name, task in list(scheduler.tasks.items()):
        stats = task.stats
        if not stats.runs and not stats.timeouts:
            continue
        yield COLLECTOR.row((name,), (
            not stats.error, stats.is_missing, stats.duration_s, stats.lateness_s, stats.last_success_ns / NS,
            stats.readings, stats.runs, stats.failures, stats.timeouts, stats.skipped, stats.dropped, stats.cpu_s,
        ))  # fmt: skip
        yield SCRAPE.row((name,), (stats.duration_s, not stats.error))


def _sink(name: str, stats: DeliveryStats) -> Iterator[Reading]:
    yield SINK.row((name,), (
        not stats.error, stats.is_lasting, stats.latency_s, stats.write_s, stats.last_success_ns / NS,
        stats.lines, stats.writes, stats.bytes, stats.retries, stats.dead_letters, stats.dropped_values,
    ))  # fmt: skip
    for kind, count in sorted(stats.errors.items()):
        yield SINK_ERRORS.row((name, kind), (count,))
