"""`vigilhost query`: PromQL on the command line, as a table, JSON, CSV or a chart."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

import click
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.cli.answers import EXIT_BAD_QUESTION, AskError, answers
from agent.cli.chart import COLOURS, Line, bar_chart, line_chart, short
from agent.core.labels import METRIC_NAME, Labels, quote, value_of, without_name
from agent.core.query import Points, Result
from agent.core.units import parse_duration
from agent.http.encoding import query_data
from agent.http.export_formats import Csv
from agent.http.times import iso, parse_moment

_POINTS = 500  # of a range whose step is left out
_CHART_LINES = 6
_CHART_HEIGHT = 16


@click.command()
@click.argument("expression", metavar="EXPR")
@click.option("--at", metavar="TIME", help="The moment, or the end of --since: Unix seconds, RFC 3339, or 1h for ago.")
@click.option("--since", metavar="DURATION", help="Values over that long, such as 1h or 7d.")
@click.option("--step", metavar="DURATION", help="Distance of values; chosen when left out.")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv", "chart"]), default="table",
              show_default=True, help="chart shows the last hour unless --since says otherwise.")  # fmt: skip
@click.option("--config", metavar="FILE", help="Configuration file of the agent to ask.")
@click.option("--state-dir", metavar="DIR", help="State directory of the agent to ask.")
@click.option("--url", metavar="URL", help="Address of an agent to ask, such as http://127.0.0.1:9811.")
def query(expression: str, at: str | None, since: str | None, step: str | None, form: str, config: str | None,
          state_dir: str | None, url: str | None) -> None:  # fmt: skip
    """Ask history with PromQL: the value now, or over time with --since.

    Exit status 0 answered (even with nothing), 1 nobody answers, 2 the question is wrong.
    """
    end_ms = moment(at)
    length_ms = duration_ms(since, "--since") if since else 3_600_000 if form == "chart" and not at else 0
    if step and not length_ms:
        raise click.UsageError("--step needs --since")
    asked = answers(config, state_dir, url)
    try:
        if length_ms:
            step_ms = duration_ms(step, "--step") if step else even_step(length_ms)
            result = asked.range(expression, end_ms - length_ms, end_ms, step_ms)
        else:
            result = asked.instant(expression, end_ms)
    except AskError as error:
        complain(expression, error)
    for remark in (*result.warnings, *result.infos):
        click.echo(remark, err=True)
    _SHOW[form](result)


def moment(text: str | None) -> int:
    """The moment in ms: now when None. Raise click.UsageError."""
    now_ms = time.time_ns() // 1_000_000
    if text is None:
        return now_ms
    try:
        return parse_moment(text)
    except ValueError:
        pass  # then it may be a duration
    try:
        return now_ms - round(parse_duration(text.removeprefix("-")) * 1000)
    except ValueError:
        raise click.UsageError(
            f"{text!r} is not a moment; write it like 2026-01-31T12:00:00Z, 1769860800, or 1h for an hour ago"
        ) from None


def duration_ms(text: str, name: str) -> int:
    """A duration above zero, in ms. Raise click.UsageError."""
    try:
        found = round(parse_duration(text) * 1000)
    except ValueError as error:
        raise click.UsageError(f"{name}: {error}") from error
    if found <= 0:
        raise click.UsageError(f"{name}: {text!r} is no time at all; write it like 30s or 1h")
    return found


def even_step(length_ms: int) -> int:
    """The shortest whole second that gives no more than the usual number of points."""
    return max(1000, -(-length_ms // _POINTS // 1000) * 1000)


def complain(expression: str, error: AskError) -> NoReturn:
    """Say what is wrong, with a caret under the place, and end the command."""
    if error.line:
        lines = expression.split("\n")
        shown = lines[min(error.line, len(lines)) - 1].replace("\t", " ")
        before = shown[: error.column - 1]
        if cell_len(before) > 100:  # the end of a long line is what the caret points at
            shown, before = "..." + shown[error.column - 60 :], "..." + shown[error.column - 60 : error.column - 1]
        click.echo(f"  {shown[:200]}\n  {' ' * cell_len(before)}^", err=True)
    click.echo(f"error: {error}", err=True)
    sys.exit(EXIT_BAD_QUESTION if error.is_wrong else 1)


def names_apart(series: Sequence[Labels]) -> list[str]:
    """Each series as PromQL writes it, where there are several without the labels that all of them share."""
    if len(series) < 2:
        return [written_series(labels) for labels in series]
    shared = set(series[0]).intersection(*series[1:])
    return [
        written_series(tuple(pair for pair in labels if pair not in shared or pair[0] == METRIC_NAME))
        for labels in series
    ]


def written_series(labels: Labels) -> str:
    """The series as PromQL writes it: node_load1{job="node"}."""
    inside = ", ".join(f"{name}={quote(value)}" for name, value in without_name(labels))
    return value_of(labels, METRIC_NAME) + (f"{{{inside}}}" if inside else "") or "{}"


def _as_json(result: Result) -> None:
    answer = json.loads("".join(query_data(result)))
    remarks = {"warnings": list(result.warnings), "infos": list(result.infos)}
    click.echo(json.dumps({**answer, **{name: found for name, found in remarks.items() if found}}, ensure_ascii=False))


def _rows(result: Result) -> list[Points]:
    """Any result but a text as series over time."""
    if result.kind == "matrix":
        return result.matrix()
    return [Points(one.labels, [one.time_ms], [one.value]) for one in result.vector()]


def _as_csv(result: Result) -> None:
    if result.kind == "string":
        click.echo(f"time,value\n{iso(result.time_ms)},{quote(str(result.value))}")
        return
    rows = _rows(result)
    writer = Csv({})
    click.echo(writer.head([row.labels for row in rows]), nl=False)
    for row in rows:
        click.echo(writer.part(row.labels, (row.times_ms, row.values)), nl=False)


def _as_table(result: Result) -> None:
    console = Console()
    if result.kind == "string":
        click.echo(result.value)
    elif result.kind == "scalar":
        click.echo(repr(result.vector()[0].value).removesuffix(".0"))
    elif result.kind == "matrix":
        table = Table("series", "points", "first", "min", "avg", "max", "last", box=None, header_style="bold")
        table.columns[0].overflow = "fold"
        for column in table.columns[1:]:
            column.justify = "right"
        for points in result.matrix():
            values = list(points.values)
            facts = (values[0], min(values), sum(values) / len(values), max(values), values[-1])
            table.add_row(Text(written_series(points.labels)), str(len(values)), *map(short, facts))
        _print_table(console, table)
    else:
        table = Table("series", "value", box=None, header_style="bold")
        table.columns[0].overflow, table.columns[1].justify = "fold", "right"
        for sample in result.vector():
            table.add_row(Text(written_series(sample.labels)), repr(sample.value).removesuffix(".0"))
        _print_table(console, table)


def _print_table(console: Console, table: Table) -> None:
    if table.row_count:
        console.print(table)
    else:
        click.echo("nothing: no series has a value there", err=True)


def _as_chart(result: Result) -> None:
    if result.kind == "string":
        raise click.UsageError("a text cannot be drawn")
    console = Console()
    rows = _rows(result)
    names = names_apart([row.labels for row in rows])
    if not rows:
        click.echo("nothing: no series has a value there", err=True)
    elif result.kind != "matrix":
        for text in bar_chart(list(zip(names, (row.values[0] for row in rows), strict=True)), console.width):
            console.print(text, no_wrap=True)
    else:
        drawn = [
            Line(name, row.times_ms, row.values)
            for name, row in zip(names[:_CHART_LINES], rows[:_CHART_LINES], strict=True)
        ]
        for text in line_chart(drawn, console.width, _CHART_HEIGHT):
            console.print(text, no_wrap=True, crop=False)
        for at, line in enumerate(drawn):
            legend = Text.assemble(("━━ ", COLOURS[at]), line.name, (f"  last {short(line.values[-1])}", "dim"))
            console.print(legend, soft_wrap=True)
        if len(rows) > _CHART_LINES:
            console.print(f"and {len(rows) - _CHART_LINES} more; topk({_CHART_LINES}, ...) chooses which", style="dim")


_SHOW = {"table": _as_table, "json": _as_json, "csv": _as_csv, "chart": _as_chart}
