"""node_exporter: the reference for names, labels and values taken at the same moment."""

from __future__ import annotations

from collections.abc import Sequence

from tests.servers.http_call import answers_ok, call, must
from tests.servers.process import LOOPBACK, Server


class NodeExporter(Server):
    """`flags` choose the collectors: ["--collector.processes", "--no-collector.hwmon"]."""

    name = "prometheus-node-exporter"

    def __init__(self, flags: Sequence[str] = ()) -> None:
        super().__init__()
        self.flags = list(flags)

    def command(self) -> list[str]:
        listen = f"--web.listen-address={LOOPBACK}:{self.port}"
        return [self.name, listen, "--web.disable-exporter-metrics", *self.flags]

    def ready(self) -> bool:
        return answers_ok(f"{self.url}/")

    def metrics(self) -> str:
        """One scrape: the exposition text. Everything is read anew for each."""
        return must(call(f"{self.url}/metrics")).text
