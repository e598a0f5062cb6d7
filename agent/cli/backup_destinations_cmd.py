"""`vigilhost backup destinations`: where jobs write on this host, as systemd must know it.

The service that runs jobs sees the whole host read-only but for its destinations.
"""

from __future__ import annotations

import os
import subprocess

import click

from agent.cli.backup_desk import Desk, with_desk
from backup.errors import BackupError
from backup.job import Job

DROP_IN = "/etc/systemd/system/vigilhost-backup@.service.d"
FILE = "destinations.conf"
_BOOTED = "/run/systemd/system"  # is there where systemd runs, as sd_booted(3) has it
_PRIVATE = ("/tmp/", "/var/tmp/")  # every process of the service has its own


@click.command()
@click.option("--install", is_flag=True, help=f"Write {DROP_IN}/{FILE}, and have systemd read it.")
@click.option("--into", default=DROP_IN, hidden=True, metavar="DIR")
@with_desk
def destinations(at: Desk, install: bool, into: str) -> None:
    """Print the drop-in with which the backup service may write where the jobs keep their copies."""
    text = drop_in(at.jobs_dir, list(at.jobs.values()), at.host)
    if not install:
        click.echo(text, nl=False)
        return
    file = os.path.join(into, FILE)
    try:
        os.makedirs(into, mode=0o755, exist_ok=True)
        part = f"{file}.part"
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644), "w") as output:
            os.fchmod(output.fileno(), 0o644)
            output.write(text)
        os.replace(part, file)
        if os.path.isdir(_BOOTED):
            subprocess.run(["systemctl", "daemon-reload"], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BackupError(f"{file}: {error}; run this as root") from error
    click.echo(f"written: {file}; runs that begin from now on may write there")


def drop_in(jobs_dir: str, jobs: list[Job], host: str) -> str:
    """The text of the drop-in: a line for each directory, with the jobs that write there."""
    writers: dict[str, list[str]] = {}
    for job in jobs:
        for entry in job.targets.values():
            for directory in entry.build(job=job.name, host=host).directories():
                if not f"{directory}/".startswith(_PRIVATE):
                    writers.setdefault(directory, []).append(job.name)
    lines = [f"# Where the jobs of {jobs_dir} write; `vigilhost backup destinations --install` writes this file anew.",
             "[Service]"]  # fmt: skip
    for directory, names in sorted(writers.items()):
        # The dash: a disk that is away is for the job to say, and no reason not to start.
        lines += [f"# {', '.join(dict.fromkeys(names))}", f"ReadWritePaths={_quoted(f'-{directory}')}"]
    return "\n".join(lines) + "\n"


def _quoted(path: str) -> str:
    """A path as a unit file has it: quoted, and no specifier."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
