"""The real agent: a reading that crosses a limit becomes a message, once, whatever happens to the agent meanwhile."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.alert_site import ADMIN_TOKEN, RULES, Site, body_of, watched_queue
from tests.servers.http_call import call
from tests.servers.process import wait_until
from tests.servers.scripted_http import Reply, ScriptedHttp

ALERTING = """\
receivers:
  ops: {{type: webhook, url: {url}/hook}}
outbox: {{first_retry: 500ms}}
route: {{receiver: ops, group_by: [alertname], group_wait: 0s}}
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ScriptedHttp(Reply(200)) as hook, watched_queue(tmp_path, ALERTING.format(url=hook.url), hook=hook) as found:
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
    assert site.agent.log.count("notify.failed") == 1


def test_a_reload_with_a_broken_rule_keeps_the_rules_there_are(site: Site) -> None:
    site.write_rules(RULES.replace("> 10", ">> 10"))
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
    link = urlsplit(body_of(site.hook.requests[0])["alerts"][0]["generatorURL"])
    led = call(f"{site.agent.url}{link.path}?{link.query}")
    assert (led.status, led.headers["location"]) == (307, "api/v1/query?query=queue_length+%3E+10")
    (active,) = json.loads(call(f"{site.agent.url}/api/v1/alerts/active").text)["data"]
    assert active["receivers"] == ["ops"]
    status, text = site.cli("silence", "2h", "alertname=QueueLong", "-m", "moving it")
    assert (status, "it matches 1 alert now" in text) == (0, True)
    assert "moving it" in site.cli("silences")[1]
    status, text = site.cli("alerts")
    assert (status, "QueueLong instance=db1" in text) == (3, True)
    assert "delivered to ops" in site.cli("alerts", "log")[1]
    assert "QueueLong" in site.cli("alerts", "history", "--since", "1h", "--json")[1]
    assert "wait" not in site.cli("alerts", "log", "--receiver", "nobody")[1]
    (silence,) = json.loads(site.cli("silences", "--json")[1])
    assert site.cli("unsilence", silence["id"])[0] == 0
    assert site.cli("unsilence", silence["id"])[0] == 1
    status, text = site.cli("rules", "list")
    assert (status, "queue/QueueLong" in text) == (0, True)
    status, text = site.cli("notify", "test", "ops")
    assert (status, "This is a test" in text) == (0, True)


def test_over_tcp_a_silence_needs_the_admin_token(site: Site) -> None:
    asked = {"duration": "2h", "matcher[]": "alertname=QueueLong", "reason": "over TCP", "between[]": "00:00-24:00"}

    def post(**headers: str) -> int:
        return call(f"{site.agent.url}/api/v1/alerts/silence", method="POST", params=asked, headers=headers).status

    def reasons() -> list[str]:
        return [each["reason"] for each in call(f"{site.agent.url}/api/v1/alerts/silences").json()["data"]]

    assert (post(), post(Authorization="Bearer another token"), reasons()) == (401, 401, [])
    assert (post(Authorization=f"Bearer {ADMIN_TOKEN}"), reasons()) == (200, ["over TCP"])


def test_silences_may_come_again_and_overlap(site: Site) -> None:
    status, text = site.cli("silence", "7d", "alertname=QueueLong", "-m", "nights", "--between", "22:00-06:00",
                            "--on", "monday:friday", "--timezone", "Europe/Berlin")  # fmt: skip
    assert (status, ", again and again; it matches no alert now" in text) == (0, True)
    assert "nights" in site.cli("silences")[1]
    status, text = site.cli("silence", "1h", "alertname=QueueLong", "-m", "now")
    assert (status, "silences the same until" in text) == (0, True)
    status, text = site.cli("silence", "1h", "a=b", "-m", "x", "--between", "late")
    assert (status, "'late' is no part of a day; write it like 22:00-06:00" in text) == (1, True)


def test_rules_are_checked_and_replayed_against_what_is_still_in_memory(site: Site, tmp_path: Path) -> None:
    site.queue(50)
    site.wait_for("firing")
    rules = tmp_path / "new.yaml"
    rules.write_text(RULES.replace("- alert: QueueLong", "- {alert: Other, expr: queue_width > 1}\n      - alert: Q"))
    status, text = site.cli("rules", "check", str(rules))
    assert status == 0
    assert "queue/Other: there is no queue_width on this host" in text
    assert "queue/Q:" not in text
    status, text = site.cli("rules", "backtest", str(rules), "--since", "10m", "--interval", "1s", "--json")
    assert status == 0
    assert [each["alert"] for each in json.loads(text)] == ["Q"]


def test_history_says_to_the_second_since_when_an_alert_fires(site: Site) -> None:
    site.queue(50)
    site.wait_for("firing")
    told = datetime.fromisoformat(body_of(site.hook.requests[0])["alerts"][0]["startsAt"]).timestamp()
    (found,) = json.loads(site.cli("alerts", "history", "--since", "1h", "--json")[1])
    assert found["labels"]["alertname"] == "QueueLong"
    assert found["precision_s"] == 1
    assert abs(found["from"] - told) <= 1
    assert found["to"] is None
