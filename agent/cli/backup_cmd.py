"""`vigilhost backup`: run jobs, look at what is kept, verify, restore, drill. Works without the agent.

Exit status of each: 0 ok, 1 failed, 2 configuration, 75 the job runs already.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.cli.backup_desk import Desk, Found, Place, as_json, from_target, moment_of, of_host, of_time, with_desk
from agent.cli.backup_progress import bar
from agent.core.units import format_duration, rough_size
from backup import catalogue
from backup.errors import BackupError, Forbidden, TargetFailed
from backup.job import Job
from backup.manifest import Manifest
from backup.restore import recipe
from backup.retention import Plan, plan, stays
from backup.worker import BUSY, FAILED, OK
from backup.workspace import own_state

_ELSEWHERE: Mapping[str, str] = {
    "verify": "agent.cli.backup_proof_cmd:verify",
    "restore": "agent.cli.backup_proof_cmd:restore",
    "drill": "agent.cli.backup_proof_cmd:drill",
    "doctor": "agent.cli.backup_doctor_cmd:doctor",
    "destinations": "agent.cli.backup_destinations_cmd:destinations",
}


class _Backup(click.Group):
    """The commands of this file and those that have files of their own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *_ELSEWHERE]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _ELSEWHERE:
            return super().get_command(ctx, name)
        module, _, attribute = _ELSEWHERE[name].partition(":")
        found: click.Command = getattr(importlib.import_module(module), attribute)
        return found


@click.group(cls=_Backup)
def backup() -> None:
    """Backups: run them, list them, prove them, bring them back.

    Exit status: 0 ok, 1 failed, 2 configuration, 75 the job runs already.
    """


@backup.command()
@click.argument("job")
@click.option("--agent", "by_agent", is_flag=True, help="Let the running agent do it, as soon as no other job runs.")
@as_json
@with_desk
def run(at: Desk, job: str, by_agent: bool, as_json: bool) -> None:
    """Back JOB up now, whatever its schedule says; that stays as it is."""
    one = at.job(job)
    if by_agent:
        from agent.cli.agent_socket import ask_agent

        given = click.get_current_context().params
        click.echo(ask_agent("backup_run", config=given["config"], state_dir=given["state_dir"], job=job))
        return
    result, code = _worker(at, one)
    at.remember(one, lambda known: known.ran(result, result["status"], result.get("error"), time.time()))
    if as_json:
        click.echo(json.dumps(result, indent=1))
    else:
        _tell_result(result)
    if code != OK:
        sys.exit(code if code in (BUSY, 2) else FAILED)


def _worker(at: Desk, job: Job) -> tuple[dict[str, Any], int]:
    """Run the job where the agent runs it, and show what its worker says. The result and exit code."""
    return _behind(at.socket, job) if at.socket is not None else _child(at, job)


def _behind(socket: str, job: Job) -> tuple[dict[str, Any], int]:
    import asyncio

    from backup.socket_runner import SocketRunner

    with bar(f"{job.name}: starting") as shown:
        ended = asyncio.run(SocketRunner(socket).run(job.name, shown.take, job.patience_s))
    told = {"event": "result", "job": job.name, **ended.result, "status": ended.status, "error": ended.error}
    return told, FAILED if ended.exit_code is None else ended.exit_code


def _child(at: Desk, job: Job) -> tuple[dict[str, Any], int]:
    own_state(at.state_dir)  # what a worker cannot begin at all is no failed backup
    # -P: a module in the current directory, which may be anybody's, is not ours.
    argv = [sys.executable, "-P", "-m", "agent.cli.main", "backup-worker", f"--host={at.host}",
            f"--jobs={at.jobs_dir}", f"--state-dir={at.state_dir}", job.name]  # fmt: skip
    result: dict[str, Any] = {}
    with (
        bar(f"{job.name}: starting") as shown,
        subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as child,
    ):
        assert child.stdout is not None
        with _handing_on_interrupts(child), _not_longer_than(job.patience_s, child):
            for line in child.stdout:
                event = json.loads(line)
                shown.take(event)
                if event["event"] == "result":
                    result = event
            code = child.wait()
    if not result:
        text = f"{job.name}: the worker ended with {code} and without a result"
        result = {"event": "result", "job": job.name, "status": "fail", "error": text}
        code = code if code > 0 else FAILED
    return result, code


@contextlib.contextmanager
def _handing_on_interrupts(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """The worker ends in good order and reports; an exception here would lose what it says."""
    before = signal.signal(signal.SIGINT, lambda *_: child.send_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _not_longer_than(seconds: float, child: subprocess.Popen[bytes]) -> Iterator[None]:
    """It keeps its own deadline; one that cannot, because a disk hangs, is killed."""
    late = threading.Timer(seconds, child.kill)
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()


def _tell_result(result: Mapping[str, Any]) -> None:
    for warning in result.get("warnings", ()) if not sys.stderr.isatty() else ():  # the bar has said them
        click.echo(f"warning: {warning}", err=True)
    if result["status"] in ("fail", "busy"):
        click.echo(result["error"], err=True)
    for name, told in result.get("targets", {}).items():
        if told["status"] == "ok":
            gone = f", {told['deleted']} old ones deleted" if told["deleted"] else ""
            size = rough_size(told["stored_bytes"])
            click.echo(f"{name}: {result['backup']}, {size}, verified at level {told['level']}{gone}")


@backup.command("list")
@click.argument("jobs", nargs=-1)
@from_target
@of_host
@as_json
@with_desk
def list_backups(at: Desk, jobs: tuple[str, ...], target: str | None, as_json: bool) -> None:
    """What is kept of JOBS, or of all, oldest first. Exit status 1 when a target or a manifest cannot be read."""
    rows = [(job, place.name, manifest) for job in at.chosen(jobs, target)
            for place in at.places(job, target) for manifest in place.known.manifests]  # fmt: skip
    if as_json:
        told = [{**facts(manifest), "target": name} for _, name, manifest in rows]
        click.echo(json.dumps({"backups": told, "problems": at.problems}, indent=1))
        return
    now = time.time()
    table = _table("job", "backup", "target", "age", "size", "proved", "drilled", "")
    for job, name, one in rows:
        table.add_row(job.name, one.id, name, _age(now, one.finished_at), rough_size(one.stored_bytes),
                      _proved(one, now), _age(now, one.drilled_at), _remarks(one))  # fmt: skip
    if rows:
        _print(table)
    else:
        click.echo("no backups", err=True)
    for job in at.chosen(jobs, target):
        _tell_failures(at, job, now)


def _tell_failures(at: Desk, job: Job, now: float) -> None:
    """What of a job went wrong last, which the copies that are kept do not show."""
    known = at.known(job)
    if known is not None and known.status == "fail":
        click.echo(f"{job.name}: the last run, {_age(now, known.ended_at)} ago, failed: {known.error}", err=True)
    if known is not None and known.drill_status == "fail":
        click.echo(f"{job.name}: the last drill failed: {known.drill_error}", err=True)
    if known is not None and known.drill_undone is not None:
        click.echo(f"{job.name}: the last drill could not be done: {known.drill_undone}", err=True)


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold")
    for name in columns:
        table.add_column(name, no_wrap=name != "because")  # an id that is cut short cannot be copied
    return table


def _print(table: Table) -> None:
    console = Console()
    # Into a file or pipe nothing is cut; a narrow terminal wraps by itself.
    Console(width=max(console.width, 100 if console.is_terminal else 240), soft_wrap=True).print(table)


def facts(one: Manifest) -> dict[str, Any]:
    """A backup as JSON for machines, without what only a restore needs."""
    return {
        "job": one.job, "host": one.host, "source": one.source, "started_at": one.started_at, **one.summary(),
        "archives": [archive.name for archive in one.archives], "missing": [asdict(each) for each in one.missing],
    }  # fmt: skip


def _age(now: float, then: float | None) -> str:
    if then is None:
        return "never"
    seconds = max(0, round(now - then))
    return format_duration(seconds - seconds % (86400 if seconds >= 10 * 86400 else 60 if seconds >= 3600 else 1))


def _proved(one: Manifest, now: float) -> Text:
    if not one.is_verified:
        return Text("no", style="red")
    return Text(f"level {one.level}, {_age(now, one.verified_at)} ago")


def _remarks(one: Manifest) -> str:
    return ", ".join([*(["pinned"] if one.pinned else []), *([] if one.is_complete else ["not complete"])])


@backup.command()
@click.argument("which", nargs=-1, required=True, metavar="[JOB] [ID|latest]")
@from_target
@of_host
@as_json
@with_desk
def show(at: Desk, which: tuple[str, ...], target: str | None, as_json: bool) -> None:
    """All that is known of one backup, and the plain commands that restore it. An id may be cut short."""
    found = at.find(which, None, target)
    first = found[0]
    text = recipe(first.manifest, first.place.target, at.source(first.job))
    if as_json:
        told = {**asdict(first.manifest), "targets": [one.place.name for one in found], "recipe": text}
        click.echo(json.dumps(told, indent=1))
        return
    _show(first, [one.place.name for one in found])
    click.echo(f"\nwithout vigilhost:\n{text}", nl=False)


def _show(found: Found, targets: list[str]) -> None:
    one, now = found.manifest, time.time()
    click.echo(f"{one.job} {one.id} of {one.host}, on {', '.join(targets)}")
    click.echo(f"finished {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(one.finished_at))}, "
               f"{format_duration(max(0, round(one.finished_at - one.started_at)))} after it began; {one.source} "
               + " ".join(f"{name} {version}" for name, version in one.versions.items()))  # fmt: skip
    click.echo(f"proved: {_proved(one, now)}; drilled: {_age(now, one.drilled_at)}"
               + (f", restored in {one.rto_s:g} s" if one.rto_s is not None else "")
               + (f"; {_remarks(one)}" if _remarks(one) else ""))  # fmt: skip
    for archive in one.archives:
        coding = "".join([f", {archive.compression}", ", encrypted" if archive.recipients else ""])
        click.echo(f"  {archive.name}: {rough_size(archive.raw_bytes)} as {rough_size(archive.stored_bytes)}{coding}")
        click.echo(f"    {archive.stored}\n    sha256 {archive.sha256}")
        for warning in archive.warnings:
            click.echo(f"    warning: {warning}")
    for missing in one.missing:
        click.echo(f"  {missing.name}: is missing: {missing.error}")


@backup.command()
@click.argument("jobs", nargs=-1)
@from_target
@click.option("--dry-run", is_flag=True, help="Only say what would go and stay, and why.")
@click.option("--allow-most", is_flag=True, help="Also when more than half would go; look at the dry run first.")
@as_json
@with_desk
def prune(at: Desk, jobs: tuple[str, ...], target: str | None, dry_run: bool, allow_most: bool, as_json: bool) -> None:
    """Delete the backups of JOBS, or of all, that no rule keeps. Runs do so by themselves after each success."""
    told = []
    for job in at.chosen(jobs, target):
        if dry_run:
            told += _planned(at, job, target, allow_most)
            continue
        with at.hold(job):
            told += _planned(at, job, target, allow_most, delete=True)
    if as_json:
        click.echo(json.dumps({"plans": told, "dry_run": dry_run}, indent=1))
        return
    table = _table("job", "target", "backup", "", "because")
    for each in told:
        for one in each["decisions"]:
            style = "red" if one["action"] == "delete" else ""
            table.add_row(each["job"], each["target"], one["id"], Text(one["action"], style=style),
                          Text("; ".join(one["reasons"])))  # fmt: skip
    _print(table)


def _planned(at: Desk, job: Job, only: str | None, allow_most: bool, *, delete: bool = False) -> list[dict[str, Any]]:
    told = []
    for place in at.places(job, only):
        decided: Plan = plan(place.known.manifests, job.retention_of(place.name), time.time(), zone=job.times.zone,
                             may_delete_most=allow_most)  # fmt: skip
        if decided.refusal is not None:
            at.problem(f"{job.name}: {place.name}: nothing is deleted: {decided.refusal}")
        gone = _delete(at, job, place, decided.deletions) if delete else set()
        told.append({
            "job": job.name, "target": place.name, "refusal": decided.refusal, "deleted": sorted(gone),
            "decisions": [{"id": one.manifest.id, "action": one.action, "reasons": one.reasons}
                          for one in decided.decisions],
        })  # fmt: skip
    return told


def _delete(at: Desk, job: Job, place: Place, doomed: Sequence[Manifest]) -> set[str]:
    """The ids of those that went; why others did not is said, and the next target may do better."""
    gone: set[str] = set()
    try:
        for one in doomed:
            catalogue.delete(place.target, one)
            gone.add(one.id)
    except TargetFailed as error:
        why = stays(len(doomed) - len(gone), error) if isinstance(error, Forbidden) else str(error)
        at.problem(f"{job.name}: {place.name}: {why}")
    finally:
        at.remember(job, lambda known: known.went(place.name, gone))
    return gone


@backup.command()
@click.argument("which", nargs=-1, required=True, metavar="[JOB] ID|latest")
@of_time
@from_target
@with_desk
def pin(at: Desk, which: tuple[str, ...], when: str | None, target: str | None) -> None:
    """Keep a backup whatever the rules say, on every target that has it."""
    _set_pinned(at, which, moment_of(when), target, pinned=True)


@backup.command()
@click.argument("which", nargs=-1, required=True, metavar="[JOB] ID|latest")
@of_time
@from_target
@with_desk
def unpin(at: Desk, which: tuple[str, ...], when: str | None, target: str | None) -> None:
    """Let the rules decide again about a backup."""
    _set_pinned(at, which, moment_of(when), target, pinned=False)


def _set_pinned(at: Desk, which: tuple[str, ...], when: float | None, target: str | None, *, pinned: bool) -> None:
    job = at.find(which, when, target)[0].job
    with at.hold(job):
        for found in at.find(which, when, target):  # again: a run may have changed them until we held the job
            try:
                manifest = replace(found.manifest, pinned=pinned)
                catalogue.write(found.place.target, manifest, job.manifest_key)
            except BackupError as error:
                at.problem(f"{found.place.name}: {error}")
            else:
                at.remember(job, lambda known, on=found.place.name, now=manifest: known.changed(on, now.summary()))  # type: ignore[misc]
                click.echo(f"{found.place.name}: {manifest.id} is {'pinned' if pinned else 'no longer pinned'}")
