"""`vigilhost history`: what this host remembers of itself."""

from __future__ import annotations

import json
import sys
from datetime import datetime

import click
from rich.console import Console
from rich.table import Table

from agent.cli.agent_socket import ask_agent
from agent.core.units import format_size


@click.group()
def history() -> None:
    """What this host remembers of itself."""


@history.command()
@click.option("--config", metavar="FILE", help="Configuration file of the agent to ask.")
@click.option("--state-dir", metavar="DIR", help="State directory of the agent to ask.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def status(config: str | None, state_dir: str | None, as_json: bool) -> None:
    """How much is remembered, since when, and what it takes on disk. Exit status 3 while the disk takes nothing."""
    found = ask_agent("history", config=config, state_dir=state_dir)
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        used, most = format_size(found["disk_bytes"]), format_size(found["max_bytes"])
        click.echo(f"{found['series']} series, {found['head_samples']} samples in memory, {used} of {most} on disk")
        if found["error"]:
            click.echo(f"the disk takes nothing: {found['error']}", err=True)
        table = Table("tier", "samples", "size", "bytes a sample", "from", "to", box=None, header_style="bold")
        for name, tier in found["tiers"].items():
            each = f"{tier['bytes'] / tier['samples']:.2f}" if tier["samples"] else ""
            times = (_time(tier["oldest_ms"]), _time(tier["newest_ms"]))
            table.add_row(name, str(tier["samples"]), format_size(tier["bytes"]), each, *times)
        Console().print(table)
    sys.exit(0 if found["state"] != "failing" else 3)


def _time(ms: int | None) -> str:
    return datetime.fromtimestamp(ms / 1000).astimezone().isoformat(" ", "seconds") if ms is not None else ""
