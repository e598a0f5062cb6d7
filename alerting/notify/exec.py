"""exec: a program of one's own gets the notification as JSON on its standard input.

Exit status 0 is delivered; 65 (bad data), 126 and 127 (cannot run) are final; any other is tried again.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import ClassVar

from agent.core.errors import Rejected, Retryable
from agent.core.options import option, required
from agent.core.secrets import Secret
from agent.core.units import Seconds
from alerting.notify.child import run_child
from alerting.notify.masking import masked
from alerting.notify.message import Notification, SentReceipt
from alerting.notify.payload import exec_json

_FINAL = frozenset({65, 126, 127})


@dataclass(slots=True)
class Exec:
    """A command as a list of arguments, never through a shell."""

    command: list[str] = required("Program (an absolute path) and its arguments.", example="[/usr/local/bin/page-me]")
    environment: dict[str, Secret] = option(dict, "Variables it gets besides PATH and LANG.")
    deadline: Seconds = option(30.0, "After this long it is ended, with all it started.", minimum=0.1)

    kind: ClassVar[str] = "exec"
    can_summarize: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.command or not os.path.isabs(self.command[0]):
            raise ValueError(
                f"exec.command: found {self.command!r}; a list that begins with an absolute path would be right"
            )

    def send(self, notification: Notification, previous: str | None) -> SentReceipt:  # noqa: ARG002
        check_owner(self.command[0])
        environment = {name: value.reveal() for name, value in self.environment.items()}
        status, said = run_child(self.command, exec_json(notification), self.deadline, environment)
        if status is None:
            raise Retryable(f"exec: {self.command[0]} took longer than {self.deadline:g} s", kind="deadline")
        if status == 0:
            return SentReceipt(detail="exit status 0")
        said = masked(said, self.environment.values())
        message = f"exec: {self.command[0]} exited {status}: {said}".rstrip(": ")
        if status in _FINAL:
            raise Rejected(message, kind=f"exit_{status}")
        raise Retryable(message, kind=f"exit_{status}")

    def preview(self, notification: Notification) -> str:
        return exec_json(notification).decode("utf-8", "replace")


def check_owner(path: str) -> None:
    """Raise Rejected when someone else could change what we run."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise Rejected(f"exec: {path}: {error.strerror}", kind="missing") from error
    if found.st_uid not in {0, os.geteuid()} or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Rejected(f"exec: {path}: must belong to root or to us, and be writable by nobody else", kind="owner")
