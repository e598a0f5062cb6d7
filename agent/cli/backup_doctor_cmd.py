"""`vigilhost backup doctor`: will the jobs work, are their targets in order, what on this host does no job cover."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Literal, NamedTuple

import click

from agent.cli.backup_desk import Desk, Place, as_json, redactor, with_desk
from agent.core.units import format_duration, format_size
from agent.doctor.coverage import open_ends, uncovered
from backup.children import Guard, program
from backup.errors import BackupError
from backup.job import Job

_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}
_FORECAST = 1.1


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
    found = [finding for job in at.chosen(jobs) for finding in _job(at, job)]
    if not jobs:
        found += [Finding("", "warn", f"{text}; {advice}") for text, advice in uncovered(at.jobs, root)]
        if not at.jobs:
            found.append(Finding("", "warn", f"there is no job in {at.jobs_dir}"))
    if as_json:
        click.echo(json.dumps({"findings": [one._asdict() for one in found]}, indent=1))
    for one in found:
        if not as_json:
            click.echo(f"{_MARKS[one.level]} {one.job or 'host'}: {one.text}")
        if one.level == "fail":
            at.problems.append(one.text)


def _job(at: Desk, job: Job) -> Iterator[Finding]:
    redact = redactor(job)
    yield from (Finding(job.name, "fail", redact(text)) for text in _programs(job))
    try:
        with at.work(job, Guard(60.0, f"{job.name}: source")) as work:
            facts = at.source(job).describe(work)
        versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
        yield Finding(job.name, "ok", redact(f"source: {job.plugin.type}" + (f" ({versions})" if versions else "")))
    except (BackupError, ValueError) as error:
        yield Finding(job.name, "fail", f"source: {redact(str(error))}")
    for name, entry in job.targets.items():
        try:
            entry.build(job=job.name, host=at.host).check()
        except (BackupError, ValueError, OSError) as error:
            yield Finding(job.name, "fail", f"target {name}: {redact(str(error))}")
            continue
        for place in at.places(job, name):
            yield from _place(job, place)
    yield from (Finding(job.name, "warn", text) for text in open_ends(job))


def _programs(job: Job) -> Iterator[str]:
    needed = [*(["zstd"] if job.compression.program == "zstd" else []), *(["age"] if job.encryption.recipients else [])]
    for name in (*needed, "setpriv"):
        try:
            program(name)
        except BackupError as error:
            yield str(error)


def _place(job: Job, place: Place) -> Iterator[Finding]:
    complete = [one for one in place.known.manifests if one.is_complete]
    free = place.target.free_bytes()
    expected = round(_FORECAST * max((one.stored_bytes for one in complete[-3:]), default=0))
    room = "" if free is None else f", {_rough(free)} free"
    if free is not None and expected > free:
        yield Finding(job.name, "fail", f"target {place.name}: the next backup will probably not fit: about "
                      f"{_rough(expected)} expected{room}")  # fmt: skip
        return
    count = len(place.known.manifests)
    yield Finding(job.name, "ok", f"target {place.name}: {count} backup{'' if count == 1 else 's'}{room}")
    newest = place.known.newest_verified()
    if newest is None:
        yield Finding(job.name, "warn", f"target {place.name}: holds no verified backup yet")
    elif job.rpo is not None and (age := time.time() - newest.finished_at) > job.rpo:
        yield Finding(job.name, "fail", f"target {place.name}: the newest verified backup is {_about(age)} old, rpo is "
                      f"{format_duration(job.rpo)}")  # fmt: skip


def _rough(size: int) -> str:
    """Bytes with one decimal, also where a smaller unit would be exact."""
    return format_size(size | 1)


def _about(seconds: float) -> str:
    return format_duration(max(60, round(seconds) // 60 * 60))
