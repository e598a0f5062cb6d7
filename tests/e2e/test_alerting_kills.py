"""kill -9 at every stage of an alert's life: no page is lost, no end is lost, and what comes twice has one id.

The moments between two seconds are in tests/alerting/test_desk.py, on a clock of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.alert_site import RULES, Site, watched_queue
from tests.servers.process import wait_until
from tests.servers.scripted_http import HANG, Reply, ScriptedHttp

ALERTING = """\
receivers:
  ops: {{type: webhook, url: {url}/hook}}
outbox: {{first_retry: 500ms}}
route: {{receiver: ops, group_by: [alertname], group_wait: 0s}}
"""
PENDING = RULES.replace("expr: queue_length > 10", "expr: queue_length > 10\n        for: 2s")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ScriptedHttp(Reply(200)) as hook:
        alerting = ALERTING.format(url=hook.url)
        with watched_queue(tmp_path, alerting, rules=PENDING, hook=hook) as found:
            yield found


def phase(site: Site) -> str:
    """Of the alert, as the running agent has it; "" where there is none."""
    return next((each["state"] for each in site.ask("alerts")), "")


def die(site: Site) -> None:
    site.agent.kill()
    site.agent.start()
    wait_until(lambda: "firing" in site.agent.health()["alerting"], "alerting to be open again", 60.0)


def wait_for_phase(site: Site, wanted: str) -> None:
    wait_until(lambda: phase(site) == wanted, f"the alert to be {wanted or 'gone'}", 60.0)


def test_killed_at_every_stage_it_pages_once_and_says_when_it_is_over(site: Site) -> None:
    site.queue(50)
    die(site)  # perhaps nobody has seen it yet
    wait_for_phase(site, "pending")
    die(site)
    wait_for_phase(site, "firing")
    die(site)  # perhaps before the message was under way
    wait_until(lambda: site.heard() == ["firing"], "the page", 60.0)
    die(site)  # perhaps before its delivery was noted
    wait_for_phase(site, "firing")
    site.queue(1)
    die(site)  # perhaps nobody has seen the end yet
    wait_for_phase(site, "resolved")
    die(site)
    wait_until(lambda: site.heard() == ["firing", "resolved"], "the end", 60.0)
    die(site)
    wait_for_phase(site, "resolved")
    assert site.heard() == ["firing", "resolved"]


@pytest.mark.parametrize("stage", ["firing", "resolved"])
def test_killed_while_a_message_is_under_way_it_is_sent_again_under_its_id(site: Site, stage: str) -> None:
    if stage == "resolved":
        site.queue(50)
        site.wait_for("firing")
        site.wait_for_log("delivered to ops")
    before = len(site.hook.requests)
    site.hook.answer(HANG)  # it has the message, and the agent does not know
    site.queue(50 if stage == "firing" else 1)
    site.hook.wait_for(before + 1, 60.0)
    die(site)
    first, second = site.hook.wait_for(before + 2, 60.0)[before : before + 2]
    assert first.headers["x-vigilhost-message-id"] == second.headers["x-vigilhost-message-id"]
    assert site.heard() == ["firing", "resolved"][: before + 1]
    site.wait_for_log("sending again: the agent ended while it was under way")


def test_killed_while_silenced_it_is_told_again_when_the_silence_is_over(site: Site) -> None:
    site.queue(50)
    site.wait_for("firing")
    site.wait_for_log("delivered to ops")
    silence = site.ask("silence", duration="20s", matchers=["alertname=QueueLong"], reason="moving it")
    site.wait_for_log("is silenced by")
    die(site)
    site.hook.wait_for(2, 90.0)
    assert time.time() >= silence["ends_at"]
    assert site.heard() == ["firing", "firing"]
    site.wait_for_log("delivered to ops: 1 new")
