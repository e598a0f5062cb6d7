"""Files, directories and programs that nobody else can put something else in the place of."""

from __future__ import annotations

import os
import stat
from collections import deque

from backup.errors import Refused, TargetFailed

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_MOST_LINKS = 40  # as many as the kernel follows


def check_program(path: str) -> None:
    """Raise Refused unless `path` is an absolute path along which only root and we can write."""
    if not os.path.isabs(path):
        raise Refused(f"{path}: not an absolute path; write the program like /usr/bin/{os.path.basename(path)}")
    check_owned(path)


def check_owned(path: str) -> None:
    """Raise Refused unless only root and we can write to `path` and to every directory and link on the way to it."""
    done = "/"
    _check_part(done)
    words = deque(os.path.join(os.getcwd(), path).split("/"))
    links = 0
    while words:
        word = words.popleft()
        if word == "..":
            done = os.path.dirname(done)
        elif word not in ("", "."):
            here = os.path.join(done, word)
            if not stat.S_ISLNK(_check_part(here)):
                done = here
                continue
            # Who owns a link can let it point elsewhere later, whatever is at its end now.
            links += 1
            if links > _MOST_LINKS:
                raise Refused(f"{path}: leads through more than {_MOST_LINKS} links")
            to = os.readlink(here)
            done = "/" if to.startswith("/") else done
            words.extendleft(reversed(to.split("/")))


def check_destination(path: str) -> None:
    """As root raise TargetFailed unless `path` is root's alone.

    Who can rename something on the way there could have root write and delete elsewhere.
    """
    if os.geteuid() == 0:
        try:
            check_owned(path)
        except Refused as error:
            raise TargetFailed(str(error)) from error


def check_own_file(path: str) -> None:
    """The same for a configuration file, which must be no link either: what it says is done as root."""
    check_owned(os.path.dirname(path))
    mode = _check_part(path)
    if not stat.S_ISREG(mode):
        raise Refused(f"{path}: is {'a link' if stat.S_ISLNK(mode) else 'no regular file'}; put the file itself there")


def _check_part(part: str) -> int:
    """The mode of one file, directory or link that is not followed. Raise Refused."""
    try:
        found = os.lstat(part)
    except OSError as error:
        raise Refused(f"{part}: {(error.strerror or str(error)).lower()}; name one that exists") from error
    if found.st_uid not in {0, os.geteuid()}:
        raise Refused(f"{part}: owned by user {found.st_uid}; it must belong to root or to this user")
    # In a sticky directory (/tmp) others can add files, but not replace ours. A link's own mode means nothing.
    is_open = found.st_mode & _OTHERS_MAY_WRITE and not found.st_mode & stat.S_ISVTX
    if is_open and not stat.S_ISLNK(found.st_mode):
        raise Refused(f"{part}: others can write to it; chmod go-w it")
    return found.st_mode
