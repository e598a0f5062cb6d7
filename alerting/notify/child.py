"""A short-lived child process in a process group of its own, ended as a whole at its deadline."""

from __future__ import annotations

import os
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
        try:
            status: int | None = child.wait(deadline)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end_group(child.pid)  # also what a child that is done left running
            child.wait()
        size = written.seek(0, os.SEEK_END)
        written.seek(max(0, size - _SHOWN))
        return status, " ".join(written.read(_SHOWN).decode("utf-8", "replace").split())


def _end_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass  # the usual case: nothing of it is left
