"""The section `alerting:` as people write it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from agent.config.plugins import read_table
from agent.config.registry import Registry
from agent.config.schema import Bad, Reader
from agent.core import yaml_nodes as nodes
from alerting.notify.table import NOTIFIERS
from alerting.options import AlertingOptions, ReceiverCommon

RECEIVERS = Registry(
    noun="receiver",
    builtin=NOTIFIERS,
    common=ReceiverCommon,
    off_by_default=frozenset(NOTIFIERS),
    has_types=True,
)
OPS = "receivers: {ops: {type: ntfy, topic: t}, pager: {type: pagerduty, routing_key: k}}"


@dataclass
class Read:
    options: Any
    errors: list[str] = field(default_factory=list)


def read(text: str) -> Read:
    problems: list[Any] = []
    tree = nodes.parse(text, "v.yaml", problems)
    assert tree is not None
    assert problems == []
    reader = Reader({}, partial(read_table, {"receivers": RECEIVERS}))
    found = reader.section(AlertingOptions, tree, "alerting")
    return Read(None if isinstance(found, Bad) else found, [str(error) for error in reader.errors])


def test_without_anything_rules_are_judged_and_nobody_is_told() -> None:
    policy = read("{}").options.policy()
    assert (policy.notifiers, policy.root.receiver) == ({}, "")


def test_one_receiver_gets_everything_and_what_is_critical_at_once() -> None:
    policy = read("receivers: {ops: {type: ntfy, topic: t}}").options.policy()
    assert policy.root.receiver == "ops"
    (route,) = policy.root.matching((("alertname", "X"), ("severity", "critical")))
    assert (route.group_wait, policy.root.group_wait) == (0.0, 30.0)


def test_the_policy_knows_the_host_it_is_for() -> None:
    assert read(OPS + "\nroute: {receiver: ops}").options.policy("db1").source == "db1"


def test_a_tree_of_routes_with_intervals_inhibition_and_a_digest() -> None:
    text = f"""
{OPS}
route:
  receiver: ops
  group_by: [alertname, instance]
  group_wait: 10s
  routes:
    - {{receiver: pager, matchers: ['severity="critical"'], group_wait: 0s, continue: true}}
    - matchers: ['severity="warning"']
      mute_time_intervals: [night]
      digest: {{at: "07:30", timezone: Europe/Berlin}}
      routes:
        - {{matchers: ['team=~"a|b"'], repeat_interval: 90m, group_by: ['...']}}
inhibit_rules:
  - {{source_matchers: ['alertname=HostDown'], target_matchers: ['severity=~".+"'], equal: [instance]}}
time_intervals:
  night: [{{times: [{{start_time: "22:00", end_time: "24:00"}}], weekdays: ["monday:friday"], location: Europe/Berlin}}]
timezone: Europe/Berlin
flapping: {{changes: 0}}
outbox: {{rate: 5}}
"""
    found = read(text)
    assert found.errors == []
    policy = found.options.policy()
    critical, warning = policy.root.routes
    assert (critical.receiver, critical.group_wait, critical.goes_on) == ("pager", 0.0, True)
    assert (warning.receiver, warning.group_wait, warning.mute_time_intervals) == ("ops", 10.0, ("night",))
    assert (warning.digest.minute, warning.digest.zone) == (450, "Europe/Berlin")
    assert (warning.routes[0].repeat_interval, warning.routes[0].group_by) == (5400.0, None)
    assert policy.inhibit_rules[0].equal == ("instance",)
    assert policy.intervals["night"][0].minutes == ((1320, 1440),)
    assert (policy.zone, policy.flap.changes, policy.outbox.rate) == ("Europe/Berlin", 0, 5)
    assert policy.summarizing == {"ops"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            f"{OPS}\nroute: {{receiver: opps}}",
            "alerting: route.receiver: no receiver is called 'opps'; did you mean 'ops'?",
        ),
        (f"{OPS}\nroute: {{reciever: ops}}", "alerting.route.reciever: no such option; did you mean 'receiver'?"),
        (
            f"{OPS}\nroute: {{receiver: ops, routes: [{{group_wait: 5}}]}}",
            "alerting.route.routes[0].group_wait: '5' has no unit",
        ),
        (OPS, "alerting: route.receiver: missing; write which of ops, pager is told what no route below takes"),
        ("route: {receiver: ops}", "alerting: route: there are no receivers; write at least one into receivers"),
        (
            "receivers: {ops: {type: ntfi, topic: t}}",
            "alerting.receivers.ops.type: no such receiver; did you mean 'ntfy'?",
        ),
        ("receivers: {ops: {type: ntfy}}", "alerting.receivers.ops.topic: is missing"),
        ("receivers: {ops: {type: slack}}", "alerting: receivers.ops: "),
        (
            f"{OPS}\nroute: {{receiver: ops, routes: [{{mute_time_intervals: [nihgt]}}]}}",
            "alerting: route.routes[0].mute_time_intervals: no time interval is called 'nihgt'; there are none",
        ),
        (
            f"{OPS}\nroute: {{receiver: ops, routes: [{{matchers: [severity]}}]}}",
            "alerting: route.routes[0].matchers: 'severity' is not a matcher",
        ),
        ("timezone: Mars/Base", "alerting: timezone: 'Mars/Base' is not a time zone"),
        ("time_intervals: {night: [{weekdays: [fryday]}]}", "alerting: time_intervals.night[0].weekdays[0]: 'fryday'"),
        ("inhibit_rules: [{equal: [instance]}]", "alerting: inhibit_rules[0].source_matchers: found []"),
        ("rules: {overrides: {X: {treshold: 3}}}", "alerting.rules.overrides.X.treshold: no such option; did you mean"),
    ],
)
def test_a_mistake_is_said_with_its_place_and_what_would_be_right(text: str, said: str) -> None:
    (error,) = read(text).errors
    assert error.startswith("v.yaml:")
    assert said in error


def test_a_secret_in_a_receiver_is_never_shown() -> None:
    found = read("receivers: {ops: {type: slack, webhook_url: https://hooks.slack.com/s3cret, bot_token: s3cret2}}")
    assert "s3cret" not in " ".join(found.errors) + repr(found.options)


def test_an_alertmanager_gets_everything_unless_a_route_names_it() -> None:
    found = read("receivers: {ops: {type: ntfy, topic: t}, am: {type: alertmanager, urls: ['http://am:9093']}}")
    policy = found.options.policy()
    assert (policy.root.receiver, policy.forwards) == ("ops", ("am",))
    alone = read("receivers: {am: {type: alertmanager, urls: ['http://am:9093']}}").options.policy()
    assert (alone.root.receiver, alone.forwards) == ("", ("am",))
    named = read("{receivers: {am: {type: alertmanager, urls: ['http://am:9093']}}, route: {receiver: am}}")
    assert (named.options.policy().root.receiver, named.options.policy().forwards) == ("am", ())
