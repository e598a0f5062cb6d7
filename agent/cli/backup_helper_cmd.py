"""`vigilhost backup-helper`: what systemd starts for each connection to vigilhost-backup.socket.

It runs as root so that the agent need not. Nothing that the agent could have written is believed: it may name a job,
and the job's file must be one that only root can write.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import NamedTuple

import click

from agent.cli.backup_desk import Desk, of_problems
from agent.config import load_hostname
from agent.config.backup_jobs import load_job
from agent.core.problems import ConfigError
from agent.places import BACKUP_STATE, DRILL_SOCKET, JOBS_DIRECTORY
from backup import served
from backup.errors import BackupError, Refused
from backup.job import Job
from backup.served import Request
from backup.trusted import check_own_file, check_owned
from backup.worker import refusal

EXIT_REFUSED = 2


@click.command("backup-helper", hidden=True)
@click.option("--config", metavar="FILE", help="Configuration of the agent, for the name of this host.")
@click.option("--jobs", "jobs_dir", metavar="DIR", default=JOBS_DIRECTORY, show_default=True,
              help="Directory of the jobs; only root may be able to write there.")  # fmt: skip
@click.option("--state-dir", metavar="DIR", help=f"Directory for locks and reports of drills.  [default: "
              f"$STATE_DIRECTORY or {BACKUP_STATE}]")  # fmt: skip
@click.option("--user", "names", multiple=True, default=("vigilhost",), show_default=True,
              help="Who may ask, beside root.")  # fmt: skip
@click.option("--drill-socket", metavar="PATH", default=DRILL_SOCKET, show_default=True,
              help="Where archives are handed over to be drilled; a child does it where that is missing.")  # fmt: skip
def backup_helper(config: str | None, jobs_dir: str, state_dir: str | None, names: tuple[str, ...],
                  drill_socket: str) -> None:  # fmt: skip
    """Carry out one request (`run JOB`, `drill JOB`) of the connection that systemd accepted.

    Answers with JSON lines, as backup-worker writes them, and {"event": "exit", "code": 0} last.
    """
    os.umask(0o077)
    state_dir = state_dir or os.environ.get("STATE_DIRECTORY", "").split(":")[0] or BACKUP_STATE
    try:
        connection = served.handed_over()
    except BackupError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_REFUSED)
    code = _serve(connection, _Places(config, jobs_dir, state_dir, drill_socket), names)
    # What is left is to say so; that the other side then goes away is no reason to be ended.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    served.answer(connection, {"event": "exit", "code": code})
    served.hang_up(connection)
    sys.exit(code)


class _Places(NamedTuple):
    """Where everything is, as the options say."""

    config: str | None
    jobs_dir: str
    state_dir: str
    drill_socket: str


def _serve(connection: socket.socket, places: _Places, names: tuple[str, ...]) -> int:
    job = ""
    try:
        request = served.read_request(connection, served.users(names))
        job = request.job
        at = _desk(request, places)
    except (BackupError, ConfigError) as error:
        text = of_problems(error) if isinstance(error, ConfigError) else str(error)
        click.echo(f"refused: {text}", err=True)
        served.answer(connection, refusal(job, "fail", text))
        return EXIT_REFUSED
    click.echo(f"{request.verb} {job}: asked by user {request.uid}", err=True)
    served.end_with(connection)
    code = _carry_out(at, request, connection.fileno())
    click.echo(f"{request.verb} {job}: exit status {code}", err=True)
    return code


def _desk(request: Request, places: _Places) -> Desk:
    """The one job. Raise Refused, ConfigError."""
    host, files = load_hostname(places.config)
    for file in files:
        check_own_file(file)
    job = _job(places.jobs_dir, request.job)
    return Desk(places.jobs_dir, places.state_dir, host, host, {job.name: job}, drill_socket=places.drill_socket)


def _job(directory: str, name: str) -> Job:
    """A job, from a file that is root's along its whole path. Raise Refused, ConfigError."""
    check_owned(directory)
    file = os.path.join(directory, f"{name}.yaml")
    if not os.path.lexists(file):
        raise Refused(f"{name}: no such job in {directory}")
    check_own_file(file)
    return load_job(file)[0]


def _carry_out(at: Desk, request: Request, output: int) -> int:
    job = at.jobs[request.job]
    if request.verb == "drill":
        from agent.cli.backup_drill import work_drill

        return work_drill(at, job, output=output)
    if job.heartbeat is not None:
        from agent.backup_heartbeat import work
    else:
        from backup.worker import work

    return work(job, host=at.host, state_dir=at.state_dir, output=output)
