"""The manual's page on the options of backup jobs, made from the declarations:

`python -m agent.config.backup_reference > docs/backup-options.md`
"""

from __future__ import annotations

import sys

from agent.config.backup_jobs import REGISTRIES
from agent.config.reference import chapters
from backup.job import Job

_HEAD = """\
# Options of a backup job

This page is made from the declarations: `python -m agent.config.backup_reference > docs/backup-options.md`.

Each file of `/etc/vigilhost/backup.d` is a job with these options. Durations, sizes, variables and secrets are written
as in [the configuration](configuration.md). What the options are for is told in [backups](backup.md); jobs to copy
are in [the cookbook](backup-cookbook.md).
"""


def reference() -> str:
    """The page. Raise PluginError when one of our own sources or targets cannot be imported."""
    return "\n".join([_HEAD, *chapters(Job, REGISTRIES)]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
