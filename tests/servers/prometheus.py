"""Prometheus: scrapes us, evaluates our rule files, takes remote writes; the oracle for PromQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.servers import promql_api
from tests.servers.http_call import answers_ok, call, must
from tests.servers.process import LOOPBACK, Server
from tests.servers.promql_api import Series

CONFIG = """\
global: {{scrape_interval: {interval}, scrape_timeout: {interval}, evaluation_interval: {interval}}}
rule_files: [rules/*.yml]
scrape_configs:
{jobs}
"""
JOB = "- {{job_name: '{job}', static_configs: [{{targets: ['{target}']}}]}}"


class Prometheus(Server):
    """`config` is a whole prometheus.yml, with rule files under rules/; without it the `targets` are scraped.

    `targets` maps a job's name to host:port; `rules` maps a file's name (without .yml) to its text. Its first scrape
    comes 5 s after the start, whatever the interval; rules are evaluated from the start.
    """

    name = "prometheus"

    def __init__(
        self,
        config: str = "",
        targets: Mapping[str, str] | None = None,
        rules: Mapping[str, str] | None = None,
        interval: str = "1s",
        flags: Sequence[str] = (),
    ) -> None:
        super().__init__()
        jobs = "\n".join(JOB.format(job=job, target=target) for job, target in (targets or {}).items())
        self.config = config or CONFIG.format(interval=interval, jobs=jobs)
        self.rules = dict(rules or {})
        self.flags = list(flags)

    def _write_files(self) -> None:
        (self.data_dir / "rules").mkdir(exist_ok=True)
        for name, text in self.rules.items():
            (self.data_dir / "rules" / f"{name}.yml").write_text(text)
        (self.data_dir / "prometheus.yml").write_text(self.config)

    def command(self) -> list[str]:
        self._write_files()
        return [
            self.name,
            f"--config.file={self.data_dir}/prometheus.yml",
            f"--storage.tsdb.path={self.data_dir}/store",
            "--storage.tsdb.retention.time=100y",
            f"--web.listen-address={LOOPBACK}:{self.port}",
            "--web.enable-remote-write-receiver",
            "--web.enable-lifecycle",
            *self.flags,
        ]

    def ready(self) -> bool:
        return answers_ok(f"{self.url}/-/ready")

    def reload(self) -> None:
        """Write `config` and `rules` anew and load them. Raise ServerError when Prometheus refuses them."""
        self._write_files()
        must(call(f"{self.url}/-/reload", "POST"))

    def query(self, expr: str, at: float | None = None) -> list[Series]:
        """Instant query, at Unix seconds `at` or now."""
        return promql_api.query(self.url, expr, at)

    def query_range(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        return promql_api.query_range(self.url, expr, start, end, step)

    def get(self, path: str, **params: object) -> Any:
        """`data` of another endpoint: get("rules"), get("alerts"), get("metadata"), get("targets")."""
        return must(call(f"{self.url}/api/v1/{path}", params=params)).json()["data"]

    def target_errors(self) -> dict[str, str]:
        """For each scraped job what was wrong with its last scrape; an empty text is a good one."""
        targets = self.get("targets")["activeTargets"]
        return {one["labels"]["job"]: one["lastError"] for one in targets if one["health"] != "unknown"}
