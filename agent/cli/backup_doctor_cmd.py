"""`vigilhost backup doctor`: will the jobs work, are their targets in order, what on this host does no job cover."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, NamedTuple

import click

from agent.cli.backup_desk import Busy, Desk, Place, as_json, redactor, with_desk
from agent.core.units import format_duration, rough_size
from agent.doctor.coverage import open_ends, uncovered
from backup.children import Guard, program
from backup.errors import BackupError, reason
from backup.job import Job
from backup.source import Inventory

_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


class Finding(NamedTuple):
    """One thing that was looked at. `job`: empty where it is about the host."""

    job: str
    level: Literal["ok", "warn", "fail"]
    text: str


@click.command()
@click.argument("jobs", nargs=-1)
@click.option("--root", default="/", hidden=True, metavar="DIR", help="Look for servers below another root.")
@as_json
@with_desk
def doctor(at: Desk, jobs: tuple[str, ...], root: str, as_json: bool) -> None:
    """Look at JOBS, or at all, without backing anything up. Exit status 1 when something would fail."""
    findings = [finding for job in at.chosen(jobs) for finding in _job(at, job)]
    if not jobs:
        findings += [Finding("", "warn", f"{text}; {advice}") for text, advice in uncovered(at.jobs, root)]
        if not at.jobs:
            findings.append(Finding("", "warn", f"there is no job in {at.jobs_dir}"))
        findings += _left_out(at)
    if as_json:
        click.echo(json.dumps({"findings": [one._asdict() for one in findings]}, indent=1))
    for one in findings:
        if not as_json:
            click.echo(f"{_MARKS[one.level]} {one.job or 'host'}: {one.text}")
        if one.level == "fail":
            at.problems.append(one.text)


def _job(at: Desk, job: Job) -> Iterator[Finding]:
    redact = redactor(job)
    yield from (Finding(job.name, "fail", redact(text)) for text in _programs(job))
    yield from _source(at, job)
    for name, entry in job.targets.items():
        try:
            target = entry.build(job=job.name, host=at.host)
            target.check()
            lacks: list[str] = getattr(target, "lacks", list)()
        except (BackupError, ValueError, OSError) as error:
            yield Finding(job.name, "fail", f"target {name}: {redact(reason(error))}")
            continue
        yield from (Finding(job.name, "warn", f"target {name}: {redact(text)}") for text in lacks)
        for place in at.places(job, name):
            yield from _place(job, place)
    yield from (Finding(job.name, "warn", text) for text in open_ends(job))


def _source(at: Desk, job: Job) -> Iterator[Finding]:
    redact = redactor(job)
    warnings: list[str] = []
    try:
        with at.work(job, Guard(60.0, f"{job.name}: source")) as work:
            facts = at.source(job).describe(replace(work, warn=warnings.append))
        versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
        yield Finding(job.name, "ok", redact(f"source: {job.plugin.type}" + (f" ({versions})" if versions else "")))
    except Busy:
        yield Finding(job.name, "ok", "runs now; its source was not asked")
    except (BackupError, ValueError, OSError) as error:
        yield Finding(job.name, "fail", f"source: {redact(reason(error))}")
    yield from (Finding(job.name, "warn", f"source: {redact(text)}") for text in warnings)


def _programs(job: Job) -> Iterator[str]:
    needed = [*(["zstd"] if job.compression.program == "zstd" else []), *(["age"] if job.encryption.recipients else [])]
    for name in (*needed, "setpriv"):
        try:
            program(name)
        except BackupError as error:
            yield str(error)


def _place(job: Job, place: Place) -> Iterator[Finding]:
    expected, free = place.known.forecast(), place.target.free_bytes()
    room = "" if free is None else f", {rough_size(free)} free"
    if free is not None and expected > free:
        yield Finding(job.name, "fail", f"target {place.name}: the next backup will probably not fit: about "
                      f"{rough_size(expected)} expected{room}")  # fmt: skip
        return
    count = len(place.known.manifests)
    yield Finding(job.name, "ok", f"target {place.name}: {count} backup{'' if count == 1 else 's'}{room}")
    newest = place.known.newest_verified()
    if newest is None:
        yield Finding(job.name, "warn", f"target {place.name}: holds no verified backup yet")
    elif job.rpo is not None and (age := time.time() - newest.finished_at) > job.rpo:
        yield Finding(job.name, "fail", f"target {place.name}: the newest verified backup is {_about(age)} old, rpo is "
                      f"{format_duration(job.rpo)}")  # fmt: skip


def _left_out(at: Desk) -> Iterator[Finding]:
    """Databases, volumes and domains that none of the jobs on their server takes, or leaves out by a pattern."""
    there: dict[tuple[str, str], set[str]] = {}
    known: dict[tuple[str, str], set[str]] = {}
    for job in at.jobs.values():
        inventory = getattr(at.source(job), "inventory", None)
        if inventory is None:
            continue
        try:
            with at.work(job, Guard(60.0, f"{job.name}: inventory")) as work:
                seen: Inventory = inventory(work)
        except (BackupError, ValueError, OSError):
            continue  # what is wrong with the job's source has been said
        place = seen.noun, seen.where
        there.setdefault(place, set()).update(seen.there)
        known.setdefault(place, set()).update(seen.known)
    for (noun, where), names in there.items():
        for name in sorted(names - known[noun, where]):
            yield Finding("", "warn", f"{noun} {name} ({where}) is in no job; add it to one, or to an exclude")


def _about(seconds: float) -> str:
    return format_duration(max(60, round(seconds) // 60 * 60))
