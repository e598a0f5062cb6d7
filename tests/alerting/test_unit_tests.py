"""Unit-test files: promtool's verdict is ours. `tests/fixtures/promtool` has one file for each possible difference."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.promql_language import PromQL
from agent.rules_lab import RulesLab
from alerting.series_notation import parse_values
from alerting.unit_test_run import Report, run_test_file
from tests.servers.programs import program

CORPUS = sorted((Path(__file__).parent.parent / "fixtures" / "promtool").glob("*.yml"))


def run(path: Path) -> Report:
    return run_test_file(str(path), PromQL(), RulesLab)


def sentence(path: Path) -> str:
    return path.read_text().splitlines()[0].removeprefix("# ")


def test_the_corpus_is_large() -> None:
    passing = [path for path in CORPUS if path.name.startswith("pass_")]
    assert len(CORPUS) - len(passing) >= 60
    assert len(passing) >= 60


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_verdict(path: Path) -> None:
    report = run(path)
    assert report.passed == path.name.startswith("pass_"), (sentence(path), report.failures)


@pytest.mark.server("promtool")
def test_promtool_says_the_same() -> None:
    differs = []
    for path in CORPUS:
        done = subprocess.run([program("promtool"), "test", "rules", str(path)], capture_output=True, text=True)
        if (done.returncode == 0) != path.name.startswith("pass_"):
            differs.append((path.name, done.stderr))
    assert differs == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fail_for_too_early", [
            "fail_for_too_early.yml:10: alert InstanceDown at 5m:",
            '    expected {alertname="InstanceDown", instance="a", job="node", severity="page"}',
            "    got      none firing",
        ]),
        ("fail_rule_syntax", ["rules/broken_syntax.yml:1: g/A.expr: 1:6: found the end of the query"]),
        ("fail_notation_histogram", ["input_series 'm': column 1: histograms are not kept here; write plain numbers"]),
        ("fail_notation_word", ["column 3: found 'two'; write it like 1 2.5 _ stale 1+1x10 0x5 _x3"]),
        ("fail_same_alert_labels", ["rules/errors.yml:4: SameLabels.expr: fails 0s after the start: vector contains"]),
        ("fail_file_top_key", ["evaluation_intervall: no such key; did you mean 'evaluation_interval'?"]),
        ("fail_second_group", ["the second: query 'm' at 0s:", 'expected {__name__="m"} 2.0', "got      nothing"]),
        ("pass_no_rule_file", []),
    ],
)  # fmt: skip
def test_failures_are_said_with_their_place(name: str, said: list[str]) -> None:
    (path,) = (one for one in CORPUS if one.stem == name)
    text = "\n".join(run(path).failures)
    for part in said:
        assert part in text
    assert bool(text) == bool(said)


def lab_test(tmp_path: Path, text: str) -> Report:
    path = tmp_path / "test.yml"
    path.write_text(text)
    return run(path)


def test_newer_promtools_fuzzy_compare(tmp_path: Path) -> None:
    text = """
fuzzy_compare: {fuzzy}
tests:
- input_series: [{{series: m, values: '0+0.1x3'}}]
  promql_expr_test: [{{expr: m, eval_time: 3m, exp_samples: [{{labels: m, value: 0.3}}]}}]
"""
    assert lab_test(tmp_path, text.format(fuzzy="true")).passed
    assert not lab_test(tmp_path, text.format(fuzzy="false")).passed


def test_a_pattern_that_matches_nothing_is_remarked(tmp_path: Path) -> None:
    report = lab_test(tmp_path, "rule_files: [nope.yml]")
    assert (report.passed, report.remarks) == (True, ["no file matches nope.yml"])


def test_external_url_functions_work_here(tmp_path: Path) -> None:
    (tmp_path / "r.yml").write_text(
        "groups: [{name: g, rules: [{alert: A, expr: up, annotations: {u: '{{ externalURL }} {{ pathPrefix }}'}}]}]"
    )
    text = """
rule_files: [r.yml]
tests:
- interval: 1m
  external_url: http://host/path
  input_series: [{series: up, values: '1'}]
  alert_rule_test: [{eval_time: 0, alertname: A, exp_alerts: [{exp_annotations: {u: http://host/path /path}}]}]
"""
    assert lab_test(tmp_path, text).failures == []


@given(st.text("0123456789.+-xe_ stalInfNa{}", max_size=30))
def test_any_values_are_read_or_refused(text: str) -> None:
    try:
        found = parse_values(text)
    except ValueError:
        return  # refused
    assert bool(found) == bool(text.strip())


@given(st.recursive(
    st.sampled_from(("up", "~", "5m", "a b", "1", "'", "1+1x2", "up{")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(("interval", "input_series", "series", "values", "alert_rule_test", "alertname", "exp_alerts",
                         "promql_expr_test", "expr", "exp_samples", "labels", "value", "eval_time", "rule_files")),
        inner, max_size=4),
    max_leaves=20,
))  # fmt: skip
def test_whatever_stands_in_a_test_file(tree: object) -> None:
    """It is carried out or complained about."""
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        file.write(f"tests: {tree}")
        file.flush()
        report = run(Path(file.name))
    assert report.passed == (report.failures == [])
