"""The private directory that one run works in, emptied of what a killed one left there.

It lies in the state directory, which nobody else may enter. A job that runs its programs as another user gets one in
/var/tmp instead, which that user can reach and which, unlike /tmp, is not memory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator

from backup.children import user_ids
from backup.errors import BackupError

SHARED = "/var/tmp"


@contextlib.contextmanager
def workspace(state_dir: str, job: str, user: str | None) -> Iterator[str]:
    """An empty directory for a run of `job`, whose lock we hold; removed afterwards. Raise BackupError."""
    try:
        if user is None or user_ids(user)[0] == os.geteuid():
            path = os.path.join(state_dir, "scratch", job)
            _clear(path, {os.geteuid()})
            os.makedirs(path, mode=0o700)
        else:
            path = _shared(job, user)
    except OSError as error:
        raise BackupError(f"{error.filename or state_dir}: {(error.strerror or str(error)).lower()}") from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _shared(job: str, user: str) -> str:
    # No job's name has a dot, so that none's prefix is part of another's.
    prefix = f"vigilhost.{job}."
    owner = user_ids(user)
    for name in os.listdir(SHARED):
        if name.startswith(prefix):
            _clear(os.path.join(SHARED, name), {os.geteuid(), owner[0]})
    path = tempfile.mkdtemp(prefix=prefix, dir=SHARED)
    if os.geteuid() == 0:
        os.chown(path, *owner)
    return path


def _clear(path: str, owners: set[int]) -> None:
    """Remove a directory of ours; anybody may have made something of that name in a shared one, which stays."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(found.st_mode) and found.st_uid in owners:
        shutil.rmtree(path)
