from __future__ import annotations

from typing import Any

import pytest

from alerting.inhibition import Inhibitor, parse_inhibit_rule
from alerting.notify.message import Alert
from tests.alerting.pictures import T0, alert

RULE = {
    "source_matchers": ["severity=critical"],
    "target_matchers": ['severity=~"warning|info"'],
    "equal": ["instance"],
}
TWINS = {"source_matchers": ["team=db"], "target_matchers": ["team=db"], "equal": []}
CRITICAL = alert("Down", severity="critical", instance="db1")


@pytest.mark.parametrize(
    ("rule", "source", "target", "inhibits"),
    [
        (RULE, CRITICAL, alert("Slow", severity="warning", instance="db1"), True),
        (RULE, CRITICAL, alert("Slow", severity="warning", instance="db2"), False),
        (RULE, CRITICAL, alert("Slow", severity="critical", instance="db1"), False),
        (RULE, CRITICAL.resolved(T0), alert("Slow", severity="warning", instance="db1"), False),
        (RULE, alert("Down", severity="critical"), alert("Slow", severity="info"), True),  # missing equals missing
        (TWINS, alert("A", team="db"), alert("B", team="db"), False),  # both match both sides
        (TWINS, alert("A", team="db"), alert("A", team="db"), False),
    ],
)
def test_a_source_keeps_its_targets_quiet(rule: dict[str, Any], source: Alert, target: Alert, inhibits: bool) -> None:
    inhibitor = Inhibitor([parse_inhibit_rule(rule, "x")], [source])
    assert (inhibitor.source_of(target.labels) is not None) is inhibits


def test_a_target_is_free_again_when_its_last_source_is_over() -> None:
    inhibitor = Inhibitor([parse_inhibit_rule(RULE, "x")])
    other = alert("Gone", severity="critical", instance="db1")
    target = alert("Slow", severity="warning", instance="db1").labels
    inhibitor.update([CRITICAL, other])
    inhibitor.update([CRITICAL.resolved(T0)])
    assert inhibitor.source_of(target) == other.labels
    inhibitor.update([other.resolved(T0)])
    assert inhibitor.source_of(target) is None


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"source": []}, "x.source: no such key"),
        ({"source_matchers": ["a=b"]}, "x.target_matchers: found None; a list of matchers"),
        ({"source_matchers": ["a"], "target_matchers": ["a=b"]}, "x.source_matchers: 'a' is not a matcher"),
        ({"source_matchers": ["a=b"], "target_matchers": ["a=b"], "equal": "a"}, "x.equal: found 'a'"),
    ],
)
def test_a_bad_rule_is_refused_with_its_place(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_inhibit_rule(raw, "x")
