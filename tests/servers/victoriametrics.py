"""VictoriaMetrics: takes what influxdb-client writes to /api/v2/write and gives it back by PromQL or export.

It answers 204 to a malformed line too, and knows neither Flux nor buckets.
"""

from __future__ import annotations

import json

from tests.servers import promql_api
from tests.servers.http_call import answers_ok, call, must
from tests.servers.process import LOOPBACK, Server
from tests.servers.promql_api import Series


class VictoriaMetrics(Server):
    name = "victoria-metrics"

    def command(self) -> list[str]:
        return [
            self.name,
            f"-httpListenAddr={LOOPBACK}:{self.port}",
            f"-storageDataPath={self.data_dir}/store",
            "-retentionPeriod=100y",
            "-search.latencyOffset=0s",
            "-dedup.minScrapeInterval=1ms",  # without it two samples of one time are both kept
            "-search.disableCache",
        ]

    def ready(self) -> bool:
        return answers_ok(f"{self.url}/health")

    def write(self, lines: str | bytes) -> None:
        """Store line protocol, times in nanoseconds. Raise ServerError when it is refused."""
        must(call(f"{self.url}/api/v2/write", "POST", lines))

    def export(self, match: str = '{__name__!=""}') -> list[Series]:
        """All samples of the series that a selector matches, raw, written up to now. Sorted by labels."""
        self._flush()
        lines = must(call(f"{self.url}/api/v1/export", params={"match[]": match})).text.splitlines()
        rows = [json.loads(line) for line in lines]
        series = [Series(row["metric"], row["values"], [ms / 1000 for ms in row["timestamps"]]) for row in rows]
        return sorted(series, key=lambda one: sorted(one.labels.items()))

    def count(self, match: str = '{__name__!=""}') -> int:
        """How many samples those series hold."""
        return sum(len(one.values) for one in self.export(match))

    def query(self, expr: str, at: float | None = None) -> list[Series]:
        """Instant query, at Unix seconds `at` or now."""
        self._flush()
        return promql_api.query(self.url, expr, at)

    def query_range(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        self._flush()
        return promql_api.query_range(self.url, expr, start, end, step)

    def delete(self, match: str) -> None:
        """Forget those series."""
        self._flush()
        must(call(f"{self.url}/api/v1/admin/tsdb/delete_series", "POST", params={"match[]": match}))

    def _flush(self) -> None:
        # samples are searchable only after a second or so; this endpoint makes them so at once
        must(call(f"{self.url}/internal/force_flush"))
