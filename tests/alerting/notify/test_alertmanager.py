"""Against a real Alertmanager: what we send it, and that our webhook says what its webhook says."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from agent.core.errors import Rejected, Retryable
from agent.core.labels import labels_of
from agent.core.secrets import Secret
from alerting.grouping import Dispatcher
from alerting.notify.alertmanager import Alertmanager
from alerting.notify.message import Alert, Notification, fingerprint
from alerting.notify.payload import webhook_json
from alerting.notify.webhook import Webhook
from alerting.routing import parse_route
from tests.alerting.notify.examples import DIGEST, FIRING, HUGE
from tests.alerting.notify.stubs import Stub
from tests.alerting.pictures import sent
from tests.servers import alertmanager, programs
from tests.servers.process import free_port, wait_until

CONFIG = {
    "receiver": "hook",
    "group_by": ["alertname"],
    "group_wait": "0s",
    "group_interval": "1s",
    "routes": [{"matchers": ['severity=~"critical|page"'], "receiver": "hook", "group_by": ["alertname", "instance"]}],
}


@pytest.fixture(scope="module")
def real() -> Iterator[tuple[alertmanager.Alertmanager, Stub]]:
    """An Alertmanager that tells a hook."""
    programs.need("alertmanager")
    stub = Stub()
    with stub.serving():
        hook = {"name": "hook", "webhook_configs": [{"url": f"{stub.url}/hook", "send_resolved": True}]}
        with alertmanager.Alertmanager(json.dumps({"route": CONFIG, "receivers": [hook]})) as server:
            yield server, stub


def now_ms() -> float:
    return round(time.time(), 3)


def test_our_webhook_says_what_alertmanagers_says(real: tuple[alertmanager.Alertmanager, Stub]) -> None:
    server, stub = real
    now = now_ms()
    alerts = [
        Alert(
            labels_of({"alertname": "Disk", "instance": "db1", "severity": "critical", "mount": '/a "b" \\ é <x>'}),
            labels_of({"summary": "97% full", "description": "a\nb & c"}), starts_at=now - 60,
            generator_url="http://127.0.0.1:9811/graph?g0.expr=a%3Eb",
        ),
        Alert(labels_of({"alertname": "Load", "instance": "db1"}), labels_of({"summary": "high"}), starts_at=now - 30),
        Alert(labels_of({"alertname": "Load", "instance": "db2"}), labels_of({"summary": "high"}), starts_at=now - 20),
    ]  # fmt: skip
    groups = Dispatcher(parse_route(CONFIG, ["hook"], []), external_url="X")

    def compare(changed: list[Alert], count: int) -> None:
        stub.calls.clear()
        Alertmanager([server.url]).forward(changed, now)
        groups.update(changed, now)
        due = groups.next_due()
        assert due is not None
        ours = {one.group_key: webhook_json(one) for one in sent(groups.due(due))}
        wait_until(lambda: len(stub.calls) >= count, "Alertmanager's webhooks")
        theirs = {call.json()["groupKey"]: call.json() for call in stub.calls}
        assert {key: comparable(one) for key, one in ours.items()} == {
            key: comparable(one) for key, one in theirs.items()
        }
        assert len(ours) == count

    compare(alerts, 2)
    compare([alerts[0].resolved(now_ms())], 1)


def comparable(body: dict[str, Any]) -> dict[str, Any]:
    """Without the order of alerts, and the address of the server, which differ by nature."""
    assert list(body) == ["receiver", "status", "alerts", "groupLabels", "commonLabels", "commonAnnotations",
                          "externalURL", "version", "groupKey", "truncatedAlerts"]  # fmt: skip
    return {**body, "externalURL": "", "alerts": sorted(body["alerts"], key=lambda one: one["fingerprint"])}


def test_a_real_alertmanager_holds_what_we_forward(real: tuple[alertmanager.Alertmanager, Stub]) -> None:
    server, _ = real
    now = now_ms()
    hostile = [replace(one, starts_at=now) for one in HUGE.alerts]
    Alertmanager([server.url], resend=60.0).forward(hostile, now, interval=30.0)
    held = [one for one in server.alerts() if one["labels"]["alertname"] == HUGE.alerts[0].name]
    assert {one["fingerprint"] for one in held} == {fingerprint(one.labels) for one in hostile}
    assert {one["endsAt"] for one in held} == {webhook_json_time(now + 240)}


def test_external_labels_tell_the_alerts_of_two_hosts_apart(real: tuple[alertmanager.Alertmanager, Stub]) -> None:
    server, _ = real
    alert = Alert(labels_of({"alertname": "Summed", "zone": "of the alert"}), starts_at=now_ms())
    for host in ("web1", "web2"):
        labels = labels_of({"host": host, "zone": "of the host"})
        Alertmanager([server.url], external_labels=labels).forward([alert], now_ms(), interval=30.0)
    held = [one["labels"] for one in server.alerts() if one["labels"]["alertname"] == "Summed"]
    assert sorted((one["host"], one["zone"]) for one in held) == [("web1", "of the alert"), ("web2", "of the alert")]


def webhook_json_time(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(moment))) + f".{round(moment * 1000) % 1000:03d}Z"


def test_a_routed_alert_does_not_end_before_it_is_told_again(real: tuple[alertmanager.Alertmanager, Stub]) -> None:
    server, _ = real
    now, week = now_ms(), 7 * 86400.0
    route = {"receiver": "am", "group_wait": "0s", "repeat_interval": "7d"}
    groups = Dispatcher(parse_route(route, ["am"], []))
    groups.update([Alert(labels_of({"alertname": "Weekly"}), starts_at=now)], now)
    (message,) = sent(groups.due(now))
    Alertmanager([server.url]).send(replace(message, sent_at=now + 60), None)
    (held,) = [one for one in server.alerts() if one["labels"]["alertname"] == "Weekly"]
    assert held["endsAt"] == webhook_json_time(now + 60 + week + 86400)


def test_each_of_several_is_told_on_its_own(real: tuple[alertmanager.Alertmanager, Stub]) -> None:
    server, _ = real
    nobody = f"http://127.0.0.1:{free_port()}"
    receipt = Alertmanager([nobody, server.url]).forward([replace(FIRING.alerts[0], starts_at=now_ms())], now_ms())
    assert receipt.detail == "1 of 2 took it; 127.0.0.1: connection refused"
    with pytest.raises(Retryable, match="connection refused"):
        Alertmanager([nobody]).send(FIRING, None)


def test_what_alertmanager_does_not_take_is_rejected(real: tuple[alertmanager.Alertmanager, Stub]) -> None:
    server, _ = real
    with pytest.raises(Rejected, match="http status 400"):
        Alertmanager([server.url]).forward([Alert((), starts_at=now_ms())], now_ms())


def hooked(notification: Notification, **options: Any) -> Any:
    stub = Stub()
    with stub.serving():
        Webhook(Secret(f"{stub.url}/x"), **options).send(notification, None)
    return stub.calls[0]


def test_a_webhook_can_be_signed() -> None:
    call = hooked(FIRING, hmac_secret=Secret("key"), bearer_token=Secret("token"), headers={"X-Team": Secret("ops")})
    stamp = call.headers["x-vigilhost-timestamp"]
    assert int(stamp) == FIRING.sent_at != FIRING.at  # not of the decision: the receiver asks for its age
    expected = hmac.new(b"key", stamp.encode() + b"." + call.body, hashlib.sha256).hexdigest()
    assert call.headers["x-vigilhost-signature"] == f"sha256={expected}"
    assert (call.headers["authorization"], call.headers["x-team"]) == ("Bearer token", "ops")
    assert call.headers["x-vigilhost-message-id"] == "7f3a"


def test_a_webhook_can_have_a_body_of_its_own() -> None:
    body = (
        '{"text": {{ printf "%s: %d" (.Status | toUpper) (len .Alerts.Firing) | toJson }}, "hosts": "'
        '{{ range $i, $a := .Alerts }}{{ if $i }}, {{ end }}{{ $a.Labels.instance }}{{ end }}", '
        '"common": "{{ range .CommonLabels.SortedPairs }}{{ .Name }}={{ .Value }};{{ end }}", '
        '"first": "{{ (index .Alerts 0).StartsAt.Format "15:04" }}", '
        '"names": {{ .CommonLabels.Names | join "," | toJson }}}'
    )
    assert hooked(FIRING, body=body).json() == {
        "text": "FIRING: 2", "hosts": "db1, db2", "common": "alertname=DiskFull;severity=critical;", "first": "22:01",
        "names": "alertname,severity",
    }  # fmt: skip


@pytest.mark.parametrize("body", ["{{ .Nosuch }}", "{{ if }}"])
def test_a_bad_body_is_rejected_with_its_place(body: str) -> None:
    with pytest.raises(Rejected, match=r"webhook.body: 1:\d"):
        hooked(FIRING, body=body)


def test_alerts_beyond_the_most_are_counted() -> None:
    told = hooked(HUGE, max_alerts=10).json()
    assert (len(told["alerts"]), told["truncatedAlerts"]) == (10, 290)


def test_a_digest_is_a_webhook_too() -> None:
    told = hooked(DIGEST, max_alerts=1).json()
    assert (told["groupKey"], told["kind"], len(told["alerts"])) == ("{}:digest", "digest", 1)
    assert [(one["labels"]["alertname"], one["status"], one["fired"]) for one in told["digest"]] == [
        ("DiskFull", "firing", 3), ("HighLoad", "resolved", 1),
    ]  # fmt: skip
    assert told["notes"] == [
        {"at": "2023-11-14T22:13:20Z", "good": True, "text": "backup etc: 12.3MiB in 4s, verified"},
        {"at": "2023-11-14T22:13:20Z", "good": False, "text": "backup db: no space left"},
    ]


def test_a_body_of_ones_own_can_tell_a_digest() -> None:
    body = (
        "[{{ range $i, $e := .Entries }}{{ if $i }}, {{ end }}"
        '"{{ $e.Alert.Labels.alertname }} {{ $e.Fired }}/{{ $e.Resolved }} {{ $e.FirstAt.Format "15:04" }}"{{ end }}'
        '{{ range .Notes }}, "{{ if .Good }}done{{ else }}failed{{ end }}: {{ .Text }}"{{ end }},'
        " {{ .Source | toJson }}]"
    )
    assert hooked(replace(DIGEST, source="db1"), body=body).json() == [
        "DiskFull 3/2 20:16", "HighLoad 1/1 20:50", "done: backup etc: 12.3MiB in 4s, verified",
        "failed: backup db: no space left", "db1",
    ]  # fmt: skip


def test_a_header_that_is_a_secret_is_not_shown() -> None:
    stub = Stub(next_replies=[(403, {}, b"no such key: Token t0ps3cret")])
    headers = {"X-Api-Key": Secret("Token t0ps3cret")}
    with stub.serving(), pytest.raises(Rejected) as caught:
        Webhook(Secret(f"{stub.url}/x"), headers).send(FIRING, None)
    assert "http status 403: no such key: ***" in str(caught.value)
    assert stub.calls[0].headers["x-api-key"] == "Token t0ps3cret"
