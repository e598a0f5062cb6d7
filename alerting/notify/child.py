"""A short-lived child process in a process group of its own, ended as a whole at its deadline."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

_SHOWN = 500  # characters of what it wrote
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run_child(
    argv: Sequence[str], stdin: bytes, deadline: float, environment: Mapping[str, str] | None = None
) -> tuple[int | None, str]:
    """Exit status (None: it was ended at the deadline) and the last of what it wrote.

    Files take input and output, so that a child that reads or writes nothing, or without end, cannot stall us.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as written:
        given.write(stdin)
        given.seek(0)
        try:
            child = subprocess.Popen(
                list(argv), stdin=given, stdout=written, stderr=written, start_new_session=True, cwd="/",
                env={"PATH": _PATH, "LANG": "C.UTF-8", **(environment or {})},
            )  # fmt: skip
        except OSError as error:
            return 127, str(error.strerror)
        exited = os.pidfd_open(child.pid)
        try:
            in_time = bool(select.select([exited], [], [], deadline)[0])
        finally:
            os.close(exited)
            # what a child that is done left running ends too; the child is not yet reaped, so the group is still ours
            _end_group(child.pid)
            status = child.wait()
        size = written.seek(0, os.SEEK_END)
        written.seek(max(0, size - _SHOWN))
        return status if in_time else None, " ".join(written.read(_SHOWN).decode("utf-8", "replace").split())


def _end_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass  # the usual case: nothing of it is left
