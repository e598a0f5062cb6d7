"""The real agent: a reading that crosses a limit becomes a message, once, whatever happens to the agent meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.control import ask
from tests.servers.http_call import call
from tests.servers.process import wait_until
from tests.servers.scripted_http import Reply, Request, ScriptedHttp
from tests.servers.vigilhost import Vigilhost

CONFIG = """\
hostname: db1
collectors:
  others: false
  textfile: {{interval: 1s, directory: {directory}}}
alerting:
  rules: {{interval: 1s, defaults: false}}
  receivers:
    ops: {{type: webhook, url: {url}/hook}}
  outbox: {{first_retry: 500ms}}
  route: {{receiver: ops, group_by: [alertname], group_wait: 0s}}
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
ENVIRONMENT = {**os.environ, "COLUMNS": "200"}


class Site:
    """An agent that watches one number, and who is told of it."""

    def __init__(self, agent: Vigilhost, hook: ScriptedHttp, directory: Path) -> None:
        self.agent, self.hook, self._file = agent, hook, directory / "queue.prom"

    def queue(self, length: int) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"queue_length {length}\n")
        fresh.rename(self._file)

    def messages(self) -> list[str]:
        """What arrived: the status of each message, a repeated one once."""
        return [self._body(one)["status"] for one in self.hook.requests]

    def wait_for(self, *statuses: str) -> None:
        wait_until(lambda: self.messages() == list(statuses), f"{statuses}, heard {self.messages()}", 30.0)

    def ask(self, command: str, **arguments: Any) -> Any:
        return ask(str(self.agent.state_dir / "control.sock"), command, **arguments)

    def cli(self, *words: str) -> tuple[int, str]:
        """Exit status and output of a `vigilhost` command."""
        argv = [sys.executable, "-m", "agent.cli.main", *words, "--state-dir", str(self.agent.state_dir)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=ENVIRONMENT)
        return done.returncode, done.stdout + done.stderr

    @staticmethod
    def _body(request: Request) -> dict[str, Any]:
        found: dict[str, Any] = request.json()
        return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ScriptedHttp(Reply(200)) as hook:
        agent = Vigilhost(CONFIG.format(directory=tmp_path, url=hook.url))
        found = Site(agent, hook, tmp_path)
        found.queue(1)
        with agent:
            rules = agent.data_dir / "rules.d"
            rules.mkdir()
            (rules / "queue.yaml").write_text(RULES)
            found.ask("reload")
            wait_until(lambda: [each["health"] for each in found.ask("rules")["rules"]] == ["ok"], "an evaluation")
            yield found


def test_a_breach_is_told_and_so_is_its_end(site: Site, record_property: pytest.RecordProperty) -> None:
    begun = time.monotonic()
    site.queue(50)
    site.wait_for("firing")
    record_property("breach_to_notification_s", round(time.monotonic() - begun, 2))
    (request,) = site.hook.requests
    told = request.json()
    assert told["receiver"] == "ops"
    assert told["groupKey"] == '{}:{alertname="QueueLong"}'
    assert told["alerts"][0]["annotations"] == {"summary": "50 wait"}
    assert told["alerts"][0]["labels"]["instance"] == "db1"
    assert [each["state"] for each in site.ask("alerts")] == ["firing"]
    site.queue(1)
    site.wait_for("firing", "resolved")


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_restart_pages_nobody_twice_and_tells_what_ended_meanwhile(site: Site, how: str) -> None:
    site.queue(50)
    site.wait_for("firing")
    wait_until(lambda: "delivered" in site.ask("alerts_log")[-1]["sentence"], "the delivery is noted")
    getattr(site.agent, how)()
    site.agent.start()
    wait_until(lambda: site.agent.health()["alerting"].get("firing") == 1, "the alert is known again")
    site.agent.kill()
    site.queue(1)
    site.agent.start()
    site.wait_for("firing", "resolved")


def test_what_is_silenced_is_told_once_the_silence_ends(site: Site) -> None:
    silence = site.ask("silence", duration="1h", matchers=["alertname=QueueLong"], reason="moving it")
    site.queue(50)
    wait_until(lambda: any("silenced by" in each["sentence"] for each in site.ask("alerts_log")), "the silence holds")
    assert site.messages() == []
    assert "moving it" in site.ask("alerts")[0]["muted"]
    site.agent.kill()
    site.agent.start()
    wait_until(lambda: site.agent.health()["alerting"].get("firing") == 1, "the alert is known again")
    assert [each["state"] for each in site.ask("silences")] == ["active"]
    site.ask("unsilence", id=silence["id"][:4])
    site.wait_for("firing")


def test_a_receiver_that_is_down_gets_the_present_state_when_it_is_back(site: Site) -> None:
    site.hook.answer(Reply(503), Reply(503))
    site.queue(50)
    site.hook.wait_for(3, 60.0)
    assert set(site.messages()) == {"firing"}
    wait_until(lambda: "at try 3" in site.ask("alerts_log")[-1]["sentence"], "the delivery is noted")


def test_a_reload_with_a_broken_rule_keeps_the_rules_there_are(site: Site) -> None:
    (site.agent.data_dir / "rules.d" / "queue.yaml").write_text(RULES.replace("> 10", ">> 10"))
    with pytest.raises(Exception, match=r"queue\.yaml:5: queue/QueueLong.*"):
        site.ask("reload")
    site.queue(50)
    site.wait_for("firing")


def test_a_test_message_shows_what_was_rendered(site: Site) -> None:
    answer = site.ask("notify_test", receiver="ops")
    assert answer["sent"]
    assert site.hook.requests[0].json()["alerts"][0]["labels"]["alertname"] == "Test"
    with pytest.raises(Exception, match="no receiver is called 'opps'; there are ops"):
        site.ask("notify_test", receiver="opps")


def test_the_command_line_and_http_show_the_same(site: Site) -> None:
    site.queue(50)
    site.wait_for("firing")
    (alert,) = json.loads(call(f"{site.agent.url}/api/v1/alerts").text)["data"]["alerts"]
    assert (alert["state"], alert["labels"]["alertname"], alert["value"]) == ("firing", "QueueLong", "5e+01")
    (group,) = json.loads(call(f"{site.agent.url}/api/v1/rules").text)["data"]["groups"]
    assert [(rule["name"], rule["state"], rule["health"]) for rule in group["rules"]] == [("QueueLong", "firing", "ok")]
    (active,) = json.loads(call(f"{site.agent.url}/api/v1/alerts/active").text)["data"]
    assert active["receivers"] == ["ops"]
    assert call(f"{site.agent.url}/api/v1/alerts/silence?duration=2h", method="POST").status == 403

    status, text = site.cli("silence", "2h", "alertname=QueueLong", "-m", "moving it")
    assert (status, "it matches 1 alert now" in text) == (0, True)
    assert "moving it" in site.cli("silences")[1]
    status, text = site.cli("alerts")
    assert (status, "QueueLong instance=db1" in text) == (3, True)
    assert "delivered to ops" in site.cli("alerts", "log")[1]
    assert "QueueLong" in site.cli("alerts", "history", "--since", "1h", "--json")[1]
    (silence,) = json.loads(site.cli("silences", "--json")[1])
    assert site.cli("unsilence", silence["id"])[0] == 0
    assert site.cli("unsilence", silence["id"])[0] == 1
    status, text = site.cli("rules", "list")
    assert (status, "queue/QueueLong" in text) == (0, True)
    status, text = site.cli("notify", "test", "ops")
    assert (status, "This is a test" in text) == (0, True)
