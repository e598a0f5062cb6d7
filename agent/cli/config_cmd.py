"""`vigilhost check` and `vigilhost config`: say what a configuration means, and what is wrong with it."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import click

from agent.config import ConfigError, Loaded, load
from agent.config.sample import sample
from agent.config.show import show, summary
from agent.core.problems import Problem
from agent.places import beside

EXIT_BAD_CONFIG = 2


@click.command()
@click.argument("file", required=False, type=click.Path())
def check(file: str | None) -> None:
    """Check the configuration: FILE, or /etc/vigilhost/vigilhost.yaml, and beside it conf.d, rules.d and backup.d.

    Everything that is wrong is said on standard error, one line each; the exit status is then 2.
    """
    loaded = load_or_exit(file)
    rules, jobs = _rules(loaded), _jobs(loaded)
    if rules is None or jobs is None:
        sys.exit(EXIT_BAD_CONFIG)
    files = (
        f"{len(loaded.files)} file{'' if len(loaded.files) == 1 else 's'}" if loaded.files else "no file, all defaults"
    )
    backups = f", {jobs} backup job{'' if jobs == 1 else 's'}" if jobs else ""
    click.echo(f"ok: {files}; {summary(loaded.settings)}, {rules} rules{backups}")


def _rules(loaded: Loaded) -> int | None:
    """How many rules there are; None where some cannot be used, which is said."""
    from agent.rule_sets import load_rules, rules_directory

    options = loaded.settings.alerting.rules
    found = load_rules(options, rules_directory(options, loaded.files))
    _say(found.errors, found.warnings)
    return None if found.errors else sum(1 for _ in found.rules())


def _jobs(loaded: Loaded) -> int | None:
    """How many backup jobs there are; None where one is wrong, which is said."""
    from agent.backup_keeper import load as load_jobs

    try:
        jobs, warnings = load_jobs(beside(loaded.files, "backup.d"))
    except ConfigError as error:
        _say(error.errors, [])
        return None
    _say([], warnings)
    return len(jobs)


def _say(errors: Iterable[Problem], warnings: Iterable[Problem]) -> None:
    for problem in errors:
        click.echo(str(problem), err=True)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)


@click.group(name="config")
def config() -> None:
    """Print a complete sample, or the configuration that is in force."""


@config.command(name="sample")
def config_sample() -> None:
    """Print a complete configuration with every default and its meaning."""
    click.echo(sample(), nl=False)


@config.command(name="show")
@click.option("--config", "file", type=click.Path(), help="File to read instead of /etc/vigilhost/vigilhost.yaml.")
def config_show(file: str | None) -> None:
    """Print the configuration that is in force, defaults included, secrets masked."""
    click.echo(show(load_or_exit(file).settings), nl=False)


def load_or_exit(file: str | None, overrides: dict[str, str] | None = None) -> Loaded:
    """The configuration; its warnings go to standard error, and so do its errors before the command ends."""
    try:
        loaded = load(file, overrides)
    except ConfigError as error:
        _say(error.errors, [])
        sys.exit(EXIT_BAD_CONFIG)
    _say([], loaded.warnings)
    return loaded
