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

from agent.backup_board import Board, Stat
from agent.core.clock import Clock
from agent.places import JOBS_DIRECTORY

if TYPE_CHECKING:
    from agent.backup_results import Result
    from agent.core.model import Reading
    from agent.core.problems import Problem
    from backup.job import Job
    from backup.runner import Outcome, Runner
    from backup.scheduler import Scheduler

log = structlog.get_logger("backup")
Note = Callable[[bool, str], None]

DRILLS_FILE: Final = "backup-drill-runs.json"
PLAN_EVERY_S: Final = 60.0  # when each job runs next is worked out
RESUME_AFTER_S: Final = 60.0  # a schedule that broke off is taken up again
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
    instead, as root, by a process that is not ours. `stat` is os.statvfs with a deadline. `note` takes a sentence about
    each run and drill, and whether it is a good one.
    """

    def __init__(self, jobs: Mapping[str, Job], state_dir: str, clock: Clock, worker: Sequence[str], *,
                 socket: str | None = None, stat: Stat = os.statvfs,
                 note: Note = lambda _is_good, _text: None) -> None:  # fmt: skip
        self._state_dir = os.path.abspath(state_dir)
        self._clock = clock
        self._worker = tuple(worker)
        self._socket = socket
        self._note = note
        self._board = Board(self._state_dir, clock, stat)
        self._board.told = self._say
        self._planned_at: float | None = None
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
        self._board.take(jobs)
        if self._schedulers:
            self._schedule()
        if jobs:
            self._has_jobs.set()

    def _schedule(self) -> None:
        backups, drills = self._schedulers
        backups.reload(self._board.jobs)
        drills.reload(_drills(self._board.jobs))
        self._planned_at = None

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
                group.create_task(self._keep_on(scheduler), name="backups")

    async def _keep_on(self, scheduler: Scheduler) -> None:
        """Run a scheduler for ever: what ends it is a bug, said on the health page until a run is done again."""
        while True:
            try:
                await scheduler.run()
            except Exception as error:
                log.exception("backup.scheduler_broke", retry_in_s=RESUME_AFTER_S)
                self._trouble = f"the schedule broke off: {error!r}"
            await self._clock.sleep_until(self._clock.monotonic() + RESUME_AFTER_S)

    def _build(self) -> tuple[Scheduler, Scheduler]:
        from backup import histories
        from backup.scheduler import Scheduler

        runner, driller = self._runners()
        return (
            Scheduler(self._board.jobs, runner, os.path.join(self._state_dir, histories.FILE_NAME), self._clock,
                      on_event=self._heard, on_outcome=self._ran),
            Scheduler(_drills(self._board.jobs), driller, os.path.join(self._state_dir, DRILLS_FILE), self._clock,
                      on_event=self._heard_of_drill, on_outcome=self._drilled),
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
        now = self._board.progress.setdefault(name, {"phase": "starting", "raw_bytes": 0, "stored_bytes": 0})
        match event.get("event"):
            case "phase":
                now["phase"] = str(event.get("phase"))
                if now["phase"] == "sweep":
                    log.info("backup.started", job=name)
            case "progress":
                now["raw_bytes"], now["stored_bytes"] = event.get("raw_bytes"), event.get("stored_bytes")
            case "heartbeat":
                self._heard_of_heartbeat(name, event.get("error"))
            case _:
                pass  # the rest comes again in the result

    def _ran(self, name: str, outcome: Outcome) -> None:
        self._board.progress.pop(name, None)
        self._planned_at = self._trouble = None
        if outcome.status == "busy":
            log.info("backup.busy", job=name, reason=outcome.error)
            return
        known = self._board.known(name)
        known.ran(outcome.result, outcome.status, outcome.error, self._board.now())
        self._board.keep(name, known)
        if outcome.status == "fail":
            log.error("backup.failed", job=name, reason=outcome.error)
        else:
            log.info("backup.done", job=name, status=outcome.status, backup=known.backup, took_s=known.duration_s,
                     warnings=len(known.warnings))  # fmt: skip
        self._say(name, known)

    def _drilled(self, name: str, outcome: Outcome) -> None:
        self._planned_at = self._trouble = None
        if outcome.status == "busy":
            return
        known = self._board.known(name)
        known.was_drilled(outcome.result, outcome.status, outcome.error)
        self._board.keep(name, known)
        if known.drill_undone is not None:
            log.warning("backup.drill_not_done", job=name, reason=known.drill_undone)
            self._note(False, f"restore drill of {name} could not be done: {known.drill_undone}")
        elif known.drill_status == "fail":
            log.error("backup.drill_failed", job=name, reason=outcome.error)
            self._note(False, f"restore drill of {name} failed: {outcome.error}")
        else:
            log.info("backup.drilled", job=name, rto_s=known.rto_s)
            self._note(True, f"restore drill of {name} passed in {known.rto_s:g} s")

    def _say(self, name: str, known: Result) -> None:
        self._note(known.status == "ok", known.sentence(name))

    def _heard_of_drill(self, event: Mapping[str, Any]) -> None:
        if event.get("event") == "heartbeat":
            self._heard_of_heartbeat(str(event.get("job", "")), event.get("error"), what="drill")

    def _heard_of_heartbeat(self, name: str, error: str | None, what: str = "backup") -> None:
        if error and error != self._board.heartbeat_errors.get((what, name)):
            log.warning("backup.heartbeat_failed", job=name, of=what, reason=error,
                        consequence=f"the {what} is not harmed")  # fmt: skip
        self._board.heartbeat_errors[what, name] = error

    # What is known.

    def _plan(self) -> None:
        """When each job runs next; worked out anew now and then, because it costs half a millisecond a job."""
        now = self._clock.monotonic()
        if self._planned_at is None or now - self._planned_at >= PLAN_EVERY_S:
            self._planned_at = now
            self._board.runs_at, self._board.drills_at = (
                {name: run.at for name, run in one.next_runs().items() if run is not None} for one in self._schedulers
            ) if self._schedulers else ({}, {})  # fmt: skip

    def summary(self) -> dict[str, Any]:
        """For /health. `state`: failing when a job's last run or drill failed, or none can be scheduled."""
        self._plan()
        jobs = {name: self._board.summary(name) for name in self._board.jobs}
        trouble = self._trouble or next((one.problem for one in self._schedulers if one.problem is not None), None)
        is_failing = trouble is not None or any("fail" in (one["status"], one["drill"]) for one in jobs.values())
        running = next((one.running for one in self._schedulers if one.running is not None), None)
        return {"state": "failing" if is_failing else "ok", "error": trouble, "running": running, "jobs": jobs}

    def listing(self) -> dict[str, Any]:
        """For `/api/v1/backups`: each job with its last result, its next run and what is kept of it."""
        return {**self.summary(), "jobs": [self._board.listing(name) for name in self._board.jobs]}

    def readings(self) -> Iterator[Reading]:
        """One reading a job, one a target of it, one a state."""
        self._plan()
        self._board.scheduled = {one.running for one in self._schedulers if one.running is not None}
        yield from self._board.readings()

    # What people ask over the control socket.

    def commands(self) -> dict[str, Callable[[Mapping[str, Any]], Awaitable[Any]]]:
        """By name; `backup_run` changes something."""
        return {"backup_run": self._asked_to_run, "backup_list": self._asked_to_list}

    async def _asked_to_run(self, request: Mapping[str, Any]) -> str:
        """Run `job`, or drill it with `drill`, as soon as no other runs. Raise ControlError."""
        from agent.control import ControlError

        name = str(request.get("job", ""))
        if name not in self._board.jobs:
            known = ", ".join(self._board.jobs)
            raise ControlError(f"{name}: no such job; " + (f"there are: {known}" if known else "put one into backup.d"))
        if not self._schedulers or self._is_ended:
            raise ControlError(f"{name}: jobs do not run now" + (f": {self._trouble}" if self._trouble else ""))
        is_drill = request.get("drill") is True
        if is_drill and self._board.jobs[name].drill is None:
            raise ControlError(f"{name}: has no drill; write a section drill into its file")
        self._schedulers[1 if is_drill else 0].request(name)
        return f"{name}: {'drilled' if is_drill else 'runs'} as soon as no other job runs"

    async def _asked_to_list(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return self.summary()


def _drills(jobs: Mapping[str, Job]) -> dict[str, Job]:
    """The jobs that are drilled, with the drill's schedule and deadline instead of their own."""
    from dataclasses import replace

    return {
        name: replace(job, schedule=job.drill_times, limits=replace(job.limits, deadline=job.drill.deadline))
        for name, job in jobs.items() if job.drill is not None and job.drill_times is not None
    }  # fmt: skip
