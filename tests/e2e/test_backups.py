"""The real agent and a real backup: who is told of it, and what it keeps quiet while it runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.control import ask
from tests.servers.http_call import call
from tests.servers.process import wait_until
from tests.servers.programs import need
from tests.servers.scripted_http import Reply, ScriptedHttp
from tests.servers.vigilhost import Vigilhost

QUIET: dict[str, Any] = {"HostCpuBusy": {"enabled": False}, "BackupRuns": {"keep_firing_for": "0s"}}
# Fires on any host, idle or not.
BUSY: dict[str, Any] = {**QUIET, "HostCpuBusy": {"threshold": -1, "for": "0s", "keep_firing_for": "0s"}}


class Site:
    """An agent with one job, whose run goes on until `go` is there."""

    def __init__(self, directory: Path, hook: ScriptedHttp) -> None:
        need("tar", "zstd", "setpriv")
        self.hook = hook
        # A whole minute, far enough away for everything before it.
        self.digest_at = time.strftime("%H:%M", time.gmtime(time.time() + 120))
        self.go = directory / "go"
        self._directory = directory
        self.agent = Vigilhost(self._config(QUIET))

    def _config(self, overrides: dict[str, Any]) -> str:
        return yaml.safe_dump({
            "hostname": "db1",
            "collectors": {"others": False, "cpu": {"interval": "1s"}, "agent": {"interval": "1s"}},
            "alerting": {
                "rules": {"interval": "1s", "overrides": overrides},
                "receivers": {"ops": {"type": "webhook", "url": f"{self.hook.url}/ops"},
                              "diary": {"type": "ntfy", "server_url": f"{self.hook.url}/diary", "topic": "db1"}},
                "route": {"receiver": "ops", "group_by": ["alertname"], "group_wait": "0s", "group_interval": "1s",
                          "routes": [{"matchers": ['team="nobody"'], "receiver": "diary",
                                      "digest": {"at": self.digest_at}}]},
            },
        })  # fmt: skip

    def add_job(self) -> None:
        for name in ("source", "store"):
            (self._directory / name).mkdir()
        (self._directory / "source" / "file").write_text("hello\n")
        wait = self._directory / "wait"
        wait.write_text(f"#!/bin/sh\nwhile [ ! -e {self.go} ]; do sleep 0.05; done\n")
        wait.chmod(0o700)
        jobs = self.agent.data_dir / "backup.d"
        jobs.mkdir()
        job = jobs / "etc.yaml"
        job.write_text(yaml.safe_dump({
            "source": {"files": {"paths": [str(self._directory / "source")]}},
            "targets": {"store": {"type": "local", "path": str(self._directory / "store")}},
            "schedule": "never", "hooks": {"before": [[str(wait)]]}, "limits": {"nice": 0},
            "heartbeat": {"url": f"{self.hook.url}/beat"},
        }))  # fmt: skip
        job.chmod(0o600)
        self.ask("reload")

    def reload(self, overrides: dict[str, Any]) -> None:
        self.agent.write_config(self._config(overrides))
        self.ask("reload")

    def ask(self, command: str, **arguments: Any) -> Any:
        return ask(str(self.agent.state_dir / "control.sock"), command, **arguments)

    def alert(self, name: str) -> dict[str, Any]:
        return next((one for one in self.ask("alerts") if one["labels"]["alertname"] == name), {})

    def heard(self, path: str) -> list[dict[str, Any]]:
        return [one.json() for one in self.hook.requests if one.path == path]

    def names_told(self) -> set[str]:
        return {alert["labels"]["alertname"] for told in self.heard("/ops") for alert in told["alerts"]}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ScriptedHttp(Reply(200)) as hook:
        found = Site(tmp_path, hook)
        with found.agent:
            found.add_job()
            yield found


def test_a_backup_keeps_its_own_noise_quiet_and_its_result_is_told(site: Site) -> None:
    site.ask("backup_run", job="etc")
    wait_until(lambda: site.alert("BackupRuns").get("state") == "firing", "the run is noticed", 60.0)
    site.reload(BUSY)
    wait_until(lambda: site.alert("HostCpuBusy").get("state") == "firing", "a busy processor", 60.0)
    wait_until(lambda: "inhibited by" in "".join(one["sentence"] for one in site.ask("alerts_log")), "why not", 60.0)
    assert "BackupRuns" in site.alert("HostCpuBusy")["muted"]
    assert site.alert("BackupRuns")["receivers"] == []
    assert site.names_told() == set()

    site.go.touch()
    wait_until(lambda: "HostCpuBusy" in site.names_told(), "the noise is told once the backup is over", 60.0)
    assert site.names_told() == {"HostCpuBusy"}

    (job,) = json.loads(call(f"{site.agent.url}/api/v1/backups").text)["data"]["jobs"]
    assert (job["status"], [one["id"] for one in job["targets"]["store"]["kept"]]) == ("ok", [job["backup"]])
    beats = [one.path for one in site.hook.requests if one.path.startswith("/beat")]
    assert beats == ["/beat/start", "/beat"]

    argv = [sys.executable, "-m", "agent.cli.main", "status", "--state-dir", str(site.agent.state_dir)]
    environment = {**os.environ, "COLUMNS": "200"}
    said = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment).stdout
    assert re.search(r"^ ?etc +ok +\d+s old +never +never", said, re.MULTILINE), said

    wait_until(lambda: any(one.path == "/diary" for one in site.hook.requests), "the digest of the day", 180.0)
    (told,) = [one.text for one in site.hook.requests if one.path == "/diary"]
    assert "backup etc is done, " in told
