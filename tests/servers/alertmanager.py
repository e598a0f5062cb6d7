"""Alertmanager: takes the alerts that we send, and shows what it made of them."""

from __future__ import annotations

from typing import Any

from tests.servers.http_call import answers_ok, call, must
from tests.servers.process import LOOPBACK, Server

CONFIG = """\
route: {receiver: nobody, group_by: ['...'], group_wait: 0s, group_interval: 1s}
receivers: [{name: nobody}]
"""


class Alertmanager(Server):
    """`config` is a whole alertmanager.yml; without it alerts are kept and nobody is told."""

    name = "prometheus-alertmanager"

    def __init__(self, config: str = CONFIG) -> None:
        super().__init__()
        self.config = config

    def command(self) -> list[str]:
        (self.data_dir / "alertmanager.yml").write_text(self.config)
        return [
            self.name,
            f"--config.file={self.data_dir}/alertmanager.yml",
            f"--storage.path={self.data_dir}/store",
            f"--web.listen-address={LOOPBACK}:{self.port}",
            "--cluster.listen-address=",
        ]

    def ready(self) -> bool:
        return answers_ok(f"{self.url}/-/ready")

    def alerts(self, **params: object) -> list[dict[str, Any]]:
        """The alerts it holds, as /api/v2/alerts shows them: labels, annotations, startsAt, endsAt, status."""
        return list(must(call(f"{self.url}/api/v2/alerts", params=params)).json())

    def silences(self) -> list[dict[str, Any]]:
        return list(must(call(f"{self.url}/api/v2/silences")).json())
