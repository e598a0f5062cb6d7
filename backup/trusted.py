"""Programs that a job names itself: nobody else may be able to replace them."""

from __future__ import annotations

import os
import stat

from backup.errors import Refused

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def check_program(path: str) -> None:
    """Raise Refused unless `path` is an absolute path along which only root and we can write."""
    if not os.path.isabs(path):
        raise Refused(f"{path}: not an absolute path; write the program like /usr/bin/{os.path.basename(path)}")
    part = os.path.realpath(path)
    while True:
        try:
            found = os.stat(part)
        except OSError as error:
            raise Refused(f"{part}: {(error.strerror or str(error)).lower()}; name a program that exists") from error
        if found.st_uid not in {0, os.geteuid()}:
            raise Refused(f"{part}: owned by user {found.st_uid}; it must belong to root or to this user")
        # In a sticky directory (/tmp) others can add files, but not replace ours.
        if found.st_mode & _OTHERS_MAY_WRITE and not found.st_mode & stat.S_ISVTX:
            raise Refused(f"{part}: others can write to it; chmod go-w it")
        if part == "/":
            return
        part = os.path.dirname(part)
