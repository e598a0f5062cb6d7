"""Paths of an installed agent that more than one part of it knows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

CONFIG_FILE: Final = "/etc/vigilhost/vigilhost.yaml"
JOBS_DIRECTORY: Final = "/etc/vigilhost/backup.d"
BACKUP_SOCKET: Final = "/run/vigilhost-backup.sock"
DRILL_SOCKET: Final = "/run/vigilhost-drill.sock"
BACKUP_STATE: Final = "/var/lib/vigilhost-backup"  # locks, scratch space and reports of the jobs that root runs


def beside(config_files: Sequence[str], name: str) -> str:
    """What stands beside the configuration. `config_files`: those that were read, the main one first."""
    directory = os.path.dirname(config_files[0] if config_files else CONFIG_FILE)
    if os.path.basename(directory) == "conf.d":  # there is no main file
        directory = os.path.dirname(directory)
    return os.path.join(directory, name)


def backup_socket(configured: str | None, jobs_dir: str) -> str | None:
    """The socket that jobs are run through; None: they are our own children.

    The helper behind the socket knows the jobs of /etc alone, so an agent with others runs those itself.
    """
    if configured is not None:
        return configured
    is_installed = os.path.abspath(jobs_dir) == JOBS_DIRECTORY and os.path.exists(BACKUP_SOCKET)
    return BACKUP_SOCKET if is_installed else None
