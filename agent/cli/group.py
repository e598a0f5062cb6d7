"""The click group: which commands there are and where they live."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from agent import __version__

# Command -> module and attribute. Imported when called, so that `vigilhost status` does not pay for `vigilhost query`.
COMMANDS: Mapping[str, str] = {
    "run": "agent.cli.run_cmd:run",
    "check": "agent.cli.config_cmd:check",
    "config": "agent.cli.config_cmd:config",
    "collect": "agent.cli.collect_cmd:collect",
    "collectors": "agent.cli.collect_cmd:collectors",
    "query": "agent.cli.query_cmd:query",
    "export": "agent.cli.export_cmd:export",
    "history": "agent.cli.history_cmd:history",
    "journal": "agent.cli.journal_cmd:journal",
    "doctor": "agent.cli.doctor_cmd:doctor",
    "status": "agent.cli.status_cmd:status",
    "reload": "agent.cli.status_cmd:reload",
    "alerts": "agent.cli.alerts_cmd:alerts",
    "silence": "agent.cli.alerts_cmd:silence",
    "silences": "agent.cli.alerts_cmd:silences",
    "unsilence": "agent.cli.alerts_cmd:unsilence",
    "notify": "agent.cli.alerts_cmd:notify",
    "rules": "agent.cli.rules_cmd:rules",
    "influx": "agent.cli.influx_cmd:influx",
    "dashboards": "agent.cli.dashboards_cmd:dashboards",
    "init": "agent.cli.init_cmd:init",
    "backup": "agent.cli.backup_cmd:backup",
    "backup-helper": "agent.cli.backup_helper_cmd:backup_helper",
    "backup-drill-helper": "agent.cli.backup_drill_helper_cmd:backup_drill_helper",
    "completion": "agent.cli.completion_cmd:completion",
}


class LazyGroup(click.Group):
    """A group whose commands are imported on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        target = COMMANDS.get(name)
        if target is None:
            return None
        module, _, attribute = target.partition(":")
        command: Any = getattr(importlib.import_module(module), attribute)
        return command  # type: ignore[no-any-return]


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vigilhost")
def cli() -> None:
    """Vigilhost measures this host, remembers, judges, tells, sends on and keeps verified backups."""
