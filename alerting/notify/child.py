"""A short-lived child process in a process group of its own, ended as a whole at its deadline."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import BinaryIO, Final, cast

_SHOWN: Final = 500  # bytes of what it wrote
_MOST_HEARD: Final = 4 << 20  # bytes of what it writes that are read; after that it writes to a closed pipe
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run_child(
    argv: Sequence[str], stdin: bytes, deadline: float, environment: Mapping[str, str] | None = None
) -> tuple[int | None, str]:
    """Exit status (None: it was ended at the deadline) and the last of what it wrote.

    Its input is a file in memory, so that a child that reads nothing cannot stall us, and a full disk can be told of.
    """
    with os.fdopen(os.memfd_create("stdin"), "r+b") as given:
        given.write(stdin)
        given.seek(0)
        try:
            child = subprocess.Popen(
                list(argv), stdin=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
                cwd="/", env={"PATH": _PATH, "LANG": "C.UTF-8", **(environment or {})},
            )  # fmt: skip
        except OSError as error:
            return 127, str(error.strerror)
    with cast("BinaryIO", child.stdout) as output:
        try:
            in_time, last = _hear(child.pid, output, deadline)
        finally:
            # what a child that is done left running ends too; the child is not yet reaped, so the group is still ours
            _end_group(child.pid)
            status = child.wait()
    return status if in_time else None, " ".join(last.decode("utf-8", "replace").split())


def _hear(pid: int, output: BinaryIO, deadline: float) -> tuple[bool, bytes]:
    """Whether it ended in time, and the last of what it wrote, which is read as it comes: the pipe must not fill."""
    pipe, exited = output.fileno(), os.pidfd_open(pid)
    ends_at = time.monotonic() + deadline
    waiting, last, heard = [pipe, exited], b"", 0
    try:
        while ready := select.select(waiting, [], [], max(0.0, ends_at - time.monotonic()))[0]:
            if pipe not in ready:
                return True, last
            chunk = os.read(pipe, 65536)
            last, heard = (last + chunk)[-_SHOWN:], heard + len(chunk)
            if not chunk or heard > _MOST_HEARD:
                waiting.remove(pipe)
                output.close()
        return False, last
    finally:
        os.close(exited)


def _end_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass  # the usual case: nothing of it is left
