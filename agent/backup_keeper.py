"""Keeps backups going: runs each job and each drill when it is due, and knows how the last ones went.

Nothing of the room `backup` is imported before there is a job, so an agent without any pays nothing.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import structlog

from agent import backup_metrics
from agent.core.clock import NS, Clock
from agent.places import JOBS_DIRECTORY

if TYPE_CHECKING:
    from agent.backup_results import Result
    from agent.core.model import Reading
    from agent.core.problems import Problem
    from backup.job import Job
    from backup.runner import Outcome, Runner
    from backup.scheduler import Scheduler

log = structlog.get_logger("backup")

DRILLS_FILE: Final = "backup-drill-runs.json"
# What belongs to the daemon's own life, or is set by the runner.
_NOT_HANDED_ON: Final = frozenset({"PATH", "LANG", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS",
                                   "LISTEN_PID", "LISTEN_FDNAMES", "INVOCATION_ID"})  # fmt: skip


def load(directory: str = JOBS_DIRECTORY, *, opens_secrets: bool = True) -> tuple[dict[str, Job], list[Problem]]:
    """The jobs of a directory and what is doubtful; none, at no cost, where there is no file. Raise ConfigError.

    `opens_secrets` False: for who has them run by somebody else.
    """
    try:
        has_files = any(name.endswith((".yaml", ".yml")) for name in os.listdir(directory))
    except FileNotFoundError:
        return {}, []
    except OSError:
        has_files = True  # the loader says what is wrong
    if not has_files:
        return {}, []
    from agent.config.backup_jobs import load_jobs

    return load_jobs(directory, opens_secrets=opens_secrets)


def worker_argv(*, host: str, state_dir: str, jobs_dir: str, config: str | None = None) -> list[str]:
    """The command of a worker, without the job's name. `config`: for drills; None is the default file."""
    # -P: nothing is imported from the directory that we happen to be in.
    argv = [sys.executable, "-P", "-m", "agent.cli.main", "backup-worker", f"--host={host}"]
    for switch, value in (("--config", config), ("--jobs", jobs_dir), ("--state-dir", state_dir)):
        if value is not None:
            argv += [switch, os.path.abspath(value)]
    return argv


class BackupKeeper:
    """The jobs and their schedule. Belongs to the event loop.

    `worker`: the command that runs a job, without its name; with `--drill` it drills. `socket`: where jobs are run
    instead, as root, by a process that is not ours.
    """

    def __init__(self, jobs: Mapping[str, Job], state_dir: str, clock: Clock, worker: Sequence[str], *,
                 socket: str | None = None) -> None:  # fmt: skip
        self._state_dir = os.path.abspath(state_dir)
        self._clock = clock
        self._worker = tuple(worker)
        self._socket = socket
        self._jobs: dict[str, Job] = {}
        self._results: dict[str, Result] = {}
        self._stamps: dict[str, tuple[int, int]] = {}
        self._progress: dict[str, dict[str, Any]] = {}
        self._schedulers: tuple[Scheduler, ...] = ()
        self._has_jobs = asyncio.Event()
        self._trouble: str | None = None
        self._is_ended = False
        self._task: asyncio.Task[None] | None = None
        self.reload(jobs)

    @property
    def has_helper(self) -> bool:
        """Jobs are run by somebody else, who may read what we may not."""
        return self._socket is not None

    # Life.

    def reload(self, jobs: Mapping[str, Job]) -> None:
        """Take other jobs from now on; a run that is on goes on."""
        self._jobs = dict(jobs)
        if self._schedulers:
            self._schedule()
        if not jobs:
            return
        self._results = {name: self._known(name) for name in jobs}
        self._has_jobs.set()

    def _schedule(self) -> None:
        backups, drills = self._schedulers
        backups.reload(self._jobs)
        drills.reload(_drills(self._jobs))

    async def run(self) -> None:
        """Until cancelled; without a job, wait for a reload that brings one. A run that is on is ended then."""
        self._task = asyncio.current_task()
        await self._has_jobs.wait()
        from backup.errors import BackupError

        try:
            self._schedulers = self._build()
        except BackupError as error:
            # Its own file cannot be read: said, and the rest of the agent goes on.
            self._trouble = str(error)
            log.error("backup.no_schedule", reason=self._trouble, consequence="no job runs by itself")
            return
        for scheduler in self._schedulers:
            if scheduler.problem is not None:
                log.error("backup.history_lost", reason=scheduler.problem)
        # A group cancels each of them once and waits: a second cancel would cut short how a run is ended.
        async with asyncio.TaskGroup() as group:
            for scheduler in self._schedulers:
                group.create_task(scheduler.run(), name="backups")

    def _build(self) -> tuple[Scheduler, Scheduler]:
        from backup import histories
        from backup.scheduler import Scheduler

        runner, driller = self._runners()
        return (
            Scheduler(self._jobs, runner, os.path.join(self._state_dir, histories.FILE_NAME), self._clock,
                      on_event=self._heard, on_outcome=self._ran),
            Scheduler(_drills(self._jobs), driller, os.path.join(self._state_dir, DRILLS_FILE), self._clock,
                      on_event=lambda _: None, on_outcome=self._drilled),
        )  # fmt: skip

    def _runners(self) -> tuple[Runner, Runner]:
        """Who runs jobs and who drills them."""
        if self._socket is not None:
            from backup.socket_runner import SocketRunner

            return SocketRunner(self._socket, "run"), SocketRunner(self._socket, "drill")
        from backup.runner import ChildRunner

        environment = {name: text for name, text in os.environ.items() if name not in _NOT_HANDED_ON}
        return ChildRunner(self._worker, environment), ChildRunner((*self._worker, "--drill"), environment)

    async def close(self) -> None:
        """End what runs, in good order."""
        self._is_ended = True
        if self._task is not None and self._task is not asyncio.current_task():
            if not self._task.cancelling():
                self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # What workers say.

    def _heard(self, event: Mapping[str, Any]) -> None:
        name = str(event.get("job", ""))
        now = self._progress.setdefault(name, {"phase": "starting", "raw_bytes": 0, "stored_bytes": 0})
        match event.get("event"):
            case "phase":
                now["phase"] = str(event.get("phase"))
                if now["phase"] == "sweep":
                    log.info("backup.started", job=name)
            case "progress":
                now["raw_bytes"], now["stored_bytes"] = event.get("raw_bytes"), event.get("stored_bytes")
            case _:
                pass  # the rest comes again in the result

    def _ran(self, name: str, outcome: Outcome) -> None:
        self._progress.pop(name, None)
        if outcome.status == "busy":
            log.info("backup.busy", job=name, reason=outcome.error)
            return
        known = self._fresh(name)
        known.ran(outcome.result, outcome.status, outcome.error, self._now())
        self._save(name, known)
        if outcome.status == "fail":
            log.error("backup.failed", job=name, reason=outcome.error)
        else:
            log.info("backup.done", job=name, status=outcome.status, backup=known.backup, took_s=known.duration_s,
                     warnings=len(known.warnings))  # fmt: skip

    def _drilled(self, name: str, outcome: Outcome) -> None:
        if outcome.status == "busy":
            return
        known = self._fresh(name)
        known.was_drilled(outcome.result, outcome.status, outcome.error)
        self._save(name, known)
        if outcome.status == "fail":
            log.error("backup.drill_failed", job=name, reason=outcome.error)
        else:
            log.info("backup.drilled", job=name, rto_s=known.rto_s)

    # What is known.

    def _known(self, name: str) -> Result:
        """From its file; a job seen for the first time gets one, so that its age counts from now."""
        from agent import backup_results

        found = backup_results.load(self._state_dir, name)
        if found is not None:
            return found
        found = backup_results.Result(self._now())
        self._save(name, found)
        return found

    def _save(self, name: str, result: Result) -> None:
        from agent import backup_results

        self._results[name] = result
        try:
            backup_results.save(self._state_dir, name, result)
        except OSError as error:
            # Memory has it; only a restart would forget.
            log.error("backup.result_not_kept", job=name, reason=str(error))

    def _fresh(self, name: str) -> Result:
        """What is known now: a person may have run the job at the command line."""
        from agent import backup_results

        try:
            status = os.stat(backup_results.file_of(self._state_dir, name))
            stamp = (status.st_mtime_ns, status.st_ino)
        except OSError:
            stamp = None
        if stamp is not None and stamp != self._stamps.get(name):
            self._stamps[name] = stamp
            self._results[name] = backup_results.load(self._state_dir, name) or self._results[name]
        if name not in self._results:
            self._results[name] = backup_results.Result(self._now())  # the job went in a reload while it ran
        return self._results[name]

    def summary(self) -> dict[str, Any]:
        """For /health. `state`: failing when a job's last run or drill failed, or none can be scheduled."""
        coming = [{name: run.at for name, run in one.next_runs().items() if run is not None}
                  for one in self._schedulers] or [{}, {}]  # fmt: skip
        jobs = {
            name: self._job_summary(name, job, coming[0].get(name), coming[1].get(name))
            for name, job in self._jobs.items()
        }
        trouble = self._trouble or next((one.problem for one in self._schedulers if one.problem is not None), None)
        is_failing = trouble is not None or any("fail" in (one["status"], one["drill"]) for one in jobs.values())
        running = next((one.running for one in self._schedulers if one.running is not None), None)
        return {"state": "failing" if is_failing else "ok", "error": trouble, "running": running, "jobs": jobs}

    def _job_summary(self, name: str, job: Job, runs_at: float | None, drills_at: float | None) -> dict[str, Any]:
        known = self._fresh(name)
        return {
            "status": known.status, "error": known.error, "enabled": job.enabled, "backup": known.backup,
            "last_success_at": known.last_success_at, "duration_s": known.duration_s, "warnings": known.warnings,
            "drill": known.drill_status, "drill_error": known.drill_error, "last_drill_at": known.drill_at,
            "rto_s": known.rto_s, "rpo_s": job.rpo, "age_s": round(self._age(known), 1),
            "next_run_at": runs_at, "next_drill_at": drills_at,
            "progress": self._progress.get(name),
            "targets": {
                target: {"status": one.status, "error": one.error, "last_success_at": one.last_success_at,
                         "last_verified_at": one.last_verified_at, "size_bytes": one.size_bytes,
                         "backups": one.backups}
                for target, one in known.targets.items() if target in job.targets
            },
        }  # fmt: skip

    def _age(self, known: Result) -> float:
        return max(0.0, self._now() - (known.last_success_at or known.known_since))

    def readings(self) -> Iterator[Reading]:
        """One reading a job, one a target of it, one a state."""
        for name, job in self._jobs.items():
            known = self._fresh(name)
            yield backup_metrics.JOB.row((name,), (
                self._age(known), job.rpo, known.rto_s, job.rto,
                (known.drill_at or 0.0) if job.drill is not None or known.drill_at else None, known.duration_s,
            ))  # fmt: skip
            for target in job.targets:
                copies = known.targets.get(target)
                if copies is None:
                    yield backup_metrics.TARGET.row((name, target), (0.0, 0.0, None))
                else:
                    yield backup_metrics.TARGET.row((name, target), (
                        copies.last_success_at or 0.0, copies.last_verified_at or 0.0, copies.size_bytes,
                    ))  # fmt: skip
            for state in backup_metrics.STATES:
                yield backup_metrics.STATE.row((name, state), (known.status == state,))

    # What people ask over the control socket.

    def commands(self) -> dict[str, Callable[[Mapping[str, Any]], Awaitable[Any]]]:
        """By name; `backup_run` changes something."""
        return {"backup_run": self._asked_to_run, "backup_list": self._asked_to_list}

    async def _asked_to_run(self, request: Mapping[str, Any]) -> str:
        """Run `job`, or drill it with `drill`, as soon as no other runs. Raise ControlError."""
        from agent.control import ControlError

        name = str(request.get("job", ""))
        if name not in self._jobs:
            known = ", ".join(self._jobs)
            raise ControlError(f"{name}: no such job; " + (f"there are: {known}" if known else "put one into backup.d"))
        if not self._schedulers or self._is_ended:
            raise ControlError(f"{name}: jobs do not run now" + (f": {self._trouble}" if self._trouble else ""))
        is_drill = request.get("drill") is True
        if is_drill and self._jobs[name].drill is None:
            raise ControlError(f"{name}: has no drill; write a section drill into its file")
        self._schedulers[1 if is_drill else 0].request(name)
        return f"{name}: {'drilled' if is_drill else 'runs'} as soon as no other job runs"

    async def _asked_to_list(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return self.summary()

    def _now(self) -> float:
        return self._clock.wall_ns() / NS


def _drills(jobs: Mapping[str, Job]) -> dict[str, Job]:
    """The jobs that are drilled, with the drill's schedule and deadline instead of their own."""
    from dataclasses import replace

    return {
        name: replace(job, schedule=replace(job.times, at=job.drill.schedule),
                      limits=replace(job.limits, deadline=job.drill.deadline))
        for name, job in jobs.items() if job.drill is not None
    }  # fmt: skip
