"""The same rules, routes and readings here and in Prometheus with Alertmanager: the same web hooks arrive.

Prometheus scrapes the agent that judges by itself. What differs by nature is left out: addresses, and times by as much
as two evaluations.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.alert_site import body_of, watched_queue
from tests.servers import programs
from tests.servers.alertmanager import Alertmanager
from tests.servers.process import wait_until
from tests.servers.prometheus import Prometheus
from tests.servers.scripted_http import Reply, ScriptedHttp

ROUTE = {
    "receiver": "ops",
    "group_by": ["alertname"],
    "group_wait": "4s",
    "group_interval": "1s",
    "repeat_interval": "1h",
    "routes": [{"matchers": ['severity="critical"'], "receiver": "ops", "group_by": ["queue", "severity"]}],
}
INHIBIT = [{"source_matchers": ["alertname=QueueGone"], "target_matchers": ["alertname=QueueShort"], "equal": []}]
RULES = """\
groups:
  - name: queues
    rules:
      - record: queue:length:max
        expr: max by (queue, instance, job) (queue_length)
      - alert: QueueLong
        expr: queue:length:max > 10
        for: 2s
        labels: {severity: warning, size: '{{ if gt $value 100.0 }}huge{{ else }}large{{ end }}'}
        annotations: {summary: '{{ $labels.queue }} has {{ $value | humanize }}', what: queue}
      - alert: QueueStuck
        expr: queue_length == 500
        keep_firing_for: 1s
        labels: {severity: critical}
        annotations:
          summary: 'stuck at {{ printf "%.1f" $value }}'
          of: '{{ with query "count(queue_length)" }}{{ . | first | value }}{{ end }} queues'
      - alert: QueueGone
        expr: absent(queue_length{queue="missing"}) and on () (max(queue_length) > 10)
        labels: {severity: critical}
      - alert: QueueShort
        expr: queue_length{queue="idle"} < 1 and on () (max(queue_length) > 10)
        labels: {severity: warning}
"""
TROUBLE = 'queue_length{queue="mail"} 50\nqueue_length{queue="orders"} 500\nqueue_length{queue="idle"} 0\n'
CALM = 'queue_length{queue="mail"} 1\nqueue_length{queue="orders"} 1\nqueue_length{queue="idle"} 0\n'

_LEFT_OUT = {"startsAt": "", "endsAt": ""}


def prometheus_config(agent_port: int, alertmanager: Alertmanager) -> str:
    return json.dumps({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules/*.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager.port}"]}]}]},
        "scrape_configs": [{
            "job_name": "node",
            "static_configs": [{"targets": [f"127.0.0.1:{agent_port}"], "labels": {"instance": "db1"}}],
        }],
    })  # fmt: skip


def newest(hook: ScriptedHttp) -> dict[str, dict[str, Any]]:
    """The last message about each group."""
    return {body["groupKey"]: body for body in map(body_of, list(hook.requests))}


def said(hook: ScriptedHttp, status: str, alerts: int) -> bool:
    """Has every group been told as that, all together of so many alerts?"""
    found = newest(hook).values()
    return all(one["status"] == status for one in found) and sum(len(one["alerts"]) for one in found) == alerts


def comparable(body: dict[str, Any]) -> dict[str, Any]:
    """Without addresses and times."""
    alerts = sorted(body["alerts"], key=lambda one: str(one["fingerprint"]))
    return {**body, "externalURL": "", "alerts": [{**one, **_LEFT_OUT, "generatorURL": _link(one)} for one in alerts]}


def _link(alert: dict[str, Any]) -> str:
    url = urlsplit(alert["generatorURL"])
    return f"{url.path}?{url.query}"


def started(bodies: dict[str, dict[str, Any]]) -> dict[str, float]:
    """When each alert began, by its fingerprint."""
    return {
        one["fingerprint"]: datetime.fromisoformat(one["startsAt"]).timestamp()
        for body in bodies.values()
        for one in body["alerts"]
    }


@pytest.mark.server("prometheus", "alertmanager")
def test_the_same_web_hooks_arrive(tmp_path: Path) -> None:
    programs.need("prometheus")
    programs.need("alertmanager")
    with ScriptedHttp(Reply(200)) as ours, ScriptedHttp(Reply(200)) as theirs:
        policy = {"route": ROUTE, "inhibit_rules": INHIBIT}
        receiver = {"name": "ops", "webhook_configs": [{"url": f"{theirs.url}/hook", "send_resolved": True}]}
        own = policy | {"receivers": {"ops": {"type": "webhook", "url": f"{ours.url}/hook"}}}
        alerting = "\n".join(f"{key}: {json.dumps(value)}" for key, value in own.items())
        with (
            watched_queue(tmp_path, alerting, rules=RULES, hook=ours) as site,
            Alertmanager(json.dumps(policy | {"receivers": [receiver]})) as alertmanager,
            Prometheus(prometheus_config(site.agent.port, alertmanager), rules={"queues": RULES}) as prometheus,
        ):
            site.measure(CALM)
            wait_until(
                lambda: prometheus.query('queue_length{queue="mail"} == 1'), "Prometheus to see the queues", 60.0
            )
            site.measure(TROUBLE)
            for hook in (ours, theirs):
                wait_until(lambda hook=hook: said(hook, "firing", 4), "the four alerts", 90.0)  # type: ignore[misc]
            firing = newest(ours), newest(theirs)
            site.measure(CALM)
            for hook in (ours, theirs):
                wait_until(lambda hook=hook: said(hook, "resolved", 4), "their ends", 90.0)  # type: ignore[misc]
            resolved = newest(ours), newest(theirs)
    for here, there in (firing, resolved):
        assert {key: comparable(one) for key, one in here.items()} == {
            key: comparable(one) for key, one in there.items()
        }
    assert len(firing[0]) == 3
    begun, begun_there = started(firing[0]), started(firing[1])
    assert all(abs(begun[one] - begun_there[one]) <= 2 for one in begun)
    for body in resolved[0].values():
        assert all(one["endsAt"] > one["startsAt"] for one in body["alerts"])
    assert "QueueShort" not in str(firing)
