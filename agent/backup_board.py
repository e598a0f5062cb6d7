"""What is known of each backup job: how its last run and drill went, what is kept, when it runs next.

Read by /health, the readings and `/api/v1/backups`; all of it comes from the state directory, never from a target.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import structlog

from agent import backup_metrics
from agent.core.clock import NS, Clock
from agent.core.errors import SourceError
from agent.core.host import read_file
from agent.core.model import Reading

if TYPE_CHECKING:
    from agent.backup_results import Copies, Result
    from backup.job import Job

log = structlog.get_logger("backup")

Stat = Callable[[str], os.statvfs_result]
DRILL_PATIENCE: Final = 1.2  # on the longest time between two drills
FREE_EVERY_S: Final = 900.0  # the helper that asks ends by itself in between


class Board:
    """The jobs and what is known of them.

    `stat` is os.statvfs with a deadline: a directory may be on a mount that hangs.
    """

    def __init__(self, state_dir: str, clock: Clock, stat: Stat) -> None:
        self.jobs: dict[str, Job] = {}
        self.runs_at: dict[str, float] = {}  # Unix seconds, of the jobs that will run by themselves
        self.drills_at: dict[str, float] = {}
        self.scheduled: set[str] = set()  # jobs that the agent has run or drilled now, by whomever
        self.progress: dict[str, dict[str, Any]] = {}
        self.heartbeat_errors: dict[tuple[str, str], str | None] = {}  # of a backup's or a drill's, by job
        self.told: Callable[[str, Result], None] = lambda _name, _result: None  # of runs that a person made
        self._state_dir = state_dir
        self._clock = clock
        self._stat = stat
        self._results: dict[str, Result] = {}
        self._stamps: dict[str, tuple[int, int]] = {}
        self._patience: dict[str, float | None] = {}
        self._drill_patience: dict[str, float | None] = {}
        self._free: dict[str, tuple[float, int | None]] = {}  # by directory: when it was asked, and the answer

    def take(self, jobs: Mapping[str, Job]) -> None:
        """Show these from now on."""
        self.jobs = dict(jobs)
        if jobs:
            from backup.schedule import longest_gap

            now = self.now()
            self._patience = {name: _times(2.0, longest_gap(job.times, now)) if job.enabled else None
                              for name, job in jobs.items()}  # fmt: skip
            self._drill_patience = {
                name: _times(DRILL_PATIENCE, longest_gap(job.drill_times, now))
                for name, job in jobs.items() if job.enabled and job.drill_times is not None
            }  # fmt: skip
        self._results = {name: self._known(name) for name in jobs}

    def now(self) -> float:
        """Unix seconds."""
        return self._clock.wall_ns() / NS

    # What is known.

    def _known(self, name: str) -> Result:
        """From its file. What is seen for the first time, a job or its drills, is noted: its age counts from now."""
        from agent import backup_results

        found = backup_results.load(self._state_dir, name)
        is_new = found is None
        found = found or backup_results.Result(self.now())
        has_drills = self.jobs[name].drill is not None
        if is_new or has_drills is not (found.drills_since is not None):
            found.drills_since = self.now() if has_drills else None
            self.keep(name, found)
        return found

    def keep(self, name: str, result: Result) -> None:
        """What is known of a job from now on."""
        from agent import backup_results

        self._results[name] = result
        try:
            backup_results.save(self._state_dir, name, result)
        except OSError as error:
            # Memory has it; only a restart would forget.
            log.error("backup.result_not_kept", job=name, reason=str(error))

    def known(self, name: str) -> Result:
        """What is known now: a person may have run the job at the command line."""
        from agent import backup_results

        try:
            status = os.stat(backup_results.file_of(self._state_dir, name))
            stamp = (status.st_mtime_ns, status.st_ino)
        except OSError:
            stamp = None
        if stamp is not None and stamp != self._stamps.get(name):
            self._stamps[name] = stamp
            before = self._results.get(name)
            found = backup_results.load(self._state_dir, name) or before
            if found is not None:
                self._results[name] = found
                if before is not None and found.ended_at != before.ended_at:
                    self.told(name, found)
        if name not in self._results:
            self._results[name] = backup_results.Result(self.now())  # the job went in a reload while it ran
        return self._results[name]

    def age(self, known: Result) -> float:
        """Seconds since the newest good copy; before there is one, since the job was first seen."""
        return max(0.0, self.now() - (known.last_success_at or known.known_since))

    def drill_age(self, known: Result) -> float:
        """Seconds since a drill last passed; before one did, since the job was first seen with drills."""
        return max(0.0, self.now() - max(known.drill_at or 0.0, known.drills_since or known.known_since))

    def rpo(self, name: str) -> float | None:
        """Seconds that the newest good copy may be old; None for a job that says nothing and never runs by itself."""
        promised = self.jobs[name].rpo
        return promised if promised is not None else self._patience.get(name)

    def free(self, name: str, target: str, copies: Copies | None) -> int | None:
        """Free bytes on a target: of a directory as it is now, else as the last run found it."""
        entry = self.jobs[name].targets[target]
        found = self._ask(entry.options["path"]) if entry.type == "local" else None
        return found if found is not None or copies is None else copies.free_bytes

    def _ask(self, path: str) -> int | None:
        asked_at, found = self._free.get(path, (-FREE_EVERY_S, None))
        now = self._clock.monotonic()
        if now - asked_at >= FREE_EVERY_S:
            try:
                stat = self._stat(path)
            except (OSError, SourceError):
                found = None  # not ours to look into, or it hangs: the run will say
            else:
                found = stat.f_bavail * stat.f_frsize
            self._free[path] = now, found
        return found

    def running(self) -> set[str]:
        """The jobs that somebody works on now and whose lock we can see: a child of ours, or a person's."""
        locks: dict[int, str] = {}
        for name in list(self.jobs):
            with contextlib.suppress(OSError):  # it never ran, or its lock is not ours to see
                locks[os.stat(os.path.join(self._state_dir, "locks", name)).st_ino] = name
        return {locks[inode] for inode in _held() & locks.keys()} if locks else set()

    # How it is shown.

    def summary(self, name: str) -> dict[str, Any]:
        """A job for /health."""
        job, known = self.jobs[name], self.known(name)
        return {
            "status": known.status, "error": known.error, "enabled": job.enabled, "backup": known.backup,
            "last_success_at": known.last_success_at, "duration_s": known.duration_s, "warnings": known.warnings,
            "drill": known.drill_status, "drill_error": known.drill_error, "drill_undone": known.drill_undone,
            "last_drill_at": known.drill_at, "rto_s": known.rto_s, "rto_target_s": job.rto, "rpo_s": self.rpo(name),
            "age_s": round(self.age(known), 1), "next_run_at": self.runs_at.get(name),
            "next_drill_at": self.drills_at.get(name), "progress": self.progress.get(name),
            "heartbeat_error": self._heartbeat_error(name),
            "targets": {
                target: {"status": one.status, "error": one.error, "last_success_at": one.last_success_at,
                         "last_verified_at": one.last_verified_at, "size_bytes": one.size_bytes,
                         "backups": one.backups}
                for target, one in known.targets.items() if target in job.targets
            },
        }  # fmt: skip

    def _heartbeat_error(self, name: str) -> str | None:
        return self.heartbeat_errors.get(("backup", name)) or self.heartbeat_errors.get(("drill", name))

    def listing(self, name: str) -> dict[str, Any]:
        """A job with its backups, for the HTTP API."""
        job, known, told = self.jobs[name], self.known(name), self.summary(name)
        for target, facts in told["targets"].items():
            copies = known.targets[target]
            facts |= {"expected_bytes": copies.expected_bytes, "free_bytes": self.free(name, target, copies),
                      "kept": [asdict(one) for one in reversed(copies.kept)]}  # fmt: skip
        return {"job": name, "source": job.plugin.type, "ended_at": known.ended_at, **told}

    def readings(self) -> Iterator[Reading]:
        """One reading a job, one a target of it, one a state."""
        running = self.running() | self.scheduled if self.jobs else set()
        for name, job in list(self.jobs.items()):
            known = self.known(name)
            has_drills = job.drill is not None or known.drill_at
            yield backup_metrics.JOB.row((name,), (
                self.age(known), self.rpo(name), known.rto_s, job.rto, (known.drill_at or 0.0) if has_drills else None,
                self.drill_age(known) if has_drills else None, self._drill_patience.get(name),
                *_drill_bools(known), known.duration_s, self.runs_at.get(name), name in running,
            ))  # fmt: skip
            for target in job.targets:
                copies = known.targets.get(target)
                success, verified, size, expected = (0.0, 0.0, None, None) if copies is None else (
                    copies.last_success_at or 0.0, copies.last_verified_at or 0.0, copies.size_bytes,
                    copies.expected_bytes or None,
                )  # fmt: skip
                free = self.free(name, target, copies)
                yield backup_metrics.TARGET.row((name, target), (success, verified, size, expected, free))
            for state in backup_metrics.STATES:
                yield backup_metrics.STATE.row((name, state), (known.status == state,))


def _drill_bools(known: Result) -> tuple[bool | None, bool | None]:
    """Whether the last drill passed, and whether the last one could be done; None: there was none."""
    is_known = known.drill_status != "never"
    passed = known.drill_status == "ok" if is_known else None
    return passed, known.drill_undone is None if is_known or known.drill_undone is not None else None


def _held() -> set[int]:
    """Inodes of the files on which some process holds a flock, from /proc/locks (proc(5))."""
    try:
        lines = read_file("/proc/locks").decode("ascii", "replace").splitlines()
    except SourceError:
        return set()
    # `1: FLOCK  ADVISORY  WRITE 708 00:13:18 0 EOF`; one that waits has an arrow behind its number.
    return {int(words[5].rpartition(":")[2]) for words in map(str.split, lines) if words[1:2] == ["FLOCK"]}


def _times(factor: float, seconds: float | None) -> float | None:
    return None if seconds is None else factor * seconds
