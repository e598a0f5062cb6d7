"""`vigilhost dashboards`: dashboards for what the agents measure, made from the declarations."""

from __future__ import annotations

import json
from typing import Any

import click

from agent.cli.config_cmd import load_or_exit
from agent.config import Loaded
from agent.dashboards.grafana import dashboard
from agent.dashboards.names import Declared
from agent.dashboards.panels import rows
from agent.dashboards.thresholds import Thresholds
from agent.influx.plan import groups_of
from agent.rule_sets import load_rules, rules_directory

SOURCES = ("influxdb", "prometheus", "vigilhost")


@click.group()
def dashboards() -> None:
    """Dashboards of what the agents measure."""


@dashboards.command()
@click.argument("kind", type=click.Choice(["grafana"]))
@click.option("--source", type=click.Choice(SOURCES), required=True, help="What Grafana asks.")
@click.option("--language", type=click.Choice(["flux", "influxql"]), default="flux", show_default=True,
              help="How an InfluxDB is asked: Flux (2.x) or InfluxQL (1.x, 3).")  # fmt: skip
@click.option(
    "--config", metavar="FILE", help="Configuration whose rules give the threshold lines, whose sink the bucket."
)
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="File to write instead of standard output.")
def export(kind: str, source: str, language: str, config: str | None, output: str | None) -> None:  # noqa: ARG001
    """Print a dashboard of KIND (grafana).

    Import it in Grafana (Dashboards, New, Import), or put it where its provisioning looks. It asks for a data source
    and a host; threshold lines are those of the rules in force here.
    """
    text = as_text(made(language if source == "influxdb" else source, load_or_exit(config)))
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        with open(output, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise click.ClickException(f"{output}: {(error.strerror or str(error)).lower()}") from error
    click.echo(f"written: {output}")


def as_text(document: dict[str, Any]) -> str:
    """The file's content."""
    return json.dumps(document, indent=2) + "\n"


def made(dialect: str, loaded: Loaded) -> dict[str, Any]:
    """The dashboard. Raise ValueError when a panel asks for what no collector declares."""
    settings = loaded.settings
    options = settings.alerting.rules
    shown = rows(dialect)
    faults = Declared(groups_of(settings)).faults(shown)
    if faults:
        raise ValueError("; ".join(faults))
    found = load_rules(options, rules_directory(options, loaded.files))
    buckets = [entry.options["bucket"] for entry in settings.sinks.values() if entry.type == "influxdb"]
    return dashboard(dialect, shown, Thresholds(found), bucket=next(filter(None, buckets), "hosts"))
