"""`vigilhost status` and `vigilhost reload`: asking the running agent."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.cli.agent_socket import ask_agent
from agent.core.units import format_duration, rough_size

_config = click.option("--config", metavar="FILE", help="Configuration file of the agent to ask.")
_state_dir = click.option("--state-dir", metavar="DIR", help="State directory of the agent to ask.")
_COLOURS = {"ok": "green", "failing": "red", "starting": "yellow", "stalled": "red", "degraded": "yellow",
            "warn": "yellow", "fail": "red"}  # fmt: skip


@click.command()
@_config
@_state_dir
@click.option("--json", "as_json", is_flag=True, help="The whole answer as JSON.")
def status(config: str | None, state_dir: str | None, as_json: bool) -> None:
    """How the running agent is: exit status 0 ok, 1 not running, 3 degraded or stalled."""
    answer = ask_agent("status", config=config, state_dir=state_dir)
    if as_json:
        click.echo(json.dumps(answer, indent=1))
    else:
        _show(answer)
    sys.exit(0 if answer["status"] == "ok" else 3)


@click.command()
@_config
@_state_dir
def reload(config: str | None, state_dir: str | None) -> None:
    """Have the running agent take over the configuration; a wrong one is refused and nothing changes."""
    changed = ask_agent("reload", config=config, state_dir=state_dir)
    click.echo(f"reloaded: {changed['collectors']} collectors, {changed['unchanged']} of them unchanged")


def _show(answer: dict[str, Any]) -> None:
    console = Console()
    uptime = format_duration(int(answer["uptime_s"]))
    line = Text.assemble("vigilhost ", answer["version"], ", pid ", str(answer["pid"]), f", up {uptime}: ")
    line.append(answer["status"], style=_COLOURS[answer["status"]])
    console.print(line)
    if answer["reload_error"]:
        console.print(Text(f"the last reload was refused: {answer['reload_error']}", style="red"))
    console.print(_collectors(answer["collectors"]))
    if answer["sinks"]:
        console.print(_sinks(answer["sinks"]))
    if jobs := answer["backups"].get("jobs"):
        console.print(_backups(jobs, time.time()))
    if answer["backups"].get("error"):
        console.print(Text(f"backups: {answer['backups']['error']}", style="red"))


def _collectors(collectors: dict[str, Any]) -> Table:
    table = Table(
        "collector", "state", "each", "readings", "took", "skipped", "failures", box=None, header_style="bold"
    )
    for name, each in sorted(collectors.items()):
        state = Text(each["state"], style=_COLOURS.get(each["state"], "dim"))
        if each["error"]:
            state.append(f": {each['error']}")
        interval = format_duration(each["interval_s"])
        counts = (str(each["readings"]), f"{each['duration_ms']:.1f} ms", str(each["skipped"]), str(each["failures"]))
        table.add_row(Text(name), state, interval, *counts)
    return table


def _sinks(sinks: dict[str, Any]) -> Table:
    table = Table("sink", "state", "lines", "latency", "dead letters", "last success", box=None, header_style="bold")
    for name, each in sorted(sinks.items()):
        state = Text(each["state"], style=_COLOURS.get(each["state"], "dim"))
        if each["error"]:
            state.append(f": {each['error']}")
        row = (str(each["lines"]), f"{each['latency_s']} s", str(each["dead_letters"]), each["last_success"] or "never")
        table.add_row(Text(name), state, *row)
    return table


def _backups(jobs: dict[str, Any], now: float) -> Table:
    table = Table("backup", "state", "newest copy", "rpo", "next run", "drill", box=None, header_style="bold")
    for name, each in sorted(jobs.items()):
        state = Text(each["status"], style=_COLOURS.get(each["status"], "dim"))
        for remark in _remarks(each):
            state.append(f"; {remark}")
        newest = "none" if each["last_success_at"] is None else f"{_rough(each['age_s'])} old"
        rpo = "" if each["rpo_s"] is None else _rough(each["rpo_s"])
        coming = "never" if each["next_run_at"] is None else f"in {_rough(max(0, each['next_run_at'] - now))}"
        drill = Text(each["drill"], style=_COLOURS.get(each["drill"], "dim"))
        if each["rto_s"] is not None:
            drill.append(f", {_rough(each['rto_s'])}")
        table.add_row(Text(name), state, newest, rpo, coming, drill)
    return table


def _remarks(job: dict[str, Any]) -> list[str]:
    """What else there is to say of a job: how far it is, what went wrong."""
    running = job["progress"]
    return [
        *([f"runs: {running['phase']}, {rough_size(running['stored_bytes'] or 0)}"] if running else []),
        *(text for text in (job["error"], job["drill_error"], job["drill_undone"], job["heartbeat_error"]) if text),
    ]


def _rough(seconds: float) -> str:
    """A duration in its two largest units at most."""
    step = 3600 if seconds >= 86400 else 60 if seconds >= 3600 else 1
    return format_duration(round(seconds) // step * step)
