"""`vigilhost export`: samples out of history into a file other programs read."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import IO

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from agent.cli.answers import AskError, answers
from agent.cli.query_cmd import complain, duration_ms, moment
from agent.core.labels import METRIC_NAME, Labels, value_of
from agent.http.export_formats import FORMATS

_EVERYTHING = '{__name__!=""}'


@click.command()
@click.option("--since", metavar="DURATION", default="1h", show_default=True, help="How far back, such as 7d.")
@click.option("--until", metavar="TIME", help="The end: Unix seconds, RFC 3339, or 1h for an hour ago; now by default.")
@click.option("--match", "selectors", metavar="SELECTOR", multiple=True,
              help='Which series, such as node_load1 or {job="node"}; repeat it for more. All by default.')  # fmt: skip
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="csv",
              show_default=True, help="openmetrics is what promtool takes, jsonl VictoriaMetrics.")  # fmt: skip
@click.option("-o", "--output", metavar="FILE", default="-", help="Where to; standard output by default.")
@click.option("--config", metavar="FILE", help="Configuration file of the agent to ask.")
@click.option("--state-dir", metavar="DIR", help="State directory of the agent to ask.")
@click.option("--url", metavar="URL", help="Address of an agent to ask, such as http://127.0.0.1:9811.")
def export(since: str, until: str | None, selectors: tuple[str, ...], form: str, output: str, config: str | None,
           state_dir: str | None, url: str | None) -> None:  # fmt: skip
    """Write the samples history keeps into a file.

    Samples of the last 24 hours are written as they were measured, older ones as history keeps them. FILE appears when
    it is complete. Exit status 0 written, 1 nobody answers or the file cannot be written, 2 the question is wrong.
    """
    end_ms = moment(until)
    start_ms = end_ms - duration_ms(since, "--since")
    wanted = selectors or (_EVERYTHING,)
    asked = answers(config, state_dir, url)
    count = 0
    try:
        series = asked.series(wanted, start_ms, end_ms)
        writer = FORMATS[form].writer(asked.metadata())
        with _opened(output) as file, _progress(len(series)) as bar:
            file.write(writer.head(series))
            done: set[Labels] = set()
            for labels, columns in asked.samples(wanted, series, start_ms, end_ms):
                if labels not in done:
                    done.add(labels)
                    bar.update(bar.task_ids[0], completed=len(done) - 1, series=value_of(labels, METRIC_NAME))
                file.write(writer.part(labels, columns))
                count += len(columns[0])
            file.write(writer.tail())
            bar.update(bar.task_ids[0], completed=len(series))
    except AskError as error:
        complain(" ".join(selectors), error)
    except OSError as error:
        raise click.ClickException(f"{output}: {os.strerror(error.errno or 0).lower()}") from error
    click.echo(f"{count} samples of {len(series)} series", err=True)


def _progress(total: int) -> Progress:
    """A bar on standard error; nothing where that is no terminal."""
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("series"), TimeRemainingColumn(),
               TextColumn("{task.fields[series]}", style="dim", markup=False))  # fmt: skip
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    bar.add_task("export", total=total, series="")
    return bar


@contextlib.contextmanager
def _opened(output: str) -> Iterator[IO[str]]:
    """Where to write; a file takes its name only when all of it is there, and is readable by its owner alone."""
    if output == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    partial = f"{output}.partial"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8", errors="replace", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, output)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise
