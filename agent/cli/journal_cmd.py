"""`vigilhost journal`: how far each sink has come, what none will take, and letting go of what is kept."""

from __future__ import annotations

import glob
import json
import os
import sys
import time
from datetime import datetime

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from agent.cli.agent_socket import ask_agent
from agent.cli.config_cmd import load_or_exit
from agent.core.units import format_duration, format_size
from sinks.dead_letters import DeadLetters

_config = click.option("--config", metavar="FILE", help="Configuration file of the agent to ask.")
_state_dir = click.option("--state-dir", metavar="DIR", help="State directory of the agent to ask.")


@click.group()
def journal() -> None:
    """The readings on their way to the sinks."""


@journal.command()
@_config
@_state_dir
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def status(config: str | None, state_dir: str | None, as_json: bool) -> None:
    """Size of the journal and what each sink has not had yet. Exit status 3 while the disk takes nothing."""
    found = ask_agent("status", config=config, state_dir=state_dir)["journal"]
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        click.echo(f"{format_size(found['bytes'])} in {found['segments']} files: {found['state']}")
        for key in ("dropped_records", "damaged_records", "waiting_records"):
            if found[key]:
                click.echo(f"{key.replace('_', ' ')}: {found[key]}")
        table = Table("reader", "behind", "size", "oldest", "lost", box=None, header_style="bold")
        for name, each in found["readers"].items():
            age = format_duration(int(each["oldest_age_s"]))
            lost = str(each["lost_records"])
            table.add_row(Text(name), f"{each['lag_records']} records", format_size(each["lag_bytes"]), age, lost)
        Console().print(table)
    sys.exit(0 if found["state"] == "ok" else 3)


@journal.command()
@_config
@_state_dir
@click.option("--timeout", default=600, show_default=True, help="Seconds to wait at most.")
def drain(config: str | None, state_dir: str | None, timeout: int) -> None:
    """Wait until every sink has had everything, e.g. before a host is taken away. Exit status 1 when it does not."""
    until = time.monotonic() + timeout
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[left]} left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("draining", total=None, left="?")
        most = 0
        while time.monotonic() < until:
            readers = ask_agent("drain", config=config, state_dir=state_dir)["readers"].values()
            left = sum(reader["lag_records"] for reader in readers)
            # Readings go on coming, so a reader that is up to date is at most one flush behind.
            if all(reader["oldest_age_s"] < 15 for reader in readers):
                return
            most = max(most, left)
            progress.update(task, total=most, completed=most - left, left=left)
            time.sleep(0.5)
    raise click.ClickException(
        f"still {left} records after {timeout} s; `vigilhost status` tells what the sinks answer"
    )


@journal.command()
@click.argument("reader", required=False)
@_config
@_state_dir
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(reader: str | None, config: str | None, state_dir: str | None, yes: bool) -> None:
    """Forget what READER (a sink's name; all of them by default) has not had. It is gone for good."""
    if not yes:
        click.confirm(f"forget everything that {reader or 'any sink'} has not had yet?", abort=True)
    lost = ask_agent("purge", config=config, state_dir=state_dir, reader=reader)
    click.echo(f"forgotten: {lost} records")


@journal.command()
@_config
@_state_dir
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def dead(config: str | None, state_dir: str | None, as_json: bool) -> None:
    """The lines that sinks refused for good, oldest first: time, reason, line."""
    directory = state_dir or load_or_exit(config).settings.state_dir
    for path in sorted(glob.glob(os.path.join(glob.escape(directory), "dead-letters-*.jsonl"))):
        sink = os.path.basename(path).removeprefix("dead-letters-").removesuffix(".jsonl")
        for letter in DeadLetters(path).read():
            if as_json:
                click.echo(json.dumps({"sink": sink, **letter}))
            else:
                when = datetime.fromtimestamp(letter["time"]).astimezone().isoformat(" ", "seconds")
                click.echo(f"{when} {sink}: {letter['reason']}\n  {letter['line']}")
