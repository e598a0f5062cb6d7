from __future__ import annotations

import json
from typing import Any

import pytest

from agent.core.labels import labels_of
from alerting.routing import default_tree, parse_route
from tests.servers import programs, promtool

RECEIVERS = ["default", "db", "pager", "night", "all"]
TREE: dict[str, Any] = {
    "receiver": "default",
    "group_by": ["alertname"],
    "routes": [
        {"receiver": "all", "matchers": ['severity=~"critical|warning"'], "continue": True},
        {
            "matchers": ['team="db"'],
            "receiver": "db",
            "group_by": ["..."],
            "group_wait": "10s",
            "routes": [{"matchers": ["severity=critical"], "receiver": "pager", "repeat_interval": "1h"}],
        },
        {"receiver": "night", "match": {"team": "web"}, "match_re": {"instance": "web.*"}},
        {"receiver": "default", "matchers": ['team!="db"', "severity="]},
    ],
}
CASES: list[tuple[dict[str, str], list[str]]] = [
    ({"alertname": "a"}, ["default"]),
    ({"severity": "critical"}, ["all"]),
    ({"severity": "critical", "team": "db"}, ["all", "pager"]),
    ({"severity": "warning", "team": "db"}, ["all", "db"]),
    ({"team": "db"}, ["db"]),
    ({"team": "web", "instance": "web1"}, ["night"]),
    ({"team": "web", "instance": "db1"}, ["default"]),
    ({"severity": "info"}, ["default"]),
    ({"severity": "criticality"}, ["default"]),
]


@pytest.mark.parametrize(("labels", "receivers"), CASES)
def test_an_alert_goes_down_the_tree(labels: dict[str, str], receivers: list[str]) -> None:
    root = parse_route(TREE, RECEIVERS, [])
    assert [route.receiver for route in root.matching(labels_of(labels))] == receivers


def test_amtool_routes_alike() -> None:
    programs.need("amtool")
    config = json.dumps({"route": TREE, "receivers": [{"name": name} for name in RECEIVERS]})
    assert [promtool.route(config, labels) for labels, _ in CASES] == [receivers for _, receivers in CASES]


def test_what_a_route_does_not_say_it_has_from_its_parent() -> None:
    root = parse_route(TREE, RECEIVERS, [])
    pager = root.routes[1].routes[0]
    assert (pager.group_by, pager.group_wait, pager.repeat_interval, pager.group_interval) == (None, 10, 3600, 300)
    assert (root.routes[0].group_by, root.group_wait) == (("alertname",), 30)


def test_groups_are_named_as_alertmanager_names_them() -> None:
    root = parse_route(TREE, RECEIVERS, [])
    labels = labels_of({"alertname": "X", "team": "db", "severity": "critical"})
    (route,) = root.routes[1].matching(labels)
    key = route.group_key(route.group_labels(labels))
    assert key == '{}/{team="db"}/{severity="critical"}:{alertname="X", severity="critical", team="db"}'
    assert root.group_key(root.group_labels(labels)) == '{}:{alertname="X"}'
    assert root.routes[2].key == '{}/{instance=~"web.*",team="web"}'


def test_who_configures_a_receiver_and_nothing_else_hears_critical_alerts_at_once() -> None:
    root = parse_route(default_tree("db"), RECEIVERS, [])
    waits = [root.matching(labels_of({"severity": word}))[0].group_wait for word in ("critical", "page", "warning", "")]
    assert waits == [0.0, 0.0, 30.0, 30.0]


def test_two_routes_with_the_same_matchers_stay_apart() -> None:
    twin = {"receiver": "db", "matchers": ["a=b"], "continue": True}
    root = parse_route({"receiver": "default", "routes": [twin, twin]}, RECEIVERS, [])
    assert len({route.id for route in root.walk()}) == 3


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"receiver": "defualt"}, "route.receiver: no receiver is called 'defualt'; did you mean 'default'?"),
        ({}, "route.receiver: missing"),
        ({"receiver": "db", "matchers": ["a=b"]}, "the first route takes every alert"),
        ({"receiver": "db", "continue": True}, "nothing behind the first route"),
        ({"receiver": "db", "mute_time_intervals": ["x"]}, "the first route always speaks"),
        ({"receiver": "db", "group_bye": []}, r"route.group_bye: no such key; did you mean 'group_by'\?"),
        ({"receiver": "db", "group_by": ["...", "a"]}, "goes with no other"),
        ({"receiver": "db", "group_by": ["a", "a"]}, "named twice"),
        ({"receiver": "db", "group_by": "a"}, "a list of label names"),
        ({"receiver": "db", "group_wait": "soon"}, "route.group_wait: 'soon' is not a duration"),
        ({"receiver": "db", "repeat_interval": "0s"}, "too short"),
        ({"receiver": "db", "routes": [{"matchers": ["a"]}]}, r"routes\[0\].matchers: 'a' is not a matcher"),
        ({"receiver": "db", "routes": ["x"]}, r"routes\[0\]: found 'x'"),
        ({"receiver": "db", "routes": "x"}, "routes: found 'x'; a list of routes"),
        ({"receiver": "db", "routes": [{"mute_time_intervals": ["nite"]}]}, "no time interval is called 'nite'"),
        ({"receiver": "db", "digest": {"at": "8"}}, "route.digest.at: '8' is not a time of day"),
        ({"receiver": "db", "digest": {"on": "8"}}, "route.digest.on: no such key"),
        ({"receiver": "db", "digest": {"timezone": "X"}}, "route.digest.timezone: 'X' is not a time zone"),
        ({"receiver": "db", "digest": {"weekdays": ["x"]}}, "digest.weekdays: 'x' is no weekday"),
    ],
)
def test_a_bad_tree_is_refused_with_its_place(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_route(raw, RECEIVERS, ["night"], "route")
