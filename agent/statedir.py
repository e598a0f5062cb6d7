"""The state directory: made private, and held by one agent at a time."""

from __future__ import annotations

import fcntl
import os

LOCK_NAME = "lock"


class StateDirError(Exception):
    """The state directory cannot be used; the text says which and why."""


def claim(path: str) -> int:
    """Make `path` (0700) and lock it until the descriptor is closed or the process ends. Raise StateDirError."""
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        handle = os.open(os.path.join(path, LOCK_NAME), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise StateDirError(f"state_dir: {path}: {reason}; choose another with --state-dir") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(handle)
        raise StateDirError(
            f"state_dir: {path}: in use by another agent (pid {holder}); stop it, or choose another with --state-dir"
        ) from error
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    return handle
