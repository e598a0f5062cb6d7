"""What can go wrong with a backup. The text of each is for the operator: where, what was found, what would be right."""

from __future__ import annotations

from agent.core.errors import VigilhostError


class BackupError(VigilhostError):
    """A backup, a verification or a restore did not do what it was asked."""


class SourceFailed(BackupError):
    """What should be backed up cannot be read, or the program that reads it failed."""


class TargetFailed(BackupError):
    """A target did not take, keep or give back what it should."""


class Damaged(BackupError):
    """What is stored is not what was backed up: a bit flipped, bytes are missing, or somebody wrote to it."""


class Undecodable(Damaged):
    """The stored bytes are those that were written, and yet they cannot be decoded: what was written was wrong."""


class Refused(BackupError):
    """Doing it would harm: a target that is not empty, a member that leads outside, a copy that is not verified."""


class Stopped(BackupError):
    """The work was ended from outside: its deadline passed, or somebody asked it to stop."""
