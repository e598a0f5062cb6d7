"""The jobs of `backup.d`: one file each, named after its job."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping

import backup.table
from agent.config.plugins import read_table
from agent.config.registry import Registry
from agent.config.schema import Bad, Reader, hide_secrets
from agent.core import yaml_nodes as nodes
from agent.core.problems import ConfigError, Place, Problem
from backup.job import Job, SourceCommon, TargetCommon, check_job_name

DIRECTORY = "backup.d"  # beside vigilhost.yaml
_RUNS_ALONE = ("source", "targets", "manifest_key", "heartbeat", "drill")  # sections with secrets that only a run uses
REGISTRIES: Mapping[str, Registry] = {
    "backup_sources": Registry(
        noun="backup source",
        builtin=backup.table.SOURCES,
        common=SourceCommon,
        off_by_default=frozenset(backup.table.SOURCES),
        group=backup.table.SOURCE_GROUP,
    ),
    "backup_targets": Registry(
        noun="backup target",
        builtin=backup.table.TARGETS,
        common=TargetCommon,
        off_by_default=frozenset(backup.table.TARGETS),
        group=backup.table.TARGET_GROUP,
        has_types=True,
    ),
}


def load_jobs(directory: str, *, environ: Mapping[str, str] = os.environ,
              opens_secrets: bool = True) -> tuple[dict[str, Job], list[Problem]]:  # fmt: skip
    """Every job of a directory by name, and what is doubtful; none where there is no directory.

    `opens_secrets` False: for who only plans runs; what carries them out may read secrets of theirs that we may not.
    Raise ConfigError with all that is wrong in any of them.
    """
    try:
        files = sorted(name for name in os.listdir(directory) if not name.startswith("."))
    except FileNotFoundError:
        return {}, []
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError([Problem(Place(directory), "", f"cannot be read: {reason}")]) from error
    jobs: dict[str, Job] = {}
    errors: list[Problem] = []
    warnings: list[Problem] = []
    for file in files:
        if file.endswith(".yaml"):
            try:
                job, doubts = load_job(os.path.join(directory, file), environ=environ, opens_secrets=opens_secrets)
            except ConfigError as error:
                errors += error.errors
            else:
                jobs[job.name] = job
                warnings += doubts
        elif file.endswith(".yml"):
            warnings.append(Problem(Place(os.path.join(directory, file)), "", "is not read; give it a name in .yaml"))
    if errors:
        raise ConfigError(errors)
    return jobs, warnings


def load_job(path: str, *, environ: Mapping[str, str] = os.environ,
             opens_secrets: bool = True) -> tuple[Job, list[Problem]]:  # fmt: skip
    """The job of one file, and what is doubtful about it. Raise ConfigError."""
    name = os.path.basename(path).removesuffix(".yaml")
    errors: list[Problem] = []
    try:
        check_job_name(name)
    except ValueError as error:
        raise ConfigError([Problem(Place(path), "", f"{name!r} {error}")]) from error
    tree = nodes.read_file(path, errors)
    reader = Reader(environ, functools.partial(read_table, REGISTRIES), closed=() if opens_secrets else _RUNS_ALONE)
    job = reader.section(Job, tree if tree is not None else nodes.Mapping(Place(path)), "") if not errors else None
    errors += reader.errors
    if errors or job is None or isinstance(job, Bad):
        raise ConfigError(errors)
    job = dataclasses.replace(job, name=name)
    for section, entries in (("source", job.source), ("targets", job.targets)):
        for entry in entries.values():
            try:
                entry.build(job=name, host="")
            except ValueError as error:
                text = hide_secrets(str(error), entry.options)
                errors.append(Problem(entry.place, f"{section}.{entry.name}", text))
    if errors:
        raise ConfigError(errors)
    return job, reader.warnings
