"""InfluxDB 1: says which lines of a write it refused, and overwrites a point of the same series and time.

It has /write, /query and /ping; /api/v2/* is 404.
"""

from __future__ import annotations

from typing import Any

from tests.servers.http_call import Answer, answers_ok, call, must
from tests.servers.process import LOOPBACK, Server, ServerError

CONFIG = """\
reporting-disabled = true
bind-address = "{host}:0"
[meta]
  dir = "{dir}/meta"
[data]
  dir = "{dir}/data"
  wal-dir = "{dir}/wal"
  index-version = "inmem"
[http]
  bind-address = "{host}:{port}"
  log-enabled = false
[monitor]
  store-enabled = false
"""


class InfluxDB1(Server):
    name = "influxd"

    def command(self) -> list[str]:
        config = self.data_dir / "influxdb.conf"
        config.write_text(CONFIG.format(host=LOOPBACK, dir=self.data_dir, port=self.port))
        return [self.name, "-config", str(config)]

    def ready(self) -> bool:
        return answers_ok(f"{self.url}/ping")

    def create_database(self, database: str) -> None:
        self.query(f'CREATE DATABASE "{database}"')

    def write(self, database: str, lines: str | bytes, precision: str = "ns") -> Answer:
        """The answer to one write: 204, or 400 with the reason where lines were refused and the others stored."""
        return call(f"{self.url}/write", "POST", lines, params={"db": database, "precision": precision})

    def query(self, statement: str, database: str = "") -> list[dict[str, Any]]:
        """Rows of one InfluxQL statement: columns and tags by name, `time` in ns, `_measurement`.

        Raise ServerError with InfluxDB's text when it refuses the statement.
        """
        params = {"q": statement, "db": database, "epoch": "ns"}
        result = must(call(f"{self.url}/query", "POST", params=params)).json()["results"][0]
        if "error" in result:
            raise ServerError(f"influxql {statement!r}: {result['error']}")
        return [
            {
                "_measurement": series.get("name", ""),
                **series.get("tags", {}),
                **dict(zip(series["columns"], row, strict=True)),
            }
            for series in result.get("series", [])
            for row in series.get("values", [])
        ]
