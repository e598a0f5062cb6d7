"""A real agent that watches one number, with rules and receivers of the test's choice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.control import ask
from tests.servers.process import wait_until
from tests.servers.scripted_http import Request, ScriptedHttp
from tests.servers.vigilhost import Vigilhost

ADMIN_TOKEN = "a token of the tests"
CONFIG = """\
hostname: db1
http: {{admin_tokens: [{{name: tests, token: {token}}}]}}
history: {{flush: 10m}}
collectors:
  others: false
  textfile: {{interval: 1s, directory: {directory}}}
alerting:
  rules: {{interval: 1s, defaults: false}}
"""
RULES = """\
groups:
  - name: queue
    rules:
      - alert: QueueLong
        expr: queue_length > 10
        labels: {severity: critical}
        annotations: {summary: "{{ $value }} wait"}
"""
_ENVIRONMENT = {**os.environ, "COLUMNS": "200"}


class Site:
    """The agent, the number it watches, and the web hook that is told, where there is one."""

    def __init__(self, agent: Vigilhost, directory: Path, hook: ScriptedHttp | None = None) -> None:
        self.agent, self._hook, self._file = agent, hook, directory / "queue.prom"

    @property
    def hook(self) -> ScriptedHttp:
        assert self._hook is not None
        return self._hook

    def queue(self, length: int) -> None:
        """From now on the number is this."""
        self.measure(f"queue_length {length}\n")

    def measure(self, text: str) -> None:
        """From now on the collector reads these lines."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(self._file)

    def write_rules(self, text: str) -> None:
        """Put them into rules.d; `ask("reload")` takes them over."""
        directory = self.agent.data_dir / "rules.d"
        directory.mkdir(exist_ok=True)
        (directory / "queue.yaml").write_text(text)

    def messages(self) -> list[str]:
        """The status of each message the hook has, as often as it came."""
        return [body_of(one)["status"] for one in self.hook.requests]

    def heard(self) -> list[str]:
        """The same, a message that came twice under one id only once."""
        by_id = {one.headers["x-vigilhost-message-id"]: body_of(one)["status"] for one in self.hook.requests}
        return list(by_id.values())

    def wait_for(self, *statuses: str) -> None:
        wait_until(lambda: self.messages() == list(statuses), f"{statuses}, heard {self.messages()}", 60.0)

    def ask(self, command: str, **arguments: Any) -> Any:
        """The answer of the control socket."""
        return ask(str(self.agent.state_dir / "control.sock"), command, **arguments)

    def log(self) -> str:
        """Every decision, a line each."""
        return "\n".join(each["sentence"] for each in self.ask("alerts_log", limit=1000))

    def wait_for_log(self, words: str) -> None:
        wait_until(lambda: words in self.log(), f"{words!r} in the log", 60.0)

    def cli(self, *words: str) -> tuple[int, str]:
        """Exit status and output of a `vigilhost` command."""
        argv = [sys.executable, "-m", "agent.cli.main", *words, "--state-dir", str(self.agent.state_dir)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=_ENVIRONMENT)
        return done.returncode, done.stdout + done.stderr


def body_of(request: Request) -> dict[str, Any]:
    """What a web hook was sent."""
    found: dict[str, Any] = request.json()
    return found


@contextmanager
def watched_queue(
    directory: Path, alerting: str, *, rules: str = RULES, hook: ScriptedHttp | None = None
) -> Iterator[Site]:
    """The agent runs and has evaluated `rules`. `alerting`: more lines of that section, without indentation."""
    lines = "".join(f"  {line}\n" for line in alerting.splitlines())
    agent = Vigilhost(CONFIG.format(directory=directory, token=ADMIN_TOKEN) + lines)
    found = Site(agent, directory, hook)
    found.queue(1)
    with agent:
        found.write_rules(rules)
        found.ask("reload")
        wait_until(lambda: {each["health"] for each in found.ask("rules")["rules"]} == {"ok"}, "an evaluation", 60.0)
        yield found
