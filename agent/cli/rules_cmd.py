"""`vigilhost rules`: which rules are in force, and trying out new ones before they are."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from datetime import datetime

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table
from rich.text import Text

from agent.cli.agent_socket import ask_agent
from agent.cli.alerts_cmd import duration_type
from agent.cli.config_cmd import load_or_exit
from agent.cli.kept_history import KeptHistory, NothingKeptError
from agent.core.labels import show
from agent.core.units import format_duration
from agent.known_series import KnownSeries
from agent.promql_language import PromQL
from agent.rule_sets import default_rule_files
from agent.rules_lab import RulesLab
from alerting.backtest import Stretch, backtest
from alerting.judge import Surroundings
from alerting.rule_check import missing_series
from alerting.rule_files import RuleSet, read_rule_files
from alerting.unit_test_run import run_test_file
from sinks.history.history import DIRECTORY

EXIT_WRONG = 2
_LOOK_BACK_MS = 86_400_000
_COLOURS = {"firing": "red", "pending": "yellow", "err": "red", "ok": "green"}

_config = click.option("--config", metavar="FILE", help="Configuration file of the agent to ask.")
_state_dir = click.option("--state-dir", metavar="DIR", help="State directory of the agent to ask.")
_files = click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False))


@click.group(name="rules")
def rules() -> None:
    """Rules of alerts and recorded series."""


@rules.command(name="list")
@_config
@_state_dir
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_rules(config: str | None, state_dir: str | None, as_json: bool) -> None:
    """Rules in force in the running agent. Exit status 3 when one cannot be evaluated or was left out."""
    found = ask_agent("rules", config=config, state_dir=state_dir)
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        name = Column("rule", overflow="fold")  # it is what people copy
        table = Table(name, "state", "health", "series", "took", "from", box=None, header_style="bold")
        for each in found["rules"]:
            health = Text(each["health"], style=_COLOURS.get(each["health"], "dim"))
            health.append(f": {each['error'] or each['remark']}" if each["error"] or each["remark"] else "")
            health.append(" (no data)" if each["is_blind"] else "", style="yellow")
            state = Text(each["state"] if each["type"] == "alerting" else "", style=_COLOURS.get(each["state"], ""))
            took = f"{each['seconds'] * 1000:.1f} ms"
            place = Text(os.path.basename(each["place"]), style="dim")
            table.add_row(Text(f"{each['group']}/{each['name']}"), state, health, str(each["samples"]), took, place)
        Console().print(table)
        for problem in found["left_out"]:
            click.echo(f"left out: {problem}", err=True)
    is_well = not found["left_out"] and all(each["health"] != "err" for each in found["rules"])
    sys.exit(0 if is_well else 3)


@rules.command()
@_files
@_config
@_state_dir
def check(files: tuple[str, ...], config: str | None, state_dir: str | None) -> None:
    """Check rule FILES (the ones that come with the agent by default): syntax, and whether their series exist here.

    Exit status 2 when something is wrong; a series that does not exist here is only said.
    """
    found = _read(files or default_rule_files())
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)
    history = _history(config, state_dir, must=False)
    now_ms = time.time_ns() // 1_000_000
    if history is None or not KnownSeries(history, 0, now_ms).metrics():
        click.echo("there is no history here yet, so whether the series exist is not known", err=True)
    else:
        for missing in missing_series(found.groups, KnownSeries(history, now_ms - _LOOK_BACK_MS, now_ms)):
            click.echo(f"no data: {missing}", err=True)
    count = sum(1 for _ in found.rules())
    click.echo(f"{count} rules in {len(found.groups)} groups, {len(found.errors)} errors")
    sys.exit(EXIT_WRONG if found.errors else 0)


@rules.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
def test(files: tuple[str, ...]) -> None:
    """Carry out unit-test FILES, as `promtool test rules` does. Exit status 1 when any fails."""
    has_passed = True
    for file in files:
        report = run_test_file(file, PromQL(), RulesLab)
        has_passed &= report.passed
        click.echo(f"{file}: {'passed' if report.passed else 'FAILED'}")
        for line in (*report.remarks, *report.failures):
            click.echo(f"  {line}")
    sys.exit(0 if has_passed else 1)


@rules.command(name="backtest")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--since", type=duration_type, default="7d", show_default=True, help="How far back.")
@click.option("--interval", type=duration_type, default="15s", show_default=True, help="Between two evaluations.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@_config
@_state_dir
def backtest_rules(
    file: str, since: float, interval: float, as_json: bool, config: str | None, state_dir: str | None
) -> None:
    """When the rules of FILE would have fired, by the history on disk. Nothing is told to anybody."""
    found = _read([file])
    if found.errors:
        sys.exit(EXIT_WRONG)
    history = _history(config, state_dir, must=True)
    end = time.time()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("backtest", total=1.0)
        done = backtest(
            found.groups, RulesLab(base=history), end - since, end, interval, Surroundings(),
            lambda part: progress.update(task, completed=part),
        )  # fmt: skip
    for error in done.errors:
        click.echo(f"{error}", err=True)
    firings = sorted(done.firings(), key=lambda one: one.pending_at)
    if as_json:
        click.echo(json.dumps([_stretch(one) for one in firings], indent=1))
        return
    table = Table("fires", "until", "lasts", "peak", "alert", box=None, header_style="bold")
    for one in firings:
        until, fired_at = one.resolved_at, one.fired_at or one.pending_at
        lasts = format_duration(float(round((until or end) - fired_at)))
        alert = Text(f"{one.alert} {show(one.labels)}")
        table.add_row(_time(fired_at), _time(until) if until else "still", lasts, f"{one.peak:.6g}", alert)
    Console().print(table)
    click.echo(f"{len(firings)} times in {format_duration(since)}, {done.evaluations} evaluations")


def _read(files: Sequence[str]) -> RuleSet:
    found = read_rule_files(files, PromQL())
    for error in found.errors:
        click.echo(str(error), err=True)
    return found


def _history(config: str | None, state_dir: str | None, *, must: bool) -> KeptHistory | None:
    """The history on disk, up to now where an agent runs; None where there is none and that is no mistake."""
    with contextlib.suppress(click.ClickException):  # nobody runs, or not for this user: then it is as old as it is
        ask_agent("history_write", config=config, state_dir=state_dir)
    directory = state_dir or load_or_exit(config).settings.state_dir
    try:
        return KeptHistory(os.path.join(directory, DIRECTORY))
    except NothingKeptError as error:
        if must:
            raise click.ClickException(f"{error}; --state-dir names the directory of another agent") from error
        return None


def _stretch(one: Stretch) -> dict[str, object]:
    return {
        "alert": one.alert, "labels": dict(one.labels), "pending_at": one.pending_at, "fired_at": one.fired_at,
        "resolved_at": one.resolved_at, "peak": one.peak, "annotations": dict(one.annotations),
    }  # fmt: skip


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")
