"""A restore drill carried out: the newest backup brought back, the report kept as evidence, the manifest told."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import pwd
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from agent.cli.backup_desk import Busy, Desk, Found, key_of, redactor
from agent.core.clock import SystemClock
from backup import catalogue
from backup.apart import Apart, behind, child
from backup.assertions import Assertion
from backup.children import Guard
from backup.drill import Evidence, drill, drilled
from backup.errors import BackupError, Refused, TargetFailed, reason
from backup.job import Drill, Job
from backup.signals import heeding
from backup.source import Work
from backup.target import Target
from backup.worker import BUSY, EVERY_JOB, FAILED, OK, Lines, lock, refusal
from backup.workspace import workspace

NOT_DONE = "not_done"  # status of a drill that nothing was found out by
EVIDENCE = "backup-drills"  # directory among what jobs work in
_MOST_REPORTS = 60  # of a job: five years of monthly drills
_ASK_AGAIN_S = 1.0
_HELPER = (sys.executable, "-P", "-m", "agent.cli.main", "backup-drill-helper")
_DRILL_USERS = ("vigilhost-drill", "nobody")


def deadline_of(job: Job) -> float:
    """Most time a drill may take, in seconds."""
    return (job.drill or Drill()).deadline


def carry_out(at: Desk, found: Found, work: Work, seen: Callable[[Target], Any] | None = None,
              identity: str | None = None) -> Evidence:  # fmt: skip
    """Drill one backup of a job that is held, keep the report, and mark the backup as drilled.

    `seen`: makes what is read instead of the target, for whoever shows how far it is. Raise BackupError, OSError when
    there can be no drill; what is wrong with the backup is in the evidence alone.
    """
    job, place = found.job, found.place
    manifest = catalogue.again(place.target, found.manifest, job.manifest_key)
    if manifest is None:
        raise Refused(f"{place.name}: {found.manifest.id} is gone; it was deleted meanwhile")
    assertions: Sequence[Assertion] = job.drill.assertions if job.drill is not None else ()
    key = key_of(job, identity)
    if key is None and any(archive.recipients for archive in manifest.archives):
        raise Refused(f"{manifest.id}: is encrypted; name a file with a private key: encryption.identity, or "
                      "drill with --identity, also on another host")  # fmt: skip
    target: Any = place.target if seen is None else seen(place.target)
    source = at.source(job)
    with contextlib.ExitStack() as stack:
        apart = stack.enter_context(_apart(at, job)) if source.drills_apart else None
        evidence = drill(manifest, target, source, work, assertions, now=time.time(), identity=key, apart=apart)
    evidence = replace(evidence, target=place.name)
    try:
        _keep(at, job, evidence)
        if at.is_own and evidence.is_passed:
            catalogue.write(place.target, drilled(manifest, evidence), job.manifest_key)
    except BackupError as error:
        if evidence.is_passed:
            raise TargetFailed(f"{manifest.id} passed its drill, which cannot be noted: {error}") from error
        evidence = replace(evidence, error="; ".join(filter(None, [evidence.error, str(error)])))
    return evidence


@contextlib.contextmanager
def _apart(at: Desk, job: Job) -> Iterator[Apart]:
    """The process without rights that drills the job's archives. Raise BackupError."""
    if at.drill_socket is not None:
        yield Apart(job, at.host, partial(behind, at.drill_socket), "journalctl -u 'vigilhost-drill@*'")
        return
    user = next(filter(_is_known, _DRILL_USERS)) if os.geteuid() == 0 else None
    # A name that no job has; what a killed drill left there, the next one sweeps.
    with workspace(at.work_dir, f"{job.name}.drill", user) as scratch:
        yield Apart(job, at.host, partial(child, _HELPER, scratch, user), "what it wrote to standard error")


def _is_known(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def shortfall(evidence: Evidence) -> str | None:
    """Why a drill was not passed, in a sentence; None when it was."""
    wrong = [f"{name}: {one.assertion}: {one.found or 'no'}" for name, outcomes in evidence.archives.items()
             for one in outcomes if not one.is_met]  # fmt: skip
    return "; ".join([*([evidence.error] if evidence.error else []), *wrong]) or None


def newest(at: Desk, job: Job) -> Found:
    """The backup that a drill takes by itself. Raise BackupError."""
    wanted = (job.drill.target if job.drill is not None else None) or next(iter(job.targets))
    found = at.find([job.name], None, wanted)
    return found[0]


def work_drill(at: Desk, job: Job, output: int = 1) -> int:
    """What the agent's worker does: the drill, told as a worker tells a run, and to its heartbeat. The exit code.

    The status is ok, fail, busy, or not_done: then nothing was found out about the backup.
    """
    if job.drill is None or job.drill.heartbeat is None:
        return _work(at, job, output, None)
    from agent.backup_heartbeat import Beats, beating

    beats = Beats(job.drill.heartbeat, "restore drill of", "drill")
    return beating(beats, job.name, lambda: _work(at, job, output, beats.heard), output)


def _work(at: Desk, job: Job, output: int, heard: Callable[[Mapping[str, Any]], None] | None) -> int:
    guard = Guard(deadline_of(job), f"{job.name}: drill")
    lines = Lines(output, guard, SystemClock(), redactor(job), heard)
    with heeding(guard.stop):
        result = _result(at, job, guard, lines)
        lines.put(result)
    return {"ok": OK, "busy": BUSY}.get(result["status"], FAILED)


def _result(at: Desk, job: Job, guard: Guard, lines: Lines) -> dict[str, Any]:
    """The last event of a drill."""
    try:
        with at.work(job, guard) as work, _turn(at, guard):
            lines.put({"event": "phase", "job": job.name, "phase": "drill"})
            evidence = carry_out(at, newest(at, job), work)
    except Busy as busy:
        return refusal(job.name, "busy", str(busy))
    except (BackupError, ValueError, OSError) as error:
        return refusal(job.name, NOT_DONE, reason(error))
    finally:
        guard.close()
    return {**evidence.report(), "event": "result", "job": job.name, "status": "ok" if evidence.is_passed else "fail",
            "error": shortfall(evidence), "is_slot_done": evidence.is_passed}  # fmt: skip


@contextlib.contextmanager
def _turn(at: Desk, guard: Guard) -> Iterator[None]:
    """A drill takes its turn among the jobs, whose own lock it holds, as a run does. Raise Stopped."""
    while True:
        with lock(at.work_dir, EVERY_JOB) as is_ours:
            if is_ours:
                yield
                return
        guard.wait(_ASK_AGAIN_S)


def _keep(at: Desk, job: Job, evidence: Evidence) -> None:
    """The report as a file; the oldest ones go."""
    directory = os.path.join(at.work_dir, EVIDENCE)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(evidence.started_at))
    file = os.path.join(directory, f"{job.name}.{stamp}.json")
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        with open(file, "w", encoding="utf-8") as output:
            json.dump(evidence.report(), output, indent=1, default=str)
            output.flush()
            os.fsync(output.fileno())
        for old in sorted(glob.glob(os.path.join(glob.escape(directory), f"{job.name}.*.json")))[:-_MOST_REPORTS]:
            os.unlink(old)
    except OSError as error:
        error.filename = error.filename or file
        raise TargetFailed(f"the report is not kept: {reason(error)}") from error
