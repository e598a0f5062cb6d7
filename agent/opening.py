"""Opens the parts of the agent that live as long as it does, from the configuration it starts with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import structlog

from agent import backup_keeper
from agent.alert_keeper import AlertKeeper
from agent.backup_keeper import BackupKeeper
from agent.config import ConfigError, Settings
from agent.core.clock import Clock
from agent.core.stat_helper import StatHelper
from agent.places import backup_socket, beside
from agent.rule_inputs import RuleInputs
from agent.rule_sets import rules_directory
from agent.scheduler import Scheduler

if TYPE_CHECKING:
    from agent.history_keeper import HistoryKeeper

log = structlog.get_logger("agent")


def open_history(settings: Settings, clock: Clock) -> HistoryKeeper:
    """History in the state directory."""
    from agent.history_keeper import HistoryKeeper  # hosts without history do not pay for it

    return HistoryKeeper(settings.history, settings.state_dir, clock, settings.hostname)


def open_alerting(
    settings: Settings, files: list[str], clock: Clock, history: HistoryKeeper, scheduler: Scheduler
) -> AlertKeeper:
    """Rules over that history. `files`: the configuration files that were read, the main one first."""
    rules = rules_directory(settings.alerting.rules, files)
    inputs = RuleInputs(scheduler, clock)
    instance = settings.history.instance or settings.hostname
    return AlertKeeper(settings.alerting, rules, settings.state_dir, clock, history.history, inputs, instance)


def open_backups(
    settings: Settings, files: list[str], clock: Clock, stat: StatHelper, note: Callable[[bool, str], None]
) -> tuple[BackupKeeper, str]:
    """The jobs of backup.d, and what is wrong with them; where one is wrong none runs, loudly.

    A backup must not run half understood. `note` is told what each run came to.
    """
    directory, config = beside(files, "backup.d"), files[0] if files else None
    argv = backup_keeper.worker_argv(
        host=settings.hostname, config=config, jobs_dir=directory, state_dir=settings.state_dir
    )
    socket = backup_socket(settings.backup.socket, directory)
    jobs: Mapping[str, Any] = {}
    wrong = ""
    try:
        jobs, warnings = backup_keeper.load(directory, opens_secrets=socket is None)
    except ConfigError as error:
        wrong = "; ".join(f"{problem}" for problem in error.errors)
        for problem in error.errors:
            log.error("backup.job_refused", problem=str(problem))
    else:
        for warning in warnings:
            log.warning("config.warning", message=str(warning))
    return BackupKeeper(jobs, settings.state_dir, clock, argv, socket=socket, stat=stat, note=note), wrong
