"""What the last run and the last drill of each job came to: one small JSON file a job in the state directory.

Written by whoever ran it, the daemon or a person at the command line, so that readings are right after a restart and
without a look at the targets.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from agent.core.units import format_duration, rough_size

DIRECTORY = "backup-results"
_MOST_BYTES = 1 << 20


@dataclass(slots=True)
class Kept:
    """One backup on a target, as its manifest has it. Times in Unix seconds."""

    id: str
    finished_at: float
    raw_bytes: int
    stored_bytes: int
    complete: bool
    verified: bool
    level: int
    verified_at: float | None = None
    drilled_at: float | None = None
    rto_s: float | None = None
    pinned: bool = False


@dataclass(slots=True)
class Copies:
    """What one target holds of a job. Times in Unix seconds, None: never; `size_bytes` of its newest copy.

    `kept`: the newest of its backups as of the last command that looked, oldest first. `expected_bytes`: of the next
    copy; `free_bytes`: of the target after the last run, None where it cannot say.
    """

    status: str = "never"
    error: str | None = None
    last_success_at: float | None = None
    last_verified_at: float | None = None
    size_bytes: int | None = None
    backups: int | None = None
    expected_bytes: int | None = None
    free_bytes: int | None = None
    kept: list[Kept] = field(default_factory=list)


@dataclass(slots=True)
class Result:
    """What is known of a job. `status`: of its last run, ok, warn, fail or never. Times in Unix seconds.

    `drill_status`, `drill_error`: of the last drill that was carried out; `drill_undone`: why a later one could not be.
    """

    known_since: float
    status: str = "never"
    error: str | None = None
    backup: str | None = None
    ended_at: float | None = None
    duration_s: float | None = None
    warnings: list[str] = field(default_factory=list)
    targets: dict[str, Copies] = field(default_factory=dict)
    drill_status: str = "never"
    drill_error: str | None = None
    drill_undone: str | None = None
    drills_since: float | None = None  # when the agent first saw that the job has drills
    drill_at: float | None = None  # of the last one that passed
    rto_s: float | None = None

    @property
    def last_success_at(self) -> float | None:
        """When the newest good copy was finished, wherever it is."""
        return max((one.last_success_at for one in self.targets.values() if one.last_success_at), default=None)

    def sentence(self, job: str) -> str:
        """What the last run came to."""
        if self.status == "fail":
            return f"backup {job} failed: {self.error or 'no reason given'}"
        sizes = [one.size_bytes for one in self.targets.values() if one.status == "ok" and one.size_bytes is not None]
        size = f", {rough_size(max(sizes))}" if sizes else ""
        took = f" in {format_duration(max(1, round(self.duration_s)))}" if self.duration_s is not None else ""
        warnings = f" with warnings: {'; '.join(self.warnings)}" if self.status == "warn" else ""
        return f"backup {job} is done{size}{took}{warnings}"

    def ran(self, said: Mapping[str, Any], status: str, error: str | None, now: float) -> None:
        """Take the result of a run as its worker said it; one that died said nothing, and its targets stay."""
        if status == "busy":
            return  # another run of the job was on, and will tell
        self.status, self.error, self.ended_at = status, error, now
        self.backup, self.duration_s = said.get("backup"), said.get("duration_s")
        self.warnings = [str(one) for one in said.get("warnings", ())][:20]
        for name, told in said.get("targets", {}).items():
            copies = self.targets.setdefault(name, Copies())
            copies.status, copies.error = told["status"], told["error"]
            copies.last_success_at = told["last_success_at"] or copies.last_success_at
            copies.last_verified_at = told["last_verified_at"] or copies.last_verified_at
            if told["status"] == "ok":
                copies.size_bytes, copies.backups = told["stored_bytes"], told["backups"]
                copies.kept = msgspec.convert(told["kept"], list[Kept])
                copies.expected_bytes, copies.free_bytes = told["expected_bytes"], told["free_bytes"]
            if told.get("last_drill_at") is not None:
                self.drill_at = max(self.drill_at or 0.0, told["last_drill_at"])

    def changed(self, target: str, summary: Mapping[str, Any]) -> None:
        """A backup on that target was verified, pinned or drilled; `summary` is its manifest's."""
        copies = self.targets.get(target)
        if copies is None:
            return
        now = msgspec.convert(summary, Kept)
        copies.kept = [now if one.id == now.id else one for one in copies.kept]
        if now.verified and now.verified_at is not None:
            copies.last_verified_at = max(copies.last_verified_at or 0.0, now.verified_at)

    def went(self, target: str, ids: Collection[str]) -> None:
        """Backups were deleted from that target."""
        copies = self.targets.get(target)
        if copies is not None:
            copies.kept = [one for one in copies.kept if one.id not in ids]
            copies.backups = None if copies.backups is None else max(0, copies.backups - len(ids))

    def was_drilled(self, said: Mapping[str, Any], status: str, error: str | None) -> None:
        """Take the result of a drill, or why there was none: then nothing new is known of the backups."""
        if status == "busy":
            return
        if status != "ok" and said.get("passed") is not False:
            self.drill_undone = error or "no reason given"
            return
        self.drill_status, self.drill_error, self.drill_undone = status, error, None
        if status == "ok":
            self.drill_at, self.rto_s = said["started_at"], said["rto_s"]
            copies = self.targets.get(said["target"])
            for one in copies.kept if copies is not None else ():
                if one.id == said["backup"]:
                    one.drilled_at, one.rto_s = self.drill_at, self.rto_s


def load(state_dir: str, job: str) -> Result | None:
    """What is known of a job; None when that is nothing, or a file that cannot be read: the next run writes it anew."""
    try:
        # Root reads here what somebody else may have put: a link is not followed, a pipe not waited for.
        handle = os.open(file_of(state_dir, job), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            return msgspec.json.decode(file.read(_MOST_BYTES), type=Result)
    except (OSError, msgspec.DecodeError):
        return None


def save(state_dir: str, job: str, result: Result) -> None:
    """Replace what is known; after a power failure there is the old or the new. Raise OSError.

    The files belong to the owner of the state directory, also where root writes them: the daemon replaces them.
    """
    directory = os.path.join(state_dir, DIRECTORY)
    owner = os.stat(state_dir)
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o750)
    # Root may write where somebody else may rename: nothing on the way is a link that it follows, and it gives away
    # only what it has open.
    at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    part = f".{job}.{secrets.token_hex(4)}.part"
    try:
        _give(at, owner)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640, dir_fd=at)
        with open(handle, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(result), indent=1))
            file.flush()
            os.fsync(handle)
            _give(handle, owner)
        os.replace(part, f"{job}.json", src_dir_fd=at, dst_dir_fd=at)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(part, dir_fd=at)
        os.close(at)


def file_of(state_dir: str, job: str) -> str:
    """The path of a job's file."""
    return os.path.join(state_dir, DIRECTORY, f"{job}.json")


def _give(handle: int, owner: os.stat_result) -> None:
    """Let a file or directory that root made, and has open, belong to `owner`."""
    if os.geteuid() == 0 and owner.st_uid != 0 and os.fstat(handle).st_uid == 0:
        os.fchown(handle, owner.st_uid, owner.st_gid)
