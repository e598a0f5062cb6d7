"""A machine with the package installed, and what an operator does with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.servers.debian_machine import DebianMachine
from tests.servers.http_call import answers_ok, call, must
from tests.servers.process import LOOPBACK, wait_until

SERVICE = "vigilhost.service"
CONFIG = "/etc/vigilhost/vigilhost.yaml"
AGENT_PORT = 9811
SERVING_DEADLINE_S = 60.0  # it takes two seconds where nothing else runs


class Installed(DebianMachine):
    """`url` is the agent's, as its default configuration has it."""

    def prepare(self) -> None:
        super().prepare()
        self._urls: dict[int, str] = {}

    def url_of(self, port: int) -> str:
        """Where to ask, here, what listens on that port of the machine's loopback."""
        if port not in self._urls:
            self._urls[port] = f"http://{LOOPBACK}:{self.forward(port)}"
        return self._urls[port]

    @property
    def url(self) -> str:
        return self.url_of(AGENT_PORT)

    # The package.

    def install(self, package: Path) -> str:
        """What dpkg says."""
        self.path(f"/root/{package.name}").write_bytes(package.read_bytes())
        return self.run("dpkg", "--install", f"/root/{package.name}", deadline=180)

    def remove(self, *, purge: bool = False) -> str:
        return self.run("dpkg", "--purge" if purge else "--remove", "vigilhost", deadline=120)

    # Its service.

    def configure(self, text: str) -> None:
        """Write the configuration as an operator would; its owner and mode stay."""
        self.run("sh", "-c", f"cat >{CONFIG}", stdin=text)

    def extend_service(self, name: str, settings: str) -> None:
        """A drop-in with those settings of its section [Service]; it counts from the next start."""
        directory = self.path(f"/etc/systemd/system/{SERVICE}.d")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{name}.conf").write_text(f"[Service]\n{settings}")
        self.run("systemctl", "daemon-reload")

    def restart(self) -> None:
        self.run("systemctl", "restart", SERVICE)
        self.await_serving()

    def await_serving(self) -> None:
        """Until it is ready for questions, which it is told to systemd to be, too."""
        wait_until(self.is_serving, "the agent to serve", SERVING_DEADLINE_S, every=0.1)

    def is_serving(self) -> bool:
        try:
            return answers_ok(f"{self.url}/-/ready") and self.state() == "active"
        except OSError:
            return False

    def state(self) -> str:
        return self.show(SERVICE, "ActiveState")["ActiveState"]

    def main_pid(self) -> int:
        """In the machine's numbers; 0 while there is none."""
        return int(self.show(SERVICE, "MainPID")["MainPID"])

    def signal(self, name: str) -> None:
        """Send it to the agent itself."""
        self.run("systemctl", "kill", "--kill-whom=main", f"--signal={name}", SERVICE)

    # Its faces.

    def metrics(self, port: int = AGENT_PORT) -> str:
        return must(call(f"{self.url_of(port)}/metrics")).text

    def health(self, port: int = AGENT_PORT) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(call(f"{self.url_of(port)}/health").text)
        return found

    def agent_event(self, name: str, *matches: str, after: float = 0.0) -> Mapping[str, str]:
        """The first event of that name in the journal, once it is there."""
        return self.await_event(SERVICE, f"EVENT={name}", *matches, after=after)
