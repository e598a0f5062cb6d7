"""What is remembered of every job between runs: one small JSON file, replaced whole."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from backup.errors import BackupError
from backup.lasting import fsync_directory
from backup.schedule import History

FILE_NAME = "backup-runs.json"
VERSION = 1
_MOST_BYTES = 16 << 20


class _File(msgspec.Struct):
    version: int
    jobs: dict[str, History]


def load(path: str) -> tuple[dict[str, History], str | None]:
    """The history of each job, and what was wrong with the file; then there is none, and it is set aside.

    So is one of a newer version, which may mean something else by the same words. Without it nothing counts as missed:
    each job waits for its next slot. Raise BackupError when it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES)
    except FileNotFoundError:
        return {}, None
    except OSError as error:
        raise BackupError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    try:
        found = msgspec.json.decode(content, type=_File)
        if found.version > VERSION:
            raise msgspec.DecodeError(f"is of version {found.version}; this program reads up to {VERSION}")
    except msgspec.DecodeError as error:
        aside = f"{path}.corrupt"
        os.replace(path, aside)
        return {}, f"{path}: cannot be used ({error}); set aside as {aside}"
    return found.jobs, None


def save(path: str, histories: Mapping[str, History]) -> None:
    """Replace the file; after a power failure there is the old one or the new one. Raise BackupError."""
    part = f"{path}.part"
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(handle, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(_File(VERSION, dict(histories)))))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        fsync_directory(os.path.dirname(path))
    except OSError as error:
        raise BackupError(f"{path}: {(error.strerror or str(error)).lower()}") from error
