"""What sources need while they work: private files, names of throw-away things, and undoing what was done.

A run may be killed at any moment. What it changes outside of its scratch directory therefore either has a name that
tells whose it is, or is written to a list in the state directory before it is done; the next run reads both.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from backup.children import Group, Guard, Step, check_statuses, pipe, user_ids
from backup.errors import BackupError, SourceFailed, Stopped
from backup.lasting import fsync_directory
from backup.source import Stream, Work
from backup.workspace import SHARED_MODE

_CLEANUP_S = 300.0  # for undoing; the run's own deadline may be what ended it
_POLL_S = 0.05
_NEW_LIST = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


def private_file(work: Work, name: str, content: str | bytes) -> str:
    """Write a file in the scratch directory that only the job's user can read; its path."""
    path = os.path.join(work.scratch, name)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(handle, "wb") as file:
        _give(handle, work)
        file.write(content.encode() if isinstance(content, str) else content)
    return path


@contextlib.contextmanager
def private_directory(work: Work, name: str) -> Iterator[str]:
    """A new directory in the scratch directory that belongs to the job's user, removed at the end; its path."""
    path = os.path.join(work.scratch, name)
    os.mkdir(path, 0o700)
    try:
        give(path, work)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def give(path: str, work: Work) -> None:
    """Let the job's user own a directory or file that we made."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _give(handle, work)
    finally:
        os.close(handle)


def _give(handle: int, work: Work) -> None:
    if work.user is None or os.geteuid() != 0:
        return
    uid, gid = user_ids(work.user)
    found = os.fstat(handle)
    if stat.S_ISDIR(found.st_mode):
        # Root may have been stripped of what lets it write anywhere; our own group still lets us.
        gid = os.getegid()
        if found.st_uid == os.geteuid():
            os.fchmod(handle, SHARED_MODE)
    os.fchown(handle, uid, gid)


def remove_file(path: str) -> None:
    """Remove a file; one that is not there is no error."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def owner_tag(host: str, job: str) -> str:
    """Eight characters that tell the throw-away things of one job on one host from all others."""
    return hashlib.sha256(f"{host}/{job}".encode()).hexdigest()[:8]


def throwaway_name(host: str, job: str, joint: str = "_") -> str:
    """A new name for something that is made to be removed: `vigilhost_drill_1a2b3c4d_5e6f708192a3`."""
    return joint.join(("vigilhost", "drill", owner_tag(host, job), secrets.token_hex(6)))


def is_throwaway(name: str, host: str, job: str, joint: str = "_") -> bool:
    """Whether a name is one that `throwaway_name` gave to this job."""
    pattern = joint.join(("vigilhost", "drill", owner_tag(host, job), "[0-9a-f]{12}"))
    return re.fullmatch(pattern, name) is not None


@contextlib.contextmanager
def cleaning_up(work: Work, what: str) -> Iterator[Work]:
    """Time of its own for undoing: the work's guard may have stopped everything, which is why there is to undo."""
    guard = Guard(_CLEANUP_S, f"{what}: cleaning up")
    try:
        yield replace(work, guard=guard)
    finally:
        guard.close()


@contextlib.contextmanager
def rejoined(head: bytes, plain: int, work: Work) -> Iterator[int]:
    """What was read of a pipe and what is left in it, as one pipe again. Raise BackupError when they did not all pass.

    The reader inside may stop before the end.
    """
    file = private_file(work, f"head-{secrets.token_hex(4)}", head)
    read_end, write_end = pipe()
    try:
        with Group(work.guard, work.redact) as group:
            try:
                group.start(Step(("cat", file, "-"), user=work.user), plain, write_end)
            finally:
                os.close(write_end)
            yield read_end
            while os.read(read_end, 1 << 16):
                pass
            statuses = group.wait()
        work.guard.check()
        check_statuses(statuses, BackupError)
    finally:
        os.close(read_end)
        remove_file(file)


def failed(name: str, extension: str, error: SourceFailed) -> Stream:
    """A stream that could not be begun: the backup lacks it and says why, and takes the others still."""

    def after() -> Sequence[str]:
        raise error

    return Stream(name, extension, (Step(("echo",)),), after=after)


def read_up_to(plain: int, size: int) -> bytes:
    """The first bytes of a pipe, fewer than `size` only at its end."""
    parts = []
    while size > 0 and (part := os.read(plain, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


@contextlib.contextmanager
def server(step: Step, work: Work, is_ready: Callable[[], object], stop: Callable[[Work], object]) -> Iterator[None]:
    """A throw-away server: run it, wait until `is_ready` raises nothing, end it with `stop`, or else by force.

    It dies with us however we die. Raise BackupError with what it said when it ends early, and Stopped.
    """
    said: list[str] = []
    watched = replace(step, on_line=lambda line: said.append(line) if len(said) < 1000 else None)
    with contextlib.ExitStack() as stack:
        # A guard of its own: at the deadline the server must outlive what talks to it, for a clean end.
        guard = Guard()
        stack.callback(guard.close)
        null = stack.enter_context(open(os.devnull, "r+b"))
        group = stack.enter_context(Group(guard, work.redact))
        group.start(watched, null.fileno(), null.fileno())
        _await(is_ready, work, step.argv[0], said)
        try:
            yield
        finally:
            with cleaning_up(work, step.argv[0]) as cleanup, contextlib.suppress(BackupError):
                stop(cleanup)  # what it refuses is ended by force on the way out


_START_S = 60.0


def _await(is_ready: Callable[[], object], work: Work, program: str, said: Sequence[str]) -> None:
    tries = round(_START_S / _POLL_S)
    for at in range(tries):
        try:
            is_ready()
        except Stopped:
            raise
        except (BackupError, OSError) as error:
            if at == tries - 1:
                more = "; ".join([str(error), *said[-5:]])
                raise BackupError(f"{program}: a throw-away server did not start: {more}") from error
            work.guard.wait(_POLL_S)
        else:
            return


class Undo:
    """The list of what must be undone, written before it is done.

    Entries are JSON objects; they are compared as such.
    """

    def __init__(self, work: Work) -> None:
        # Not inside: a new run empties the scratch directory before it sweeps, and of a job with a user it lies in
        # /var/tmp under a name that no later run could know.
        self._path = work.undo_path or f"{work.scratch.rstrip('/')}.undo"

    def beside(self, name: str) -> str:
        """Path of a private file that outlives a killed run as the list does."""
        return os.path.join(os.path.dirname(self._path), name)

    def entries(self) -> list[dict[str, Any]]:
        """What is to be undone, oldest first. Raise SourceFailed when the list cannot be read."""
        try:
            with open(self._path, encoding="utf-8") as file:
                found = json.load(file)
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise SourceFailed(f"{self._path}: {error}; see what a killed run left, then remove the file") from error
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise SourceFailed(f"{self._path}: is no list of ours; remove it")
        return found

    def add(self, entry: Mapping[str, Any]) -> None:
        """Note it, lastingly: it may be done now."""
        self._write([*self.entries(), dict(entry)])

    def done(self, entry: Mapping[str, Any]) -> None:
        """It has been undone."""
        self._write([one for one in self.entries() if one != entry])

    def _write(self, entries: list[dict[str, Any]]) -> None:
        if not entries:
            remove_file(self._path)
            return
        os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        staging = f"{self._path}.new"
        with open(os.open(staging, _NEW_LIST, 0o600), "w", encoding="utf-8") as file:
            json.dump(entries, file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(staging, self._path)
        fsync_directory(os.path.dirname(self._path))
