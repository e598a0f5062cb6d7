"""The names of our sinks. A class is imported when its sink is configured."""

from __future__ import annotations

from collections.abc import Mapping

BUILTIN: Mapping[str, str] = {
    "influxdb": "sinks.influxdb:InfluxDB",
    "stdout": "sinks.stdout:Stdout",
}
