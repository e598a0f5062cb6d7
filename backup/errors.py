"""What can go wrong with a backup. The text of each is for the operator: where, what was found, what would be right."""

from __future__ import annotations

import os

from agent.core.errors import VigilhostError


class BackupError(VigilhostError):
    """A backup, a verification or a restore did not do what it was asked."""


class SourceFailed(BackupError):
    """What should be backed up cannot be read, or the program that reads it failed."""


class TargetFailed(BackupError):
    """A target did not take, keep or give back what it should."""


class Forbidden(TargetFailed):
    """The target answers, and whoever we are to it may not do this: asking again does not help."""


class Absent(TargetFailed):
    """The target answers, and has no object of that name."""


class Damaged(BackupError):
    """What is stored is not what was backed up: a bit flipped, bytes are missing, or somebody wrote to it."""


class Undecodable(Damaged):
    """The stored bytes are those that were written, and yet they cannot be decoded: what was written was wrong."""


class Refused(BackupError):
    """Not done, so that nothing is known of what it was about: doing it would harm, or what it needs is not there.

    A target that is not empty, a member that leads outside, a key that is not the right one, a helper that is away.
    """


class Stopped(BackupError):
    """The work was ended from outside: its deadline passed, or somebody asked it to stop."""


def of_os(error: OSError) -> str:
    """What the system said, for the operator: `path: reason`, or the reason where no path is known."""
    reason = (error.strerror or str(error)).lower()
    return reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"


def reason(error: Exception) -> str:
    """What went wrong, in a sentence."""
    return of_os(error) if isinstance(error, OSError) else str(error)
