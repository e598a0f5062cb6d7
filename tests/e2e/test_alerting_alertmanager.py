"""From a breach to an alert that a real Alertmanager holds and amtool lists, through a real agent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.alert_site import watched_queue
from tests.servers import programs
from tests.servers.alertmanager import Alertmanager
from tests.servers.process import run, wait_until

ALERTING = """\
external_url: https://db1.example.com
receivers:
  am: {{type: alertmanager, urls: ['{url}'], resend: 5s}}
"""


def listed(server: Alertmanager) -> list[dict[str, Any]]:
    """What amtool says is active."""
    found: list[dict[str, Any]] = json.loads(run("amtool", f"--alertmanager.url={server.url}", "alert", "-o", "json"))
    return found


@pytest.mark.server("alertmanager")
def test_a_breach_is_held_by_an_alertmanager_until_it_is_over(tmp_path: Path) -> None:
    programs.need("alertmanager")
    with Alertmanager() as server, watched_queue(tmp_path, ALERTING.format(url=server.url)) as site:
        site.queue(50)
        wait_until(lambda: listed(server), "amtool to list the alert", 60.0, every=0.3)
        (alert,) = listed(server)
        assert alert["labels"] == {"alertname": "QueueLong", "instance": "db1", "job": "node", "severity": "critical"}
        assert alert["annotations"] == {"summary": "50 wait"}
        assert alert["generatorURL"].startswith("https://db1.example.com/graph?g0.expr=queue_length")
        server.kill()  # it forgets what it has not written, and is told again
        server.start(server.port)
        wait_until(lambda: listed(server), "amtool to list the alert again", 60.0, every=0.3)
        site.queue(1)
        wait_until(lambda: not listed(server), "the alert to be over", 60.0, every=0.3)
