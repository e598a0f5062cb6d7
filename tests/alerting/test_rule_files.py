"""Rule files: every fault with its line and a sentence, and the rules beside it kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.promql_language import PromQL
from alerting.rule_files import RuleSet, parse_rules, read_rule_files
from alerting.rule_overrides import RuleOverride, apply_overrides
from alerting.rules import AlertRule

GROUP = """
groups:
- name: disks
  rules:
  - alert: Fine
    expr: up == 0
"""


def parsed(text: str) -> RuleSet:
    return parse_rules(text, "f.yaml", PromQL())


def names(found: RuleSet) -> list[str]:
    return [rule.name for _, rule in found.rules()]


def test_a_rule_has_what_it_says() -> None:
    found = parsed("""
groups:
- name: disks
  interval: 30s
  query_offset: 1m
  limit: 7
  labels: {team: ops, severity: none}
  rules:
  - alert: Full
    expr: |
      used > 0.9
    for: 1h30m
    keep_firing_for: 5m
    labels: {severity: page}
    annotations: {summary: "{{ $value }}", vigilhost_no_data: resolve}
  - record: used
    expr: 1 - free
    labels: {path: ""}
""")
    assert found.errors == found.warnings == []
    (group,) = found.groups
    assert (group.key, group.interval, group.query_offset, group.limit) == ("f.yaml;disks", 30.0, 60.0, 7)
    full, used = group.rules
    assert isinstance(full, AlertRule)
    assert (full.hold, full.keep_firing_for, full.no_data) == (5400.0, 300.0, "resolve")
    assert [(name, text.text) for name, text in full.labels] == [("severity", "page"), ("team", "ops")]
    assert [one.name for one in full.expression.inputs] == ["used"]
    assert used.labels == (("path", ""), ("severity", "none"), ("team", "ops"))


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("{alert: A, expr: 'up =='}", "disks/A.expr: 1:6: found the end of the query, expected"),
        ("{alert: A, expr: 'rte(up[5m])'}",
         "disks/A.expr: 1:1: found 'rte', which is no function; did you mean 'rate'?"),
        ("{alert: A, expr: ''}", "disks/A.expr: is missing; write the query that the rule is about"),
        ("{alert: A}", "disks/A.expr: is missing; write the query that the rule is about"),
        ("{alert: A, expr: [up]}", "disks/A.expr: is no text; put the query in quotes, or below `expr: |`"),
        ("{alert: A, expr: up, fro: 5m}", "disks/A.fro: no such key; did you mean 'for'?"),
        ("{alert: A, expr: up, for: five minutes}",
         "disks/A.for: 'five minutes' is not a duration; write it like 90s, 5m or 1h30m"),
        ("{alert: A, expr: up, labels: {a-b: c}}",
         "disks/A.labels: 'a-b' is no name; letters, digits and _ are allowed, no digit first"),
        ("{alert: A, expr: up, labels: {__name__: c}}",
         "disks/A.labels: __name__ is the metric's own name; call the label something else"),
        ("{alert: A, expr: up, labels: a}", "disks/A.labels: is no mapping; write name: value"),
        ("{alert: A, expr: up, annotations: {s: '{{ $value | humanise }}'}}",
         "disks/A.annotations.s: is no template: 1:13: function 'humanise' not defined"),
        ("{alert: A, expr: up, annotations: {s: '{{ if }}'}}", "disks/A.annotations.s: is no template: "),
        ("{alert: A, expr: up, annotations: {vigilhost_no_data: maybe}}",
         "disks/A.annotations.vigilhost_no_data: found 'maybe'; hold or resolve would be right"),
        ("{alert: A, record: a, expr: up}", "disks/rules[1]: is both `alert` and `record`; make two rules of it"),
        ("{expr: up}", "disks/rules[1]: has neither `alert` nor `record`; give it a name"),
        ("{record: a b, expr: up}", "disks/a b.record: 'a b' is no metric name; letters, digits, _ and : are allowed"),
        ("{record: a, expr: up, for: 5m}",
         "disks/a.for: belongs to alerts only; remove it from this recording rule"),
        ("just text", "disks/rules[1]: found no mapping; write `option: value`"),
    ],
)  # fmt: skip
def test_a_fault_leaves_out_its_rule_alone(rule: str, problem: str) -> None:
    found = parsed(f"{GROUP}  - {rule}\n  - {{alert: Last, expr: up}}\n")
    assert names(found) == ["Fine", "Last"]
    (error,) = found.errors
    assert str(error).startswith(f"f.yaml:7: {problem}"), str(error)


def test_the_line_of_a_fault_in_a_block_is_its_own() -> None:
    found = parsed(f"{GROUP}  - alert: A\n    expr: |\n      up == 0\n      and )\n")
    assert [str(error.place) for error in found.errors] == ["f.yaml:10"]


@pytest.mark.parametrize(
    ("text", "problem", "left"),
    [
        ("groups: [", "f.yaml:1: is not YAML: did not find expected node content", []),
        ("groups: {a: b}", "f.yaml:1: groups: is no list; write each group after a dash", []),
        ("group: []", "f.yaml:1: group: no such key; did you mean 'groups'?", []),
        ("- a", "f.yaml:1: found no mapping; write `option: value` (with a space after the colon)", []),
        (GROUP + "- rules: []", "f.yaml:7: groups[1].name: is missing; give the group a name", ["Fine"]),
        (GROUP + "- {name: disks, rules: [{alert: Other, expr: up}]}",
         "f.yaml:7: groups[1].name: a group called 'disks' stands at f.yaml:3 already; rename one", ["Fine"]),
        (GROUP + "- {name: b, limit: few, rules: [{alert: B, expr: up}]}",
         "f.yaml:7: b.limit: 'few' is not a number of series; 0 is no limit", ["Fine", "B"]),
        (GROUP + "- {name: b, rules: {alert: B}}",
         "f.yaml:7: b.rules: is no list; write each rule after a dash", ["Fine"]),
    ],
)  # fmt: skip
def test_faults_beyond_a_rule(text: str, problem: str, left: list[str]) -> None:
    found = parsed(text)
    assert [str(error) for error in found.errors] == [problem]
    assert names(found) == left


def test_repetitions_are_said_across_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GROUP)
    (tmp_path / "b.yaml").write_text(GROUP.replace("up == 0", "up  ==0"))
    (tmp_path / "c.yaml").write_text(GROUP.replace("up == 0", "up == 1"))
    (tmp_path / "d.yaml").write_text("groups: [")
    found = read_rule_files([str(tmp_path / f"{name}.yaml") for name in "abcde"], PromQL())
    first = f"{tmp_path}/a.yaml:5"
    assert names(found) == ["Fine", "Fine"]
    assert [str(error) for error in found.errors] == [
        f"{tmp_path}/d.yaml:1: is not YAML: did not find expected node content",
        f"{tmp_path}/e.yaml: cannot be read: no such file or directory",
        f"{tmp_path}/b.yaml:5: disks/Fine: is the same rule as the one at {first}; remove one",
    ]
    assert [str(warning) for warning in found.warnings] == [
        f"{tmp_path}/c.yaml:5: disks/Fine: has the name and the labels of the rule at {first}; "
        "a label of its own tells them apart"
    ]


@given(st.recursive(
    st.sampled_from(("up", "~", "5m", "{{", "a b", "1", "'", "&x", "*x")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(("groups", "name", "rules", "alert", "record", "expr", "for", "<<")), inner, max_size=4
    ),
    max_leaves=15,
))  # fmt: skip
def test_whatever_stands_in_a_file(tree: object) -> None:
    """It is read or it is complained about; nothing is raised, and every rule that is kept is whole."""
    found = parsed(f"groups: {tree}")
    assert all(rule.name and rule.expression.canonical for _, rule in found.rules())


# The rules of others.

COMMUNITY = sorted(Path(os.environ.get("COMMUNITY_RULES_DIR", "/nonexistent")).glob("*/*.yml"))


@pytest.mark.skipif("COMMUNITY_RULES_DIR" not in os.environ, reason="COMMUNITY_RULES_DIR names no folder of rules")
def test_all_community_rules_load() -> None:
    found = read_rule_files(map(str, COMMUNITY), PromQL())
    assert found.errors == found.warnings == []
    assert len(names(found)) == 136


# Adjusted from our own YAML.

ADJUSTABLE = """
groups:
- name: g
  rules:
  - alert: Full
    expr: used / size * 100 > 80 and readonly
    for: 5m
    labels: {severity: warning, team: ops}
    annotations: {summary: full}
  - {alert: Two, expr: a > 1 or b < 2}
  - {record: 'a:b', expr: a}
"""


def adjusted(**overrides: RuleOverride) -> RuleSet:
    return apply_overrides(parsed(ADJUSTABLE), overrides, PromQL())


def test_what_an_override_changes() -> None:
    found = adjusted(Full=RuleOverride(
        threshold=95, for_=0.0, keep_firing_for=60.0, labels={"severity": "critical", "team": "", "x": "{{ $value }}"},
        annotations={"runbook": "r"}, no_data="resolve",
    ))  # fmt: skip
    assert found.errors == found.warnings == []
    rule = found.groups[0].rules[0]
    assert isinstance(rule, AlertRule)
    assert rule.expression.text == "used / size * 100 > 95 and readonly"
    assert (rule.hold, rule.keep_firing_for, rule.no_data) == (0.0, 60.0, "resolve")
    assert [(name, text.text) for name, text in rule.labels] == [("severity", "critical"), ("x", "{{ $value }}")]
    assert [(name, text.text) for name, text in rule.annotations] == [("runbook", "r"), ("summary", "full")]


def test_an_override_leaves_out_or_rewrites_a_rule() -> None:
    found = adjusted(Full=RuleOverride(enabled=False), Two=RuleOverride(expr="a > 5"))
    assert names(found) == ["Two", "a:b"]
    assert found.groups[0].rules[0].expression.text == "a > 5"


@pytest.mark.parametrize(
    ("name", "override", "problem"),
    [
        ("Two", RuleOverride(threshold=5),
         "threshold: the query has 2 comparisons with a number, not one; override `expr` instead"),
        ("a:b", RuleOverride(threshold=5),
         "threshold: the query has no comparisons with a number, not one; override `expr` instead"),
        ("Two", RuleOverride(expr="a >"), "1:4: found the end of the query, expected"),
        ("Two", RuleOverride(labels={"a-b": "c"}), "labels: 'a-b' is no label name"),
        ("Two", RuleOverride(annotations={"a": "{{"}), "1:1: '{{' without an end"),
        ("a:b", RuleOverride(for_=5.0), "for: this is a recording rule, only alerts have it"),
    ],
)  # fmt: skip
def test_an_override_that_cannot_be_leaves_the_rule_as_it_was(name: str, override: RuleOverride, problem: str) -> None:
    found = adjusted(**{name: override})
    (error,) = found.errors
    assert str(error).startswith("f.yaml:"), str(error)
    assert f"rules.overrides.{name}: {problem}" in str(error)
    assert names(found) == ["Full", "Two", "a:b"]


def test_an_override_of_no_rule_is_remarked() -> None:
    found = adjusted(Fulll=RuleOverride())
    assert [str(warning) for warning in found.warnings] == [
        "rules.overrides: Fulll: there is no such rule; did you mean 'Full'?"
    ]
