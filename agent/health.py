"""What /health and `vigilhost status` say: the agent, each collector, each sink."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from agent import __version__
from agent.core.clock import NS, Clock
from agent.journal_metrics import summary
from agent.scheduler import Scheduler
from agent.timetable import Task
from sinks.carrier import DeliveryStats
from sinks.journal import Journal

if TYPE_CHECKING:
    from agent.alert_keeper import AlertKeeper
    from agent.backup_keeper import BackupKeeper
    from agent.history_keeper import HistoryKeeper

STALL_S = 65.0  # the scheduler wakes at least once a minute; later than this the agent itself stands still


class Parts(Protocol):
    """The pieces of the daemon that health is made of."""

    reload_error: str

    @property
    def fallen(self) -> Mapping[str, str]: ...

    @property
    def scheduler(self) -> Scheduler: ...

    @property
    def history(self) -> HistoryKeeper | None: ...

    @property
    def alerts(self) -> AlertKeeper | None: ...

    @property
    def backups(self) -> BackupKeeper | None: ...

    @property
    def journal(self) -> Journal | None: ...

    def sink_stats(self) -> Mapping[str, DeliveryStats]: ...


def health_of(parts: Parts, clock: Clock, uptime_s: float) -> dict[str, Any]:
    """`status` is ok, degraded (something fails and says so below) or stalled (the agent itself does)."""
    collectors = {name: _collector(task) for name, task in parts.scheduler.tasks.items()}
    journal = summary(parts.journal) if parts.journal is not None else {"state": "starting", "readers": {}}
    sinks = {name: _sink(stats) for name, stats in parts.sink_stats().items()}
    failing = [f"collector {name}" for name, each in collectors.items() if each["state"] == "failing"]
    failing += [f"{name} {target}" for name, each in collectors.items() for target in each["failed_targets"]]
    failing += [f"sink {name}" for name, each in sinks.items() if each["state"] == "failing"]
    failing += ["journal"] if journal["state"] == "failing" else []
    history = parts.history.summary() if parts.history is not None else {"state": "off"}
    failing += ["history"] if history["state"] == "failing" else []
    backups = parts.backups.summary() if parts.backups is not None else {"state": "starting"}
    alerting = parts.alerts.summary() if parts.alerts is not None else {"state": "off"}
    failing += ["alerting"] if alerting["state"] == "failing" else []
    failing += ["backups"] if backups["state"] == "failing" else []
    failing += ["reload"] if parts.reload_error else []
    failing += [f"part {name}" for name in parts.fallen]
    is_stalled = clock.monotonic() - parts.scheduler.last_slot_at > STALL_S
    return {
        "status": "stalled" if is_stalled else "degraded" if failing else "ok",
        "failing": failing,
        "version": __version__,
        "pid": os.getpid(),
        "uptime_s": round(uptime_s, 1),
        "reload_error": parts.reload_error,
        "fallen": dict(parts.fallen),
        "clock_jumps": parts.scheduler.clock_jumps,
        "abandoned_lanes": parts.scheduler.abandoned_lanes,
        "collectors": collectors,
        "sinks": sinks,
        "journal": journal,
        "history": history,
        "alerting": alerting,
        "backups": backups,
    }


def _collector(task: Task) -> dict[str, Any]:
    stats = task.stats
    state = "ok"
    if stats.is_missing:
        state = "nothing to measure"
    elif stats.error:
        state = "failing"
    elif not stats.runs:
        state = "starting"
    return {
        "state": state,
        "error": stats.error,
        "interval_s": task.collector.interval,
        "last_success": _time(stats.last_success_ns),
        "readings": stats.readings,
        "duration_ms": round(stats.duration_s * 1000, 3),
        "skipped": stats.skipped,
        "failures": stats.failures,
        "failed_targets": dict(stats.failed),
    }


def _sink(stats: DeliveryStats) -> dict[str, Any]:
    return {
        "state": "failing" if stats.failing_since_ns else "ok" if stats.last_success_ns else "starting",
        "error": stats.error,
        "needs_you": stats.is_lasting,
        "failing_since": _time(stats.failing_since_ns),
        "retry_at": _time(stats.retry_at_ns),
        "last_success": _time(stats.last_success_ns),
        "lines": stats.lines,
        "dead_letters": stats.dead_letters,
        "latency_s": round(stats.latency_s, 1),
    }


def _time(ns: int) -> str | None:
    return datetime.fromtimestamp(ns / NS, UTC).isoformat(timespec="seconds") if ns else None
