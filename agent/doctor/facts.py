"""What the checks read: the configuration, the running agent's answers, the state directory. Nothing is changed."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from agent import backup_results
from agent.backup_keeper import load as load_jobs
from agent.cli.agent_socket import find_agent
from agent.config import ConfigError, Loaded, Settings, load
from agent.control import ControlError, ask
from agent.core.problems import Problem
from agent.core.units import format_duration
from agent.places import CONFIG_FILE, beside
from backup.job import Job

ANSWER_S: Final = 10.0  # how long the agent may take to answer


@dataclass(slots=True)
class Facts:
    """Everything known of this installation. `status`: the running agent's answer, None when none answers."""

    config: str  # the main configuration file, whether or not it exists
    loaded: Loaded | None
    config_errors: list[Problem]
    settings: Settings  # the defaults where the configuration cannot be used
    state_dir: str
    socket: str
    status: dict[str, Any] | None
    tried: list[str]  # where an agent was looked for
    jobs_dir: str
    jobs: Mapping[str, Job]
    job_errors: list[Problem]
    job_warnings: list[Problem]
    root: str = "/"  # what of the host is not covered is looked for below it
    now: float = field(default_factory=time.time)
    answers: dict[str, Any] = field(default_factory=dict)

    @property
    def is_running(self) -> bool:
        return self.status is not None

    def ask(self, command: str) -> Any:
        """The agent's answer to one more command, None when it gives none."""
        if self.status is None:
            return None
        if command not in self.answers:
            try:
                self.answers[command] = ask(self.socket, command, timeout_s=ANSWER_S)
            except (ControlError, OSError, ValueError):
                self.answers[command] = None
        return self.answers[command]

    def in_state(self, name: str) -> str:
        return os.path.join(self.state_dir, name)

    def result(self, job: str) -> backup_results.Result | None:
        return backup_results.load(self.state_dir, job)

    def ago(self, moment: float | None) -> str:
        """`3h20m ago`, or `never`."""
        return "never" if not moment else f"{about(self.now - moment)} ago"


def about(seconds: float) -> str:
    """A duration for people, exact to the minute beyond an hour and to the hour beyond two days."""
    grain = 1 if seconds < 3600 else 60 if seconds < 2 * 86400 else 3600
    return format_duration(float(max(0, round(seconds / grain) * grain)))


def gather(config: str | None, state_dir: str | None, jobs_dir: str | None, root: str) -> Facts:
    """Read everything that the checks need."""
    loaded, errors = _configuration(config)
    socket, status, tried = find_agent(config, state_dir, timeout_s=ANSWER_S)
    settings = loaded.settings if loaded is not None else Settings()
    main = config or (loaded.files[0] if loaded is not None and loaded.files else CONFIG_FILE)
    directory = jobs_dir or beside([main], "backup.d")
    jobs, job_errors, job_warnings = _jobs(directory)
    return Facts(
        config=main, loaded=loaded, config_errors=errors, settings=settings,
        state_dir=os.path.abspath(state_dir or _state_dir(socket, settings)), socket=socket, status=status, tried=tried,
        jobs_dir=directory, jobs=jobs, job_errors=job_errors, job_warnings=job_warnings, root=root,
    )  # fmt: skip


def _configuration(config: str | None) -> tuple[Loaded | None, list[Problem]]:
    try:
        return load(config), []
    except ConfigError as error:
        return None, error.errors


def _jobs(directory: str) -> tuple[Mapping[str, Job], list[Problem], list[Problem]]:
    try:
        jobs, warnings = load_jobs(directory)
    except ConfigError as error:
        return {}, error.errors, []
    return jobs, [], warnings


def _state_dir(socket: str, settings: Settings) -> str:
    """The agent of `make run` has its socket in its state directory; the service has a runtime directory."""
    beside = os.path.dirname(socket)
    return beside if socket and os.path.isdir(os.path.join(beside, "journal")) else settings.state_dir
