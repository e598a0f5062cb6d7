"""`vigilhost backup verify|restore|drill`: what is kept is read again, brought back, proved."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from agent.cli.backup_desk import (
    Desk,
    Found,
    as_json,
    from_target,
    key_of,
    moment_of,
    of_host,
    of_time,
    redactor,
    with_desk,
    wrong,
)
from agent.cli.backup_drill import carry_out, deadline_of, shortfall
from agent.cli.backup_progress import Bar, Counted, bar
from agent.core.units import format_duration, rough_size
from backup import catalogue
from backup import restore as restoring
from backup import verify as verifying
from backup.children import Guard
from backup.errors import BackupError
from backup.manifest import Manifest
from backup.source import Restored
from backup.worker import FAILED

_identity = click.option("--identity", metavar="FILE", help="Private key of age, for what is encrypted.")
_which = click.argument("which", nargs=-1, metavar="[JOB] [ID|latest]")


@click.command()
@_which
@of_time
@click.option("--all", "is_all", is_flag=True, help="Every backup of the job.")
@click.option("--level", type=click.IntRange(1, 3), default=2, show_default=True,
              help="1: read again; 2: decoded too; 3: counts as downloaded where the target is far.")  # fmt: skip
@from_target
@_identity
@of_host
@as_json
@with_desk
def verify(at: Desk, which: tuple[str, ...], when: str | None, is_all: bool, level: int, target: str | None,
           identity: str | None, as_json: bool) -> None:  # fmt: skip
    """Read a backup again on every target that has it, the newest by default. Exit status 1 when anything is wrong."""
    found = at.find(which, moment_of(when), target)
    job = found[0].job
    if is_all:
        found = [Found(job, place, one) for place in at.places(job, target) for one in place.known.manifests]
    with bar(f"{job.name}: verify") as shown:
        shown.expect(sum(one.manifest.stored_bytes for one in found))
        told = [done for one in found if (done := _verify(at, one, level, identity, shown)) is not None]
    if as_json:
        click.echo(json.dumps({"verified": told}, indent=1))
        return
    for each in told:
        if not each["problems"]:
            click.echo(f"{each['target']}: {each['id']} is right, proved at level {each['level']}")


def _verify(at: Desk, found: Found, level: int, identity: str | None, shown: Bar) -> dict[str, Any] | None:
    """What there is to tell of one backup; None when it is not there any more."""
    job, place = found.job, found.place
    shown.phase(f"{job.name}: verify {found.manifest.id} on {place.name}")
    target: Any = Counted(place.target, shown.add)
    with at.work(job, Guard(job.limits.deadline, job.name)) as work:
        # Hours may have gone by since it was listed: somebody pinned or drilled it, retention deleted it.
        try:
            manifest = catalogue.again(place.target, found.manifest, job.manifest_key)
        except BackupError as error:
            return _told(at, found, found.manifest, [str(error)])
        if manifest is None:
            click.echo(f"{place.name}: {found.manifest.id} is gone; it was deleted meanwhile", err=True)
            return None
        done = verifying.verify(
            manifest, target, at.source(job), work, level=level, now=time.time(),
            identity=key_of(job, identity),
        )  # fmt: skip
        if at.is_own and done.manifest != manifest:
            try:
                catalogue.write(place.target, done.manifest, job.manifest_key)
            except BackupError as error:
                at.problem(f"{place.name}: what was found cannot be noted there: {error}")
    at.remember(job, lambda known: known.changed(place.name, done.manifest.summary()))
    return _told(at, found, done.manifest, done.problems)


def _told(at: Desk, found: Found, manifest: Manifest, problems: Sequence[str]) -> dict[str, Any]:
    """What came of one verification, its problems said."""
    problems = [redactor(found.job)(each) for each in problems]
    for sentence in problems:
        at.problem(f"{found.place.name}: {manifest.id}: {sentence}")
    return {"job": found.job.name, "target": found.place.name, "id": manifest.id, "level": manifest.level,
            "problems": problems}  # fmt: skip


@click.command()
@_which
@of_time
@click.option("--to", metavar="DIR|DB", help="Directory, file or new database to restore to.")
@click.option("--archive", "archives", multiple=True, metavar="NAME", help="Only this archive; may be given again.")
@click.option("--dry-run", is_flag=True, help="Only say what would be restored to where.")
@click.option("--force", is_flag=True, help="Also where something is already; that is moved aside where it can be.")
@click.option("--allow", multiple=True, type=click.Choice(("links", "setuid", "owners")),
              help="Links that lead outside; setuid bits and file capabilities; owners of a database.")  # fmt: skip
@from_target
@_identity
@of_host
@as_json
@with_desk
def restore(at: Desk, which: tuple[str, ...], when: str | None, to: str | None, archives: tuple[str, ...],
            dry_run: bool, force: bool, allow: tuple[str, ...], target: str | None, identity: str | None,
            as_json: bool) -> None:  # fmt: skip
    """Bring a backup back to DIR or DB: the newest, that of an ID, or with --at that of a time.

    Every archive is proved to be what was written before any of it is used. The plain commands that do the same are
    printed. Exit status 1 also when something was left out.
    """
    if to is None:
        wrong("--to: is missing; name a directory, a file or a new database to restore to")
    found = at.find(which, moment_of(when), target)[0]
    source = at.source(found.job)
    is_directory = _is_path(to, source)
    wanted = restoring.parts(found.manifest, os.path.abspath(to) if is_directory else to, archives,
                             is_directory=is_directory)  # fmt: skip
    text = restoring.recipe(found.manifest, found.place.target, source)
    told: dict[str, Any] = {
        "job": found.job.name, "id": found.manifest.id, "target": found.place.name, "dry_run": dry_run,
        "archives": [{"name": part.archive.name, "to": part.to, "raw_bytes": part.archive.raw_bytes}
                     for part in wanted], "recipe": text,
    }  # fmt: skip
    if not dry_run:
        permitted = frozenset([*allow, *(["force"] if force else [])])
        done = _restore(at, found, source, wanted, identity, permitted)
        told["restored"] = [asdict(one) for one in done]
    if as_json:
        click.echo(json.dumps(told, indent=1))
    else:
        for part in wanted:
            click.echo(f"{part.archive.name}: {rough_size(part.archive.raw_bytes)} of {found.manifest.id} on "
                       f"{found.place.name} {'would go' if dry_run else 'restored'} to {part.to}")  # fmt: skip
        click.echo(f"\nthe same without vigilhost:\n{text}", nl=False)


def _is_path(to: str, source: Any) -> bool:
    """Whether `to` is of this host's file system; for others it is a name, of a database or in a server's own words."""
    if to.startswith((os.sep, ".")) or os.path.isdir(to):
        return True
    return os.sep in to and not getattr(source, "restores_to_names", False)


def _restore(at: Desk, found: Found, source: Any, wanted: list[restoring.Part], identity: str | None,
             allow: frozenset[str]) -> list[Restored]:  # fmt: skip
    key = key_of(found.job, identity)
    with bar(f"{found.job.name}: restore {found.manifest.id}") as shown, at.work(found.job, Guard()) as work:
        target: Any = Counted(found.place.target, shown.add)
        # What is near is read twice: to prove it, and to use it.
        times = 2 if found.place.target.is_near else 1
        shown.expect(times * sum(part.archive.stored_bytes for part in wanted))
        done = restoring.restore(wanted, target, source, work, identity=key, allow=allow)
    for each in done:
        for warning in each.warnings:
            click.echo(f"warning: {warning}", err=True)
        for refused in each.refused:
            at.problem(f"left out: {refused}")
    return done


@click.command()
@_which
@of_time
@from_target
@_identity
@of_host
@as_json
@with_desk
def drill(at: Desk, which: tuple[str, ...], when: str | None, target: str | None, identity: str | None,
          as_json: bool) -> None:  # fmt: skip
    """Restore a backup, the newest by default, into something thrown away, and see that all is as the job asserts."""
    every = at.find(which, moment_of(when), target)
    job = every[0].job
    preferred = target or (job.drill.target if job.drill is not None else None)
    found = next((one for one in every if one.place.name == preferred), every[0])
    with bar(f"{job.name}: drill {found.manifest.id}") as shown:
        shown.expect((2 if found.place.target.is_near else 1) * found.manifest.stored_bytes)
        with at.work(job, Guard(deadline_of(job), f"{job.name}: drill")) as work:
            evidence = carry_out(at, found, work, lambda target: Counted(target, shown.add), identity)
    report = evidence.report()
    status, error = "ok" if evidence.is_passed else "fail", shortfall(evidence)
    at.remember(job, lambda known: known.was_drilled(report, status, error))
    if as_json:
        click.echo(json.dumps(report, indent=1, default=str))
    else:
        for name, outcomes in evidence.archives.items():
            for one in outcomes:
                more = f": {one.found}" if one.found else ""
                click.echo(f"{'ok  ' if one.is_met else 'FAIL'} {name}: {one.assertion}{more}")
        took = format_duration(evidence.rto_s) or "0s"
        click.echo(f"{found.manifest.id} {'was restored' if evidence.is_passed else 'failed'} in {took}")
    if not evidence.is_passed:
        if evidence.error:
            click.echo(error, err=True)
        sys.exit(FAILED)
