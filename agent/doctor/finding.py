"""The words of the doctor: a Finding, and what a page of them comes to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

Level = Literal["ok", "note", "warn", "fail", "unknown"]

_NOT_OURS: Final = "cannot be read: permission denied"
EXIT_WELL: Final = 0
EXIT_SOMETHING_TO_DO: Final = 1
EXIT_CANNOT_TELL: Final = 2


class Finding(NamedTuple):
    """One thing that was looked at.

    `note`: worth knowing, nothing wrong. `unknown`: could not be looked at. `advice` says what to do, "" where there
    is nothing to do.
    """

    level: Level
    subject: str
    text: str
    advice: str = ""


def refused(subject: str, text: str, advice: str) -> Finding:
    """A file that is not taken, and why; one that this user may not read says nothing about the file."""
    if _NOT_OURS in text and os.geteuid() != 0:
        return Finding("unknown", subject, text, "run as root")
    return Finding("fail", subject, text, advice)


def exit_status(findings: Sequence[Finding]) -> int:
    """0 well, 1 something to do, 2 nothing wrong was seen but not everything could be looked at."""
    levels = {finding.level for finding in findings}
    if levels & {"warn", "fail"}:
        return EXIT_SOMETHING_TO_DO
    return EXIT_CANNOT_TELL if "unknown" in levels else EXIT_WELL
