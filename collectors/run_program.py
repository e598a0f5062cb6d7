"""One program run to its end or to its deadline, its whole process group gone afterwards."""

from __future__ import annotations

import os
import selectors
import signal
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from agent.core.errors import SourceError
from agent.core.units import format_duration, format_size

GRACE = 1.0  # seconds between SIGTERM and SIGKILL
UNKILLABLE = 2.0  # seconds a killed program may take to go; one in uninterruptible sleep takes longer
_STDERR_KEPT = 4096  # bytes; the rest is read and dropped, so that the program does not block
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Finished:
    """What a program left: its exit status, negative for the signal that ended it, and what it printed."""

    status: int
    stdout: bytes
    stderr: bytes

    def complaint(self) -> str:
        """The last line of stderr, for an error message; "" when it said nothing."""
        lines = self.stderr.decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")[:300]


class StillRunning(SourceError):
    """The program could not be killed; `child` is to be asked for its end before it is started again."""

    def __init__(self, message: str, child: subprocess.Popen[bytes]) -> None:
        super().__init__(message)
        self.child = child


def check_program(path: str) -> None:
    """Raise SourceError unless `path` is a program that nobody but root and this user can change."""
    if not os.path.isabs(path):
        raise SourceError(f"{path}: not an absolute path; there is no search in PATH")
    for part in (path, os.path.dirname(os.path.realpath(path))):
        try:
            found = os.stat(part)
        except OSError as error:
            raise SourceError(f"{part}: {os.strerror(error.errno or 0).lower()}") from error
        if part == path and not (stat.S_ISREG(found.st_mode) and os.access(path, os.X_OK)):
            raise SourceError(f"{path}: not an executable file")
        if found.st_uid not in {0, os.geteuid()}:
            raise SourceError(f"{part}: owned by user {found.st_uid}; it must belong to root or to this user")
        is_shared = bool(found.st_mode & stat.S_ISVTX) and stat.S_ISDIR(found.st_mode)
        if found.st_mode & _OTHERS_MAY_WRITE and not is_shared:
            mode = stat.S_IMODE(found.st_mode)
            raise SourceError(f"{part}: others may write to it (mode {mode:04o}); run chmod go-w on it")


def run_program(argv: Sequence[str], environment: Mapping[str, str], deadline: float, most_output: int) -> Finished:
    """Run `argv` in a session of its own, without stdin, in `/`, with this environment only.

    Whatever it leaves running in its process group is killed. Raise SourceError when it cannot be started, is not done
    after `deadline` seconds, or prints more than `most_output` bytes; StillRunning when it did not even go when killed.
    """
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
            cwd="/",
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else str(error)
        raise SourceError(f"{argv[0]}: cannot be started: {reason}") from error
    try:
        reader = _Reader(child, most_output)
    except OSError as error:  # out of descriptors
        _end(child)
        raise SourceError(f"{argv[0]}: cannot be watched: {os.strerror(error.errno or 0).lower()}") from error
    try:
        reader.read_until(time.monotonic() + deadline)
        is_late = not reader.is_over and not reader.has_flooded
        if is_late:
            _signal_group(child.pid, signal.SIGTERM)
            # Its pipes are read on: a message that nobody takes would end it before it has cleaned up.
            reader.read_until(time.monotonic() + GRACE)
    finally:
        reader.close()
        _end(child)
    if is_late:
        raise SourceError(f"not done within {format_duration(deadline)}; killed")
    if reader.has_flooded:
        raise SourceError(f"printed more than {format_size(most_output)}; killed")
    return Finished(child.returncode, b"".join(reader.stdout), bytes(reader.stderr))


class _Reader:
    """Takes in what the child prints until it ends, floods, or time is up.

    The end is the child's own, not that of its pipes: a background process it left may hold them open for ever.
    """

    def __init__(self, child: subprocess.Popen[bytes], most: int) -> None:
        assert child.stdout is not None
        assert child.stderr is not None
        self.stdout: list[bytes] = []
        self.stderr = bytearray()
        self.is_over = False
        self.has_flooded = False
        self._left = most
        self._pipes: list[IO[bytes]] = [child.stdout, child.stderr]
        self._selector = selectors.DefaultSelector()
        try:
            self._pid_fd = os.pidfd_open(child.pid)
        except OSError:
            self._selector.close()
            raise
        self._selector.register(self._pid_fd, selectors.EVENT_READ)
        for pipe in self._pipes:
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, selectors.EVENT_READ)

    def read_until(self, deadline: float) -> None:
        while not self.is_over and not self.has_flooded:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            for key, _ in self._selector.select(left):
                if key.fileobj == self._pid_fd:
                    self.is_over = True
                elif not self._take(key.fileobj):  # type: ignore[arg-type]
                    self._selector.unregister(key.fileobj)
        if self.is_over:
            for pipe in self._pipes:
                while self._take(pipe) and not self.has_flooded:
                    pass

    def _take(self, pipe: IO[bytes]) -> bool:
        """Read what is there; False when there is nothing (more)."""
        try:
            chunk = os.read(pipe.fileno(), 65536)
        except BlockingIOError:
            return False
        if pipe is self._pipes[1]:
            self.stderr += chunk
            del self.stderr[:-_STDERR_KEPT]
        else:
            self._left -= len(chunk)
            self.has_flooded = self._left < 0
            self.stdout.append(chunk)
        return bool(chunk)

    def close(self) -> None:
        self._selector.close()
        os.close(self._pid_fd)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the child's process group, and reap the child. Raise StillRunning when it does not go."""
    # Until it is waited for, the child's id, which is also the group's, belongs to nobody else.
    _signal_group(child.pid, signal.SIGKILL)
    for pipe in (child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
    try:
        child.wait(UNKILLABLE)
    except subprocess.TimeoutExpired:
        raise StillRunning(f"{format_duration(UNKILLABLE)} after SIGKILL it is still there", child) from None


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass  # nobody is left, or only someone who changed user, whom we may not end
