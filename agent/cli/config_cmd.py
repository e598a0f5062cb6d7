"""`vigilhost check` and `vigilhost config`: say what a configuration means, and what is wrong with it."""

from __future__ import annotations

import sys

import click

from agent.config import ConfigError, Loaded, load
from agent.config.sample import sample
from agent.config.show import show, summary

EXIT_BAD_CONFIG = 2


@click.command()
@click.argument("file", required=False, type=click.Path())
def check(file: str | None) -> None:
    """Check the configuration: FILE, or /etc/vigilhost/vigilhost.yaml, and conf.d/*.yaml beside it.

    Everything that is wrong is said on standard error, one line each; the exit status is then 2.
    """
    loaded = load_or_exit(file)
    files = (
        f"{len(loaded.files)} file{'' if len(loaded.files) == 1 else 's'}" if loaded.files else "no file, all defaults"
    )
    click.echo(f"ok: {files}; {summary(loaded.settings)}")


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
        for problem in error.errors:
            click.echo(str(problem), err=True)
        sys.exit(EXIT_BAD_CONFIG)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    return loaded
