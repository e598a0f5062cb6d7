"""Anything else that Apprise knows, in a short-lived child process: the library takes 45 MB."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from agent.core.errors import Rejected, Retryable
from agent.core.options import option, required
from agent.core.secrets import Secret
from agent.core.units import Seconds
from alerting.notify import apprise_child, render
from alerting.notify.child import run_child
from alerting.notify.masking import masked
from alerting.notify.message import Notification, SentReceipt

_LONGEST_TEXT = 20_000  # Apprise cuts to what the service takes


@dataclass(slots=True)
class Apprise:
    """An Apprise address such as mailto://, matrix:// or gotify://."""

    url: Secret = required("Apprise's address of the service.")
    python: str = option("", "Python that has apprise installed; empty for the agent's own.")
    deadline: Seconds = option(30.0, "After this long it is ended.", minimum=1.0)

    kind: ClassVar[str] = "apprise"
    can_summarize: ClassVar[bool] = True

    def send(self, notification: Notification, previous: str | None) -> SentReceipt:  # noqa: ARG002
        message = {"url": self.url.reveal(), "title": render.title(notification),
                   "body": render.text(notification, _LONGEST_TEXT),
                   "type": "failure" if notification.status == "firing" else "success"}  # fmt: skip
        # -I: the directory of the script, where an email.py lies, must not become importable
        argv = [self.python or sys.executable, "-I", str(Path(apprise_child.__file__))]
        status, said = run_child(argv, json.dumps(message).encode(), self.deadline)
        said = masked(said, (self.url,))
        if status == 0:
            return SentReceipt(detail="sent by apprise")
        if status in apprise_child.FINAL:
            raise Rejected(f"apprise: {apprise_child.FINAL[status]}: {said}".rstrip(": "), kind=f"exit_{status}")
        reason = f"took longer than {self.deadline:g} s" if status is None else f"exited {status}: {said}"
        raise Retryable(f"apprise: {reason}".rstrip(": "), kind="deadline" if status is None else f"exit_{status}")

    def preview(self, notification: Notification) -> str:
        return f"{render.title(notification)}\n\n{render.text(notification, _LONGEST_TEXT)}"
