"""The state directory: made private, and held by one agent at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os

PID_NAME = "lock"  # holds the process id, for the message to the second agent


class StateDirError(Exception):
    """The state directory cannot be used; the text says which and why."""


def claim(path: str) -> int:
    """Make `path` (0700) and lock it until the descriptor is closed or the process ends. Raise StateDirError.

    The directory itself is locked: one that is full or read-only takes no new file and is usable all the same.
    """
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise StateDirError(f"state_dir: {path}: {reason}; choose another with --state-dir") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise StateDirError(
            f"state_dir: {path}: in use by another agent (pid {_holder(path)}); stop it, "
            f"or choose another with --state-dir"
        ) from error
    with contextlib.suppress(OSError):
        _sign(path)
    return handle


def _holder(path: str) -> str:
    """The process id that the agent there wrote down."""
    try:
        with open(os.path.join(path, PID_NAME), encoding="ascii", errors="replace") as file:
            return file.read(32).strip() or "unknown"
    except OSError:
        return "unknown"


def _sign(path: str) -> None:
    with open(os.path.join(path, PID_NAME), "w", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")
