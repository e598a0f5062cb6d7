"""The private directory that one run works in, emptied of what a killed one left there.

It lies in the state directory, which nobody else may enter. A job that runs its programs as another user gets one in
/var/tmp instead, which that user can reach and which, unlike /tmp, is not memory. It is that user's, and our group's:
we may be a root that cannot write everywhere. What the user's programs made in it, that user removes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator

from backup.children import PATH, identity, program, user_ids
from backup.errors import BackupError, Refused
from backup.trusted import check_owned

SHARED = "/var/tmp"
SHARED_MODE = 0o770  # of a directory that is the job's user's and our group's


def own_state(state_dir: str) -> None:
    """Make the state directory where it is missing; as root raise Refused unless it is root's alone.

    Who can rename something in it could have root empty, and fill, a directory elsewhere. Raise OSError.
    """
    os.makedirs(state_dir, mode=0o700, exist_ok=True)
    if os.geteuid() != 0:
        return
    try:
        check_owned(state_dir)
    except Refused as error:
        raise Refused(f"{error}; run this as the agent's user, start vigilhost-backup.socket, or name a directory of "
                      "root's with --state-dir") from error  # fmt: skip


@contextlib.contextmanager
def workspace(state_dir: str, job: str, user: str | None) -> Iterator[str]:
    """An empty directory for a run of `job`, whose lock we hold; removed afterwards. Raise BackupError."""
    try:
        own_state(state_dir)
        if user is None or user_ids(user)[0] == os.geteuid():
            path = os.path.join(state_dir, "scratch", job)
            _clear(path, {os.geteuid()})
            os.makedirs(path, mode=0o700)
        else:
            path = _shared(shared_prefix(state_dir, job), user)
    except OSError as error:
        raise BackupError(f"{error.filename or state_dir}: {(error.strerror or str(error)).lower()}") from error
    try:
        yield path
    finally:
        _remove(path)


def undo_path(state_dir: str, job: str) -> str:
    """File in which a run of `job` notes what must be undone; the next run finds it, whoever its programs run as."""
    return os.path.join(state_dir, "scratch", f"{job}.undo")


def shared_prefix(state_dir: str, job: str) -> str:
    """How the names of a job's directories in `SHARED` begin. Its lock is the state directory's, so they are too."""
    # No job's name has a dot, so that none's prefix is part of another's.
    return f"vigilhost.{job}.{hashlib.sha256(os.path.realpath(state_dir).encode()).hexdigest()[:8]}."


def _shared(prefix: str, user: str) -> str:
    owner = user_ids(user)
    for name in os.listdir(SHARED):
        if name.startswith(prefix):
            _clear(os.path.join(SHARED, name), {os.geteuid(), owner[0]})
    path = tempfile.mkdtemp(prefix=prefix, dir=SHARED)
    if os.geteuid() == 0:
        os.chmod(path, SHARED_MODE)
        os.chown(path, owner[0], os.getegid())
    return path


def _clear(path: str, owners: set[int]) -> None:
    """Remove a directory of ours; anybody may have made something of that name in a shared one, which stays."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(found.st_mode) and found.st_uid in owners:
        _remove(path)
        if os.path.lexists(path):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)


def _remove(path: str) -> None:
    """Remove it whole, as far as that can be done."""
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError, KeyError, BackupError):
        owner = os.lstat(path).st_uid
        if owner != os.geteuid() == 0:
            # Directories that the user's programs made, in which this root may not write.
            subprocess.run(
                [program("setpriv"), *identity(pwd.getpwuid(owner).pw_name), "--", "rm", "-rf", "--", path], cwd="/",
                env={"PATH": PATH}, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
            )  # fmt: skip
            shutil.rmtree(path, ignore_errors=True)
