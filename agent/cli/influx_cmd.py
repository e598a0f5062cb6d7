"""`vigilhost influx`: an InfluxDB 2 made ready for what the agents send."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from agent.cli.alerts_cmd import duration_type
from agent.cli.config_cmd import load_or_exit
from agent.config import Entry, Settings
from agent.influx.plan import Plan, Retention, groups_of, plan

_COLOURS = {"there": "dim", "made": "green", "changed": "yellow"}
_WORDS = {"there": "is there", "made": "made", "changed": "changed"}


@click.group()
def influx() -> None:
    """An InfluxDB 2 that the agents send to."""


@influx.command()
@click.option("--config", metavar="FILE", help="Configuration that has the sink.")
@click.option("--sink", "name", metavar="NAME", help="Which sink, where there is more than one of InfluxDB.")
@click.option(
    "--token-file", type=click.Path(), help="Token that may manage buckets and tasks; INFLUX_TOKEN has it too."
)
@click.option("--raw", type=duration_type, default="24h", show_default=True, help="Retention of readings as they came.")
@click.option("--five-minutes", type=duration_type, default="30d", show_default=True, help="Of 5-minute windows.")
@click.option("--one-hour", type=duration_type, default="365d", show_default=True, help="Of hours.")
@click.option("--one-day", type=duration_type, default="0", show_default=True, help="Of days; 0 keeps for ever.")
@click.option("--shorten", is_flag=True, help="Let a bucket that is there keep less, which deletes what is older.")
@click.option("--dry-run", is_flag=True, help="Print the Flux of the tasks and ask the server nothing.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def setup(
    config: str | None, name: str | None, token_file: str | None, raw: int, five_minutes: float, one_hour: float,
    one_day: float, shorten: bool, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Make the bucket, its downsampled buckets and the tasks that fill them; check the sink's token.

    Run it as often as you like: what is right stays as it is, and the last line says whether anything changed. Exit
    status 1 when something cannot be done.
    """
    settings = load_or_exit(config).settings
    entry = _entry(settings, name)
    try:
        wanted = plan(
            entry.options["bucket"], Retention(*map(round, (raw, five_minutes, one_hour, one_day))), groups_of(settings)
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if dry_run:
        _show_plan(wanted, as_json=as_json)
        return
    _carry_out(entry, wanted, _token(token_file, entry.options), may_shorten=shorten, as_json=as_json)


def _entry(settings: Settings, name: str | None) -> Entry:
    """The sink that is meant."""
    found = {key: entry for key, entry in settings.sinks.items() if entry.type == "influxdb"}
    if name is not None and name in found:
        return found[name]
    known = ", ".join(found) or "none"
    if name is not None:
        raise click.UsageError(f"--sink {name}: no such sink of InfluxDB; there are: {known}")
    if len(found) != 1:
        hint = "name one with --sink" if found else "write one into sinks, or see `vigilhost init`"
        raise click.UsageError(f"which sink? of InfluxDB there are: {known}; {hint}")
    return next(iter(found.values()))


def _token(file: str | None, options: Mapping[str, Any]) -> str:
    """What the setup may do: a token's text. It is never taken from the command line, which others can read."""
    if file is not None:
        try:
            with open(file, encoding="utf-8") as opened:
                return opened.read().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise click.UsageError(f"--token-file {file}: {error}") from error
    own = options["token"]
    return os.environ.get("INFLUX_TOKEN", "").strip() or (own.reveal() if own is not None else "")


def _show_plan(wanted: Plan, *, as_json: bool) -> None:
    if as_json:
        buckets = [{"name": one.name, "retention_s": one.seconds} for one in wanted.buckets]
        tasks = [{"name": one.name, "flux": one.flux} for one in wanted.tasks]
        click.echo(json.dumps({"buckets": buckets, "tasks": tasks}, indent=1))
        return
    click.echo("\n".join(task.flux for task in wanted.tasks), nl=False)


def _carry_out(entry: Entry, wanted: Plan, token: str, *, may_shorten: bool, as_json: bool) -> None:
    from agent.influx.setup import Server, SetupError  # influxdb-client: half a second, and --dry-run needs none of it

    console = Console(highlight=False, soft_wrap=True)
    done = []
    try:
        server = Server(entry.build(), token)
        try:
            for one in server.apply(wanted, may_shorten=may_shorten):
                done.append(one)
                if not as_json:
                    detail = f" ({one.detail})" if one.detail else ""
                    console.print(Text(f"{one.what}: ").append(_WORDS[one.change], _COLOURS[one.change]).append(detail))
            done.append(server.check_writing())
        finally:
            server.close()
    except SetupError as error:
        raise click.ClickException(f"sinks.{entry.name}: {error}") from error
    changes = sum(one.change != "there" for one in done)
    if as_json:
        click.echo(json.dumps({"changes": changes, "done": [one._asdict() for one in done]}, indent=1))
        return
    click.echo(done[-1].what)
    click.echo(
        f"{changes} change{'' if changes == 1 else 's'}" if changes else "nothing changed: all is as it should be"
    )
