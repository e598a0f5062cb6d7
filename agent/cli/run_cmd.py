"""`run` as click shows it in help and completion; it is carried out by `agent.cli.run`."""

from __future__ import annotations

import sys
from typing import Any

import click

from agent.cli.run import parser
from agent.cli.run import run as run_daemon


def _options() -> list[click.Parameter]:
    """The argparse options as click's: one declaration, two readers."""
    options: list[click.Parameter] = []
    for action in parser()._actions:
        if action.option_strings and "--help" not in action.option_strings:
            is_flag = action.nargs == 0
            kind = click.Path() if action.metavar in ("FILE", "DIR") else None
            options.append(click.Option(action.option_strings, help=action.help, is_flag=is_flag, type=kind))
    return options


def _run(**given: Any) -> None:
    arguments: list[str] = []
    for name, value in given.items():
        if value not in (None, False):
            arguments += [f"--{name.replace('_', '-')}", *([] if value is True else [value])]
    sys.exit(run_daemon(arguments))


run = click.Command("run", callback=_run, params=_options(), help="Run the agent in the foreground.")
