"""What of this host nobody looks after: servers without a backup job, directories in none, units nobody watches."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from typing import Final

from agent.core.units import format_duration
from agent.doctor.servers import found
from backup.job import Job
from backup.schedule import cron_of, longest_gap

# Directories that people miss first, where there is anything in them.
_DIRECTORIES: Final = ("/etc", "/home", "/root", "/srv", "/var/www", "/opt")
_OF_PATHS: Final = ("files", "snapshot")


def uncovered(jobs: Mapping[str, Job], root: str = "/") -> Iterator[tuple[str, str]]:
    """Servers of the host at `root` that no job backs up: what, and what to do."""
    for thing in found(root):
        if not any(thing.is_covered_by(job.plugin.type, job.plugin.options) for job in jobs.values()):
            yield f"{thing.what} found ({thing.where}), and no job backs it up", f"see source {thing.source}"


def uncovered_directories(jobs: Mapping[str, Job], root: str = "/") -> list[str]:
    """Directories with something in them that no job copies, wholly or in part."""
    copied = [
        os.path.normpath(path)
        for job in jobs.values()
        if job.plugin.type in _OF_PATHS
        for path in job.plugin.options["paths"]
    ]
    return [path for path in _DIRECTORIES if _holds_anything(os.path.join(root, path.lstrip("/")))
            and not any(_is_part(path, other) or _is_part(other, path) for other in copied)]  # fmt: skip


def _is_part(path: str, of: str) -> bool:
    return of == "/" or path == of or path.startswith(of + "/")


def _holds_anything(directory: str) -> bool:
    try:
        with os.scandir(directory) as entries:
            return any(not entry.name.startswith(".") for entry in entries)
    except OSError:
        return False


def open_ends(job: Job) -> Iterator[str]:
    """What the job's file leaves open, in sentences."""
    if not job.enabled or cron_of(job.times.at) is None:
        yield "never runs by itself; see enabled and schedule"
    elif job.rpo is None and (gap := longest_gap(job.times, time.time())) is not None:
        yield f"has no rpo, so it is overdue only after {format_duration(2 * gap)}; write one like rpo: 26h"
    if job.drill is None:
        yield "is never drilled, so nobody knows that it restores; write a section drill"
    elif job.encryption.recipients and job.encryption.identity is None:
        yield "drill: is encrypted and has no encryption.identity here; drill on another host with --identity"
    if all(not entry.type.startswith(("rsync", "s3", "restic")) for entry in job.targets.values()):
        yield "every copy is on this host; add a target elsewhere"
