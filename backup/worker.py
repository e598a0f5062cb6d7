"""The process that makes one backup: `vigilhost backup-worker JOB`.

It says what it does as JSON lines on standard output, the last one being the result, and may be killed at any moment:
its locks are the kernel's, and what it leaves behind is swept by the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agent.core.clock import NS, Clock, SystemClock
from backup.children import Guard, program
from backup.errors import BackupError, reason
from backup.job import Job, Limits, check_job_name
from backup.redact import Redactor, secrets_in
from backup.relay import write_all
from backup.run import Run
from backup.signals import heeding
from backup.workspace import own_state, undo_path, workspace

OK, FAILED, BUSY = 0, 1, 75  # exit codes; 75 (EX_TEMPFAIL): the job runs already
EVERY_JOB = ".all"  # the lock that lets one job run at a time; no job can have this name
_ASK_AGAIN_S = 1.0
Stop = Callable[[str], None]  # takes the reason


def work(job: Job, *, host: str, state_dir: str, output: int = 1, clock: Clock | None = None,
         heard: Callable[[Mapping[str, Any]], None] | None = None) -> int:  # fmt: skip
    """Run a job to its end and return the exit code. `state_dir` holds locks and scratch space, private to us.

    `heard` gets every event too, as it is told.
    """
    clock = clock or SystemClock()
    guard = Guard(job.limits.deadline, job.name)
    lines = Lines(output, guard, clock, Redactor(secrets_in(job.manifest_key)), heard)
    os.umask(0o077)
    stops: list[Stop] = [guard.stop]

    def stop(why: str) -> None:
        for one in stops:
            one(why)

    # Until the result is told: a second signal, late because the host is busy, must not lose it.
    with heeding(stop):
        result = _run(job, host, state_dir, clock, guard, lines, stops)
        lines.put(result)
    if result["status"] == "busy":
        return BUSY
    return OK if result["status"] in ("ok", "warn") else FAILED


def _run(job: Job, host: str, state_dir: str, clock: Clock, guard: Guard, lines: Lines, stops: list[Stop]
         ) -> dict[str, Any]:  # fmt: skip
    """The result of a run. `stops` learns how to end it."""
    try:
        check_job_name(job.name)
        with lock(state_dir, job.name) as is_ours:
            if not is_ours:
                return refusal(job.name, "busy", f"{job.name}: runs already; wait for it to end")
            _be_kind(job.limits)
            with workspace(state_dir, job.name, job.user) as scratch:
                run = Run(job, host=host, scratch=scratch, clock=clock, tell=lines.put, guard=guard,
                          undo_path=undo_path(state_dir, job.name))  # fmt: skip
                stops.append(run.stop)
                with _only_one(state_dir, lines, job, guard):
                    return run.execute()
    except (BackupError, ValueError, OSError) as error:
        return refusal(job.name, "fail", reason(error))
    finally:
        guard.close()


def refusal(job: str, status: str, error: str) -> dict[str, Any]:
    """The result of a run that did not begin."""
    return {"event": "result", "job": job, "status": status, "error": error, "is_slot_done": False, "targets": {},
            "warnings": []}  # fmt: skip


class Lines:
    """Events as JSON lines. When nobody reads them any more the run is stopped: it could not report its end."""

    def __init__(self, output: int, guard: Guard, clock: Clock, redact: Redactor,
                 heard: Callable[[Mapping[str, Any]], None] | None = None) -> None:  # fmt: skip
        self._output = output
        self._heard = heard
        self._guard = guard
        self._clock = clock
        self._redact = redact

    def put(self, event: Mapping[str, Any]) -> None:
        told = self._redact.deep({**event, "time": round(self._clock.wall_ns() / NS, 3)})
        assert isinstance(told, Mapping)
        if self._heard is not None:
            self._heard(told)
        try:
            write_all(self._output, json.dumps(told, default=str).encode() + b"\n")
        except OSError:
            self._guard.stop("who started the run has gone")


@contextlib.contextmanager
def lock(state_dir: str, name: str) -> Iterator[bool]:
    """Hold a lock that the kernel frees when we die; False when another process has it. Raise BackupError."""
    path = os.path.join(state_dir, "locks", name)
    try:
        own_state(state_dir)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise BackupError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


@contextlib.contextmanager
def _only_one(state_dir: str, lines: Lines, job: Job, guard: Guard) -> Iterator[None]:
    """Wait until no other job runs on this host. Raise Stopped."""
    has_said = False
    while True:
        with lock(state_dir, EVERY_JOB) as is_ours:
            if is_ours:
                yield
                return
        if not has_said:
            lines.put({"event": "phase", "job": job.name, "phase": "waiting"})
            has_said = True
        guard.wait(_ASK_AGAIN_S)


def _be_kind(limits: Limits) -> None:
    """Low priority for us and, inherited, for every program that we start."""
    os.setpriority(os.PRIO_PROCESS, 0, max(limits.nice, os.getpriority(os.PRIO_PROCESS, 0)))
    with contextlib.suppress(OSError):  # a container may forbid it; it is a courtesy, as is what follows
        # Who wakes up takes no processor from who runs: neither from other work nor in the pipeline from each other.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with contextlib.suppress(BackupError, OSError):
        pid = os.posix_spawn(program("ionice"), ["ionice", "-c", "3", "-p", str(os.getpid())], {})
        os.waitpid(pid, 0)
