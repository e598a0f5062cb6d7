"""What the commands of `vigilhost backup` have in common: jobs, their targets, which backup is meant, exit codes."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, NoReturn

import click

from agent import backup_results
from agent.config.backup_jobs import load_jobs
from agent.core.problems import ConfigError
from agent.places import BACKUP_STATE, DRILL_SOCKET, JOBS_DIRECTORY, backup_socket
from backup import catalogue
from backup.assertions import moment
from backup.catalogue import Catalogue
from backup.children import Guard
from backup.errors import BackupError, TargetFailed, reason
from backup.job import Job
from backup.manifest import Manifest
from backup.redact import Redactor, secrets_in
from backup.source import Source, Work
from backup.target import Target, safe_word
from backup.verify import identity_of
from backup.worker import BUSY, FAILED, lock
from backup.workspace import undo_path, workspace

LATEST = "latest"


@dataclass(frozen=True, slots=True)
class Place:
    """A target of a job, as it can be used now."""

    name: str
    target: Target
    known: Catalogue


@dataclass(frozen=True, slots=True)
class Found:
    """A backup that somebody named, and where it is."""

    job: Job
    place: Place
    manifest: Manifest


class Busy(BackupError):
    """Somebody else works on the job; trying again later helps."""


class Desk:
    """The jobs of this host. `host`: whose backups are meant; another name than our own only reads.

    `socket`: where the agent has jobs run as root; then locks, scratch space and reports are those of that helper, and
    the state directory is the agent's, which learns there what became of a job. None: all is in the state directory.
    `drill_socket`: where archives are handed over to be drilled; None: to a child.
    """

    def __init__(self, jobs_dir: str, state_dir: str, host: str, own_host: str, jobs: dict[str, Job], *,
                 socket: str | None = None, drill_socket: str | None = None) -> None:  # fmt: skip
        self.jobs_dir = jobs_dir
        self.state_dir = os.path.abspath(state_dir)
        self.socket = socket
        self.drill_socket = drill_socket if drill_socket and os.path.exists(drill_socket) else None
        self.work_dir = self.state_dir if socket is None or os.geteuid() != 0 else BACKUP_STATE
        self.host = host
        self.is_own = host == own_host
        self.jobs = jobs
        self.problems: list[str] = []

    def job(self, name: str) -> Job:
        """The job of that name; the command ends when there is none."""
        if name not in self.jobs:
            wrong(f"{name}: no such job in {self.jobs_dir}; there are: {', '.join(self.jobs) or 'none'}")
        return self.jobs[name]

    def chosen(self, names: Sequence[str], target: str | None = None) -> list[Job]:
        """The jobs of these names, or all; with `target`, those that have it. The command ends when none has."""
        found = [self.job(name) for name in names] if names else list(self.jobs.values())
        having = [job for job in found if target is None or target in job.targets]
        if found and not having:
            known = sorted({name for job in found for name in job.targets})
            wrong(f"{target}: no such target; there are: {', '.join(known)}")
        return having

    def source(self, job: Job) -> Source:
        source: Source = job.plugin.build(job=job.name, host=self.host)
        return source

    def prefix(self, job: Job) -> str:
        return f"{safe_word(self.host)}/{job.name}"

    def places(self, job: Job, only: str | None = None) -> Iterator[Place]:
        """The targets, or that of the name, that can be read; why others cannot is said."""
        for name, entry in job.targets.items():
            if only not in (None, name):
                continue
            try:
                target: Target = entry.build(job=job.name, host=self.host)
                known = catalogue.read(target, self.prefix(job), job.manifest_key)
            except (BackupError, ValueError, OSError) as error:
                self.problem(f"{job.name}: {name}: {redactor(job)(reason(error))}")
                continue
            for sentence in known.damaged:
                self.problem(f"{job.name}: {name}: {sentence}")
            yield Place(name, target, known)

    def problem(self, text: str) -> None:
        """Say what is wrong; the command goes on, and ends with 1."""
        self.problems.append(text)
        click.echo(text, err=True)

    def find(self, words: Sequence[str], at: float | None, only: str | None = None) -> list[Found]:
        """The backup that `JOB`, `JOB ID`, `ID` or `latest` mean, on each target that has it, the first target first.

        The command ends when there is none, or when more than one job is meant.
        """
        words = list(words) or [LATEST]
        named = words[0] in self.jobs
        if len(words) > 2 or (len(words) == 2 and not named):
            wrong(f"{' '.join(words)}: write a job, a backup's id, or a job and an id (or latest)")
        wanted = words[-1] if not named or len(words) == 2 else LATEST
        jobs = self.chosen(words[:1] if named else (), only)
        if wanted == LATEST and len(jobs) != 1:
            wrong(f"which job? there are: {', '.join(self.jobs) or f'none in {self.jobs_dir}'}")
        if at is not None and wanted != LATEST:
            wrong("--at finds a backup by its time; leave out the id")
        found = list(self._matching(jobs, wanted, at, only))
        # Each target may hold other backups; the newest of all is meant.
        if not found:
            raise TargetFailed(self._nothing(jobs, wanted, at, only))
        best = max(found, key=lambda one: one.manifest.finished_at).manifest.id if wanted == LATEST else None
        chosen = [one for one in found if best in (None, one.manifest.id)]
        if len({one.manifest.id for one in chosen}) > 1:
            raise TargetFailed(f"{wanted}: more than one backup begins so")
        return chosen

    def _nothing(self, jobs: Sequence[Job], wanted: str, at: float | None, only: str | None) -> str:
        """Why a question found no backup, and what there is instead."""
        if wanted != LATEST:
            known = ", ".join(self.jobs) or "none"
            return f"{wanted}: no backup's id begins so, and no job is called so; jobs: {known}"
        complete = [one for job in jobs for place in self.places(job, only) for one in place.known.manifests
                    if one.is_complete]  # fmt: skip
        if at is None or not complete:
            return f"{jobs[0].name}: there is no complete backup of {self.host}"
        first = min(complete, key=lambda one: one.finished_at)
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(first.finished_at))
        return f"{first.job}: there is no complete backup of that time or before; the oldest is {first.id}, of {when}"

    def _matching(self, jobs: Sequence[Job], wanted: str, at: float | None, only: str | None) -> Iterator[Found]:
        for job in jobs:
            for place in self.places(job, only):
                if wanted == LATEST:
                    with contextlib.suppress(TargetFailed):
                        yield Found(job, place, place.known.find(LATEST, at))
                else:
                    matching = (one for one in place.known.manifests if one.id.startswith(wanted))
                    yield from (Found(job, place, one) for one in matching)

    @contextlib.contextmanager
    def hold(self, job: Job) -> Iterator[None]:
        """Nobody else works on the job meanwhile. Raise Busy when somebody does."""
        with lock(self.work_dir, job.name) as is_ours:
            if not is_ours:
                raise Busy(f"{job.name}: runs now; wait for it to end")
            yield

    @contextlib.contextmanager
    def work(self, job: Job, guard: Guard) -> Iterator[Work]:
        """The job is held, and there is space to work in."""
        with self.hold(job), workspace(self.work_dir, job.name, job.user) as scratch:
            try:
                yield Work(scratch, guard, redactor(job), job.user, undo_path=undo_path(self.work_dir, job.name))
            finally:
                guard.close()

    def known(self, job: Job) -> backup_results.Result | None:
        """What the last run and drill came to; None where nobody knows, and of another host's jobs."""
        return backup_results.load(self.state_dir, job.name) if self.is_own else None

    def remember(self, job: Job, change: Callable[[backup_results.Result], None]) -> None:
        """Let the daemon's readings know; a state directory that does not take it is said, and no failure."""
        if not self.is_own:
            return
        now = time.time()
        result = backup_results.load(self.state_dir, job.name) or backup_results.Result(now)
        change(result)
        try:
            backup_results.save(self.state_dir, job.name, result)
        except OSError as error:
            error.filename = error.filename or self.state_dir
            click.echo(f"warning: {reason(error)}; the agent does not learn of this", err=True)

    def end(self) -> NoReturn:
        """0, or 1 when something was wrong."""
        sys.exit(FAILED if self.problems else 0)


def redactor(job: Job) -> Redactor:
    """What keeps the job's secrets out of everything that is said."""
    secret = [job.plugin.options, job.manifest_key, *(entry.options for entry in job.targets.values())]
    return Redactor(secrets_in(secret))


def key_of(job: Job, identity: str | None) -> str | None:
    """The file with the private key: the one given, or the job's. Raise BackupError when it cannot be read."""
    # Programs run in another directory than ours.
    return identity_of(os.path.abspath(identity) if identity is not None else job.encryption.identity)


def moment_of(when: str | None) -> float | None:
    """The Unix seconds that `--at` means; the command ends when it is no time."""
    if when is None:
        return None
    try:
        return moment(when)
    except ValueError as error:
        wrong(f"--at: {error}; write it like 2026-01-31T03:00 (UTC) or 2026-01-31T03:00+01:00")


def of_problems(error: ConfigError) -> str:
    """All that is wrong with a configuration, a line each."""
    return "\n".join(map(str, error.errors))


def wrong(text: str) -> NoReturn:
    """End because of what was asked or configured."""
    from agent.cli.config_cmd import EXIT_BAD_CONFIG

    click.echo(text, err=True)
    sys.exit(EXIT_BAD_CONFIG)


def desk(config: str | None, jobs_dir: str | None, state_dir: str | None, host: str | None) -> Desk:
    """The jobs and where to work; the command ends with 2 when the configuration is wrong."""
    # Here, because root's helper has a desk too, and no use for the options of everything else: 6 MB.
    from agent.cli.config_cmd import load_or_exit

    settings = load_or_exit(config).settings
    directory = jobs_dir or JOBS_DIRECTORY
    try:
        jobs, warnings = load_jobs(directory)
    except ConfigError as error:
        wrong(of_problems(error))
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    # Who names a place of his own means it; otherwise a run by hand is what the agent has run at night.
    socket = backup_socket(settings.backup.socket, directory) if jobs_dir is None and state_dir is None else None
    return Desk(directory, state_dir or settings.state_dir, host or settings.hostname, settings.hostname, jobs,
                socket=socket, drill_socket=DRILL_SOCKET if socket and os.geteuid() == 0 else None)  # fmt: skip


Command = Callable[..., None]


def with_desk(command: Command) -> Command:
    """Options that find the jobs, and the desk made of them as the first argument; errors become exit codes."""

    @wraps(command)
    def call(config: str | None, jobs_dir: str | None, state_dir: str | None, host: str | None = None,
             **given: Any) -> None:  # fmt: skip
        os.umask(0o077)
        at = desk(config, jobs_dir, state_dir, host)
        try:
            command(at, **given)
        except BrokenPipeError:
            raise  # nobody reads what we print any more: click ends quietly
        except (BackupError, ValueError, OSError) as error:
            click.echo(reason(error), err=True)
            sys.exit(BUSY if isinstance(error, Busy) else FAILED)
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
            sys.exit(130)
        at.end()

    for option in reversed(OPTIONS):
        call = option(call)
    return call


OPTIONS = (
    click.option("--config", metavar="FILE", help="Configuration of the agent."),
    click.option("--jobs", "jobs_dir", metavar="DIR", help=f"Directory of the jobs.  [default: {JOBS_DIRECTORY}]"),
    click.option("--state-dir", metavar="DIR", help="State directory of the agent."),
)
of_host = click.option("--host", metavar="NAME", help="Whose backups; with another name than ours they are only read.")
from_target = click.option("--target", metavar="NAME", help="Target to use, of those that the job has.")
of_time = click.option("--at", "when", metavar="TIME",
                       help="The newest that was finished by then, like 2026-01-31T03:00.")  # fmt: skip
as_json = click.option("--json", "as_json", is_flag=True, help="As JSON.")
