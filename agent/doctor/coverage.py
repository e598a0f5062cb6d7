"""What of this host nobody looks after: servers without a backup job, directories in none, units nobody watches."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from typing import Final

from backup.job import Job
from backup.schedule import cron_of

# Where servers listen or keep their data on a Debian host, and the sources that back them up.
_SERVERS: Final = (
    ("PostgreSQL", "/run/postgresql/.s.PGSQL.[0-9]*[0-9]", "postgresql"),
    ("MySQL or MariaDB", "/run/mysqld/mysqld.sock", "mysql"),
    ("Redis", "/run/redis/*.sock", "redis"),
    ("Redis", "/var/lib/redis/dump.rdb", "redis"),
    ("LXD", "/var/snap/lxd/common/lxd/unix.socket", "lxd"),
    ("LXD", "/var/lib/lxd/unix.socket", "lxd"),
    ("libvirt domains", "/etc/libvirt/qemu/*.xml", "vm_image"),
    ("docker volumes", "/var/lib/docker/volumes/*/_data", "docker_volume"),
)
# Directories that people miss first, where there is anything in them.
_DIRECTORIES: Final = ("/etc", "/home", "/root", "/srv", "/var/www", "/opt")
_OF_PATHS: Final = ("files", "snapshot")


def uncovered(jobs: Mapping[str, Job], root: str = "/") -> Iterator[tuple[str, str]]:
    """Servers found below `root` that no job backs up: what, and what to do."""
    covered = {job.plugin.type for job in jobs.values()}
    seen = set()
    for what, pattern, source in _SERVERS:
        found = sorted(glob.glob(os.path.join(root, pattern.lstrip("/"))))
        if found and source not in covered and what not in seen:
            seen.add(what)
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            yield f"{what} found ({found[0]}{more}), and no job backs it up", f"see source {source}"


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
    if job.rpo is None:
        yield "has no rpo, so nobody is told when it stops; write one like rpo: 26h"
    if job.drill is None:
        yield "is never drilled, so nobody knows that it restores; write a section drill"
    elif job.encryption.recipients and job.encryption.identity is None:
        yield "drill: is encrypted and has no encryption.identity here; drill on another host with --identity"
    if all(not entry.type.startswith(("rsync", "s3", "restic")) for entry in job.targets.values()):
        yield "every copy is on this host; add a target elsewhere"
