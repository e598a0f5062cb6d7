"""Who is measured beside the agent, and the agent's own configurations."""

from __future__ import annotations

import os
from pathlib import Path

from agent.config import load
from tests.servers.process import Server
from tests.servers.vigilhost import Vigilhost

_COLLECTD = """
Hostname "bench"
FQDNLookup false
BaseDir "{dir}"
PIDFile "{dir}/pid"
PluginDir "/usr/lib/collectd"
TypesDB "/usr/share/collectd/types.db"
Interval 1.0
{plugins}
LoadPlugin csv
<Plugin csv>
  DataDir "{dir}/csv"
</Plugin>
"""
_PLUGINS = ("cpu", "memory", "df", "disk", "load", "interface", "processes", "swap", "uptime")


class Collectd(Server):
    """collectd measuring each second what an agent's default collectors measure, into CSV files."""

    name = "collectd"

    def command(self) -> list[str | Path]:
        config = self.data_dir / "collectd.conf"
        plugins = "\n".join(f"LoadPlugin {plugin}" for plugin in _PLUGINS)
        config.write_text(_COLLECTD.format(dir=self.data_dir, plugins=plugins))
        return [self.name, "-f", "-C", config]

    def ready(self) -> bool:
        return self.samples() > 0

    def samples(self) -> int:
        """Values written so far."""
        files = (self.data_dir / "csv").rglob("*") if (self.data_dir / "csv").is_dir() else []
        return sum(count_values(file.read_text()) for file in files if file.is_file())


def count_values(csv: str) -> int:
    """Values in a file of collectd's csv plugin: a heading, then a time and the values a line."""
    heading, *lines = csv.splitlines() or [""]
    columns = heading.count(",")
    return sum(columns for line in lines if line.count(",") == columns)


class Agent(Vigilhost):
    """The agent; it counts as started when it shows a first reading."""

    def ready(self) -> bool:
        return super().ready() and "\nnode_memory_MemTotal_bytes " in self.metrics()


def agent_config(*, influxdb_url: str | None, interval: str | None) -> str:
    """YAML: the defaults, with a sink when there is an `influxdb_url`, every collector at `interval` when given."""
    lines = ["log: {level: warning}"]
    if influxdb_url is not None:
        lines.append(f'sinks: {{influxdb: {{url: "{influxdb_url}", org: home, bucket: hosts, flush_interval: 10s}}}}')
    if interval is not None:
        lines.append("collectors:")
        lines += [f"  {name}: {{interval: {interval}}}" for name in load(os.devnull).settings.collectors]
    return "\n".join(lines) + "\n"
