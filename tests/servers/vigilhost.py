"""The agent itself as a server: the real command, in a process of its own, with a state directory of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.servers.http_call import Answer, answers_ok, call, must
from tests.servers.process import LOOPBACK, Server

ROOT = Path(__file__).parents[2]


class Vigilhost(Server):
    """`config` is YAML; `options` go on the command line of `run`."""

    name = "vigilhost"

    def __init__(self, config: str = "{}", *options: str) -> None:
        super().__init__()
        self.config = config
        self.options = options

    @property
    def config_file(self) -> Path:
        return self.data_dir / "vigilhost.yaml"

    @property
    def state_dir(self) -> Path:
        return self.data_dir / "state"

    def prepare(self) -> None:
        self.write_config(self.config)

    def write_config(self, text: str) -> None:
        self.config_file.write_text(text)

    def command(self) -> list[str | Path]:
        listen = f"--listen={LOOPBACK}:{self.port}"
        argv: list[str | Path] = [sys.executable, "-m", "agent.cli.main", "run", "--config", self.config_file]
        return [*argv, "--state-dir", self.state_dir, listen, *self.options]

    def ready(self) -> bool:
        return answers_ok(f"{self.url}/-/ready")

    def metrics(self) -> str:
        return must(call(f"{self.url}/metrics")).text

    def health(self) -> dict[str, Any]:
        answer: Answer = call(f"{self.url}/health")
        found: dict[str, Any] = json.loads(answer.text)
        return found
