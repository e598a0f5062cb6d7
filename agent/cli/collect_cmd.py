"""`vigilhost collect` and `vigilhost collectors`: one look at the sources, without the daemon."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.config import ConfigError, Loaded, load
from agent.config.tables import COLLECTORS
from agent.core.clock import NS
from agent.core.collector import Collector
from agent.core.errors import SourceError, SourceMissing
from agent.core.model import Failed, Reading, Tick
from agent.core.stat_helper import StatHelper
from agent.core.units import format_duration
from sinks.line_protocol import Encoder
from sinks.prometheus import Exposition

_config = click.option("--config", metavar="FILE", help="Configuration file.")
_BETWEEN_S = 1.0  # rates need two looks


def _load(config: str | None) -> Loaded:
    try:
        return load(config)
    except ConfigError as error:
        for problem in error.errors:
            click.echo(problem, err=True)
        sys.exit(2)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--format", "form", type=click.Choice(["influx", "prometheus", "table"]), default="table")
@_config
def collect(names: tuple[str, ...], form: str, config: str | None) -> None:
    """Gather once and print (NAMES: which collectors; all by default). Exit status 1 when one fails."""
    loaded = _load(config)
    entries = loaded.settings.collectors
    unknown = [name for name in names if name not in entries]
    if unknown:
        raise click.UsageError(f"no such collector is turned on: {', '.join(unknown)}; there are {', '.join(entries)}")
    given = {"host": loaded.settings.paths.host, "stat_remote": StatHelper()}
    chosen = [entries[name].build(**given) for name in names or entries]
    ticks, has_failed = _gather(chosen, is_asked=bool(names))
    if form == "influx":
        tags = {"host": loaded.settings.hostname, **loaded.settings.tags}
        for line in Encoder(tags).encode(ticks):
            click.echo(line)
    elif form == "prometheus":
        click.echo(Exposition().render(ticks), nl=False)
    else:
        _print_table(ticks)
    sys.exit(1 if has_failed else 0)


def _gather(chosen: Iterable[Collector], *, is_asked: bool) -> tuple[list[Tick], bool]:
    """Two looks at each source a second apart, the second one kept: rates and percentages need both."""
    has_failed = False
    working = []
    for collector in chosen:
        try:
            list(collector.collect())
            working.append(collector)
        except SourceMissing as error:
            if is_asked:
                click.echo(f"{collector.name}: {error}", err=True)
                has_failed = True
        except SourceError as error:
            click.echo(f"{collector.name}: {error}", err=True)
            has_failed = True
    time.sleep(_BETWEEN_S)
    now_ns = time.time_ns() // NS * NS
    ticks = []
    for collector in working:
        try:
            items = list(collector.collect())
        except SourceError as error:
            click.echo(f"{collector.name}: {error}", err=True)
            has_failed = True
            continue
        for item in items:
            if isinstance(item, Failed):
                click.echo(f"{collector.name}: {item.target}: {item.reason}", err=True)
                has_failed = True
        ticks.append(Tick(now_ns, collector.name, [item for item in items if isinstance(item, Reading)]))
    return ticks, has_failed


def _print_table(ticks: Iterable[Tick]) -> None:
    table = Table("collector", "measurement", "tags", "field", "value", box=None, header_style="bold")
    table.columns[4].justify = "right"
    for tick in ticks:
        for reading in tick.readings:
            tags = " ".join(f"{t.influx}={v}" for t, v in zip(reading.group.tags, reading.tags, strict=True) if v)
            for name, value in reading.as_dict().items():
                shown = f"{value:.4g}" if isinstance(value, float) else str(value)
                table.add_row(tick.collector, reading.group.measurement, Text(tags), name, Text(shown))
    Console().print(table)


@click.command()
@_config
def collectors(config: str | None) -> None:
    """Which collectors there are, how often they run, and whether they work here and why not."""
    loaded = _load(config)
    table = Table("collector", "each", "state here", "readings", box=None, header_style="bold")
    stat_remote = StatHelper()  # so that a mount that hangs does not hang this command
    for name in COLLECTORS.names():
        entry = loaded.settings.collectors.get(name)
        if entry is None:
            table.add_row(name, "", Text("off", style="dim"), "")
            continue
        collector = entry.build(host=loaded.settings.paths.host, stat_remote=stat_remote)
        state, readings = _try(collector)
        table.add_row(name, format_duration(collector.interval), state, readings)
    Console().print(table)


def _try(collector: Collector) -> tuple[Text, str]:
    try:
        items = list(collector.collect())
    except SourceMissing as error:
        return Text(f"nothing to measure: {error}", style="dim"), ""
    except SourceError as error:
        return Text(f"fails: {error}", style="red"), ""
    failed = [f"{item.target}: {item.reason}" for item in items if isinstance(item, Failed)]
    if failed:
        return Text("partly: " + "; ".join(failed), style="yellow"), str(len(items) - len(failed))
    return Text("works", style="green"), str(len(items))
