"""The daemon: wires everything, runs until it is told to stop, reloads without losing a slot."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

import structlog

from agent import (
    __version__,
    alert_api,
    backup_api,
    backup_keeper,
    interpreter,
    sdnotify,
    signals,
    statedir,
)
from agent.alert_commands import CHANGING as ALERTS_CHANGING
from agent.alert_commands import AlertCommands
from agent.alert_faces import AlertsView
from agent.alert_keeper import AlertKeeper
from agent.backup_keeper import BackupKeeper
from agent.commands import CHANGING, Commands
from agent.config import Entry, Loaded, Settings
from agent.control import ControlError, ControlSocket
from agent.core.clock import NS, Clock, SystemClock
from agent.core.isolation import call_soon
from agent.core.model import Tick
from agent.core.stat_helper import StatHelper
from agent.health import health_of
from agent.http.face import HttpFace
from agent.hub import Hub
from agent.journal_keeper import JournalKeeper, limits_for, open_journal
from agent.log import configure as configure_log
from agent.opening import open_alerting, open_backups, open_history
from agent.parts import Running, end_all
from agent.places import beside
from agent.rule_sets import rules_directory
from agent.scheduler import Scheduler
from agent.sink_set import SinkSet
from agent.timetable import Task
from agent.watchdog import Watchdog
from sinks.carrier import DeliveryStats
from sinks.journal import Journal

if TYPE_CHECKING:
    from agent.history_keeper import HistoryKeeper

log = structlog.get_logger("agent")

FLUSH_AT_STOP_S = 5.0
END_S = 6.0  # all parts side by side; with the journal's 3 s, the end comes within 10 s
STOP_JOURNAL_S = 3.0
_MOST_BETWEEN_S = 65.0  # two slots, however far apart collectors are and whatever the wall clock does
_FIXED = ("state_dir", "journal", "history", "backup")  # options that a reload cannot change


class Daemon:
    """One agent. `load` reads the configuration again for a reload; it raises ConfigError."""

    def __init__(
        self, loaded: Loaded, load: Callable[[], Loaded], *, is_insecure: bool = False, clock: Clock | None = None
    ) -> None:
        self._settings = loaded.settings
        self._files = loaded.files
        self._load = load
        self._clock = clock or SystemClock()
        self._hub = Hub()
        self._http = HttpFace(self, self._clock, is_insecure=is_insecure)
        self._scheduler = Scheduler(self._clock, self._hub.publish, self._hub.forget)
        self._entries: dict[str, Entry] = {}
        self._stat_helper = StatHelper()  # outlives reloads: a stuck mount stays known
        self._keeper: JournalKeeper | None = None
        self._sinks: SinkSet | None = None
        self._history: HistoryKeeper | None = None
        self._backups: BackupKeeper | None = None
        self._alerts: AlertKeeper | None = None
        self._alert_commands = AlertCommands(lambda: self._alerts)
        self._http.alerts = AlertsView(lambda: self._alerts)
        self._http.more = (
            *alert_api.operations(self._alert_commands),
            *backup_api.operations(lambda: self._backups),
        )
        self._stopping = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started_at = time.monotonic()
        self._is_up = False
        self._has_been_ready = False
        self.reload_error = ""
        self._parts = Running()
        self._taken_over_ns = self._clock.wall_ns()  # when the configuration in force was

    # -- what the faces ask ------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        return self._settings

    @property
    def scheduler(self) -> Scheduler:
        return self._scheduler

    @property
    def journal(self) -> Journal | None:
        return self._keeper.journal if self._keeper is not None else None

    @property
    def history(self) -> HistoryKeeper | None:
        return self._history

    @property
    def alerts(self) -> AlertKeeper | None:
        return self._alerts

    @property
    def backups(self) -> BackupKeeper | None:
        return self._backups

    @property
    def configured_at(self) -> float:
        """When the configuration in force was taken over, Unix seconds."""
        return self._taken_over_ns / NS

    @property
    def fallen(self) -> Mapping[str, str]:
        """Parts that ended by themselves, and why."""
        return self._parts.fallen

    def left_behind(self) -> list[str]:
        """Sinks that the configuration no longer has and whose backlog is kept."""
        return self._sinks.left_behind() if self._sinks is not None else []

    def sink_stats(self) -> Mapping[str, DeliveryStats]:
        return self._sinks.stats() if self._sinks is not None else {}

    def snapshot(self) -> list[Tick]:
        return self._hub.snapshot(self._clock.monotonic())

    @property
    def is_ready(self) -> bool:
        """Everything runs, rules are loaded and every collector has been tried. Stays true."""
        if not self._has_been_ready:
            judges = self._alerts is None or self._alerts.is_open or bool(self.fallen)  # fallen: it may never be open
            self._has_been_ready = self._is_up and judges and self._scheduler.has_tried_all
        return self._has_been_ready

    def revision(self) -> int:
        return self._hub.published

    def health(self) -> dict[str, Any]:
        return health_of(self, self._clock, time.monotonic() - self._started_at)

    # -- life --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Start, run until SIGTERM or SIGINT, stop cleanly. Raise ListenError, StateDirError, OSError at the start."""
        self._loop = asyncio.get_running_loop()
        faulthandler.enable()  # SIGABRT, which the watchdog sends, prints every thread's stack
        signals.install(self.stop, self._reload_quietly)
        lock = statedir.claim(self._settings.state_dir)
        control = ControlSocket(
            self.runtime_dir, {**Commands(self).by_name(), **self._alert_commands.by_name()},
            changing=CHANGING | ALERTS_CHANGING,
        )  # fmt: skip
        try:
            keeper, backups = self._open()
            judging = self._parts.begin("alerting", self._judge())
            copying = self._parts.begin("backups", backups.run())
            remembering = self._parts.begin("history", self._history.run(keeper.journal)) if self._history else None
            commanding = self._parts.begin("control", control.keep_trying())
            await control.has_tried.wait()
            scheduling = self._parts.begin("scheduler", self._scheduler.run())
            watching = self._parts.begin("watchdog", self._watch(scheduling))
            interpreter.settle()
            self._announce()
            await self._stopping.wait()
            sdnotify.notify("STOPPING=1")
            watching.cancel()
            scheduling.cancel()
            commanding.cancel()
            judging.cancel()
            if remembering is not None:
                remembering.cancel()
            await end_all(self._endings(backups, copying), END_S)
            self._stat_helper.close()
            if not await asyncio.to_thread(keeper.stop, STOP_JOURNAL_S):
                log.error("journal.left_open", reason="the disk does not answer")
        finally:
            await control.stop()
            os.close(lock)
        log.info("agent.stopped")

    def _endings(self, backups: BackupKeeper, copying: asyncio.Task[None]) -> dict[str, Coroutine[Any, Any, object]]:
        """What each part has to do at the end. The journal is not among them: it writes what they leave."""

        async def end_backups() -> None:
            await backups.close()
            await asyncio.gather(copying, return_exceptions=True)

        endings: dict[str, Coroutine[Any, Any, object]] = {"server": self._http.stop(), "backups": end_backups()}
        if self._alerts is not None:
            endings["alerting"] = self._alerts.close()
        if self._history is not None:
            endings["history"] = self._history.close()
        if self._sinks is not None:
            endings["sinks"] = self._sinks.stop(FLUSH_AT_STOP_S)
        return endings

    def _open(self) -> tuple[JournalKeeper, BackupKeeper]:
        """Listen, then open every part, each on those before it. Raise ListenError."""
        settings = self._settings
        self._http.serve(settings)
        keeper = JournalKeeper(open_journal(settings.state_dir, limits_for(settings), self._clock), self._clock)
        self._keeper, self._sinks = keeper, SinkSet(keeper.journal, self._clock)
        self._hub.subscribe(keeper.append)
        if settings.history.enabled:
            history = self._history = open_history(settings, self._clock)
            self._hub.subscribe(history.append, history.history.end)
            self._http.remember(history.history)
            if settings.alerting.enabled:
                self._alerts = open_alerting(settings, self._files, self._clock, history, self._scheduler)
        self._backups, wrong = open_backups(settings, self._files, self._clock, self._stat_helper, self._note_backup)
        # No job, so no reading of one: without this, nothing would differ from a host that needs no backup.
        self.reload_error = wrong
        self._apply(settings)
        return keeper, self._backups

    async def _judge(self) -> None:
        """Rules see what was before the start: they wait until history has it."""
        if self._alerts is None or self._history is None:
            return
        await self._history.is_rebuilt.wait()
        await self._alerts.run(self._troubles)

    def _troubles(self) -> list[str]:
        """What keeps the heartbeat from being a good one, alerting itself aside."""
        found = self.health()
        failing = [str(one) for one in found["failing"] if one != "alerting"]
        if not self._settings.alerting.heartbeat.with_sinks:
            failing = [one for one in failing if not one.startswith("sink ")]
        return failing if found["status"] != "stalled" else ["the agent stands still"]

    def _note_backup(self, is_good: bool, text: str) -> None:
        """What a backup came to belongs into the digests; the thread that reads measurements may have learned it."""
        if self._alerts is not None and self._loop is not None:
            call_soon(self._loop, self._alerts.teller.note, is_good, text)

    @property
    def runtime_dir(self) -> str:
        """Where the control socket is: systemd's runtime directory, else the state directory."""
        return os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0] or self._settings.state_dir

    def stop(self) -> None:
        self._stopping.set()

    def _announce(self) -> None:
        self._is_up = True
        settings = self._settings
        log.info(
            "agent.started",
            version=__version__,
            collectors=len(self._scheduler.tasks),
            sinks=" ".join(self._sinks.names) if self._sinks and self._sinks.names else "none",
            metrics=f"http://{settings.listen}/metrics",
            health=f"http://{settings.listen}/health",
            state_dir=os.path.abspath(settings.state_dir),
        )
        sdnotify.notify("READY=1", f"STATUS={len(self._scheduler.tasks)} collectors, {len(settings.sinks)} sinks")

    async def _watch(self, scheduling: asyncio.Task[None]) -> None:
        """Tell systemd that slots come, for as long as they do."""
        interval = sdnotify.watchdog_interval()
        if interval is None:
            return
        watchdog = Watchdog(interval, lambda: self._clock.monotonic() - self._scheduler.last_slot_at < _MOST_BETWEEN_S)
        self._hub.subscribe(watchdog.slot_ended)
        try:
            await asyncio.wait([scheduling])
        finally:
            watchdog.close()

    # -- configuration -----------------------------------------------------------------------------------------------

    def reload(self) -> dict[str, Any]:
        """Read the configuration again and take over what changed. Raise ConfigError, ListenError, ControlError."""
        if self._stopping.is_set():
            raise ControlError("the agent is stopping")
        sdnotify.reloading()
        try:
            loaded = self._load()
            for name in _FIXED:
                if getattr(loaded.settings, name) != getattr(self._settings, name):
                    raise ControlError(f"{name}: cannot change while the agent runs; restart it")
            if loaded.settings.alerting.enabled != self._settings.alerting.enabled:
                raise ControlError("alerting.enabled: cannot change while the agent runs; restart it")
            runs_here = self._backups is None or not self._backups.has_helper
            jobs, warnings = backup_keeper.load(beside(self._files, "backup.d"), opens_secrets=runs_here)
            options = loaded.settings.alerting
            directory = rules_directory(options.rules, loaded.files)
            rules = self._alerts.read(options, directory) if self._alerts is not None else None
            changed = self._apply(loaded.settings)
            self._files = loaded.files
            if self._alerts is not None and rules is not None:
                self._alerts.take_over(options, rules)
            if self._backups is not None:
                self._backups.reload(jobs)
            loaded.warnings.extend(warnings)
        except Exception as error:
            self.reload_error = str(error)
            log.error("agent.reload_failed", reason=str(error), consequence="the old configuration goes on")
            raise
        finally:
            sdnotify.notify("READY=1")
        self.reload_error, self._taken_over_ns = "", self._clock.wall_ns()
        for warning in loaded.warnings:
            log.warning("config.warning", message=str(warning))
        log.info("agent.reloaded", **changed)
        return changed

    def _reload_quietly(self) -> None:
        try:
            self.reload()
        except Exception:  # noqa: BLE001, S110 - reload has logged it and keeps the old configuration
            pass

    def _apply(self, settings: Settings) -> dict[str, Any]:
        """Build everything that differs from what runs, then swap; nothing changes when a part cannot be built."""
        tasks, entries = self._tasks_for(settings)
        changed_sinks = self._sinks.changed_by(settings) if self._sinks is not None else {}
        self._http.serve(settings)
        old_names = set(self._scheduler.tasks)
        kept = sum(1 for name, task in tasks.items() if self._scheduler.tasks.get(name) is task)
        self._scheduler.set_tasks(tasks.values())
        self._entries = entries
        if settings.log != self._settings.log:
            configure_log(settings.log.format, settings.log.level)
        if self._sinks is not None:
            self._sinks.take_over(settings, changed_sinks)
        self._settings = settings
        return {"collectors": len(tasks), "unchanged": kept, "gone": sorted(old_names - set(tasks))}

    def _tasks_for(self, settings: Settings) -> tuple[dict[str, Task], dict[str, Entry]]:
        host = settings.paths.host
        is_same_host = host == self._settings.paths.host
        tasks: dict[str, Task] = {}
        for name, entry in settings.collectors.items():
            running = self._scheduler.tasks.get(name)
            if running is not None and is_same_host and self._entries.get(name) == entry:
                tasks[name] = running
                continue
            collector = entry.build(host=host, **self._parts_for_collectors())
            offset, jitter = round(entry.common.offset * NS), round(entry.common.jitter * NS)
            tasks[name] = Task(collector, offset, jitter)
        return tasks, dict(settings.collectors)

    def _parts_for_collectors(self) -> dict[str, Any]:
        """What a collector may want of the agent, by the name of the field it has for it."""
        return {
            "stat_remote": self._stat_helper,
            "stat_helper": self._stat_helper,
            "scheduler": self._scheduler,
            "sink_stats": self.sink_stats,
            "journal": self.journal,
            "history": self._history,
            "backups": self._backups,
            "alerts": self._alerts,
            "reload_state": lambda: (not self.reload_error, self._taken_over_ns / NS),
        }
