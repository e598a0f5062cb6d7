"""The Flux of the downsampling tasks: which field is summed up how, and the scripts as golden files.

No Flux engine can be installed from Debian or PyPI, so here the text is looked at. InfluxData's own compiler (npm
@influxdata/flux-lsp-browser 0.8.40: grammar, types and signatures of every function) accepted the golden files; ask it
again when they change.
"""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from agent.config import Settings
from agent.core.model import Field, Group, counter, gauge, untyped
from agent.influx.flux import MAX, MIN, Step, has_mean, means, quoted, task
from agent.influx.plan import Retention, groups_of, plan
from tests.golden.update import HERE, made_files

GROUPS = groups_of(Settings())
PLAN = plan("hosts", Retention(), GROUPS)
SCRIPTS = [one.flux for one in PLAN.tasks]
_LITERAL = re.compile(r'"(?:[^"\\\n]|\\.)*"|=~ /(?:[^/\\\n]|\\.)+/|//[^\n]*')
_CONDITION = re.compile(r'^    \(r\._measurement == "([^"]*)" and r\._field =~ /(.*)/\)(?: or)?$', re.MULTILINE)


@pytest.mark.parametrize("name", [f"downsample_{every}.flux" for every in ("5m", "1h", "1d")])
def test_the_scripts_are_those_of_the_golden_files(name: str) -> None:
    how = "if the change is meant: python -m tests.golden.update, and read the diff"
    assert made_files()[name] == HERE.joinpath(name).read_text(), how


def chosen(script: str, measurement: str, field: str) -> bool:
    """Does the script take the field for a gauge? Its regular expressions are plain ones, which Python reads alike."""
    return any(name == measurement and re.search(pattern, field) for name, pattern in _CONDITION.findall(script))


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_declared_field_is_summed_up_as_its_kind_asks(script: str) -> None:
    declared: dict[tuple[str, str], list[Field]] = {}
    for group in GROUPS:
        for field in group.fields:
            if field.influx and "*" not in field.influx:
                declared.setdefault((group.measurement, field.influx), []).append(field)
    assert len(declared) > 250
    wrong = {key for key, fields in declared.items() if chosen(script, *key) != all(map(has_mean, fields))}
    assert wrong == set()


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (gauge("used", "bytes", "x", influx="used"), True),
        (gauge("share", "percent", "x", influx="share"), True),
        (counter("reads", "count", "x", influx="reads"), False),
        (untyped("lines", "count", "x", influx="lines"), False),
        (gauge("up", "bool", "x", influx="up", type=bool), False),
        (gauge("up", "bool", "x", influx="up"), False),
        (gauge("state", "code", "x", influx="state"), False),
        (gauge("text", "text", "x", influx="text"), False),
        (gauge("last_success_timestamp_seconds", "seconds", "x", influx="at"), False),
    ],
)
def test_only_numbers_that_go_up_and_down_have_a_mean(field: Field, expected: bool) -> None:
    assert has_mean(field) is expected


def test_a_field_declared_in_two_ways_is_no_gauge() -> None:
    one = Group("m", (gauge("a", "bytes", "x", influx="a"), gauge("b", "bytes", "x", influx="b")))
    other = Group("m", (counter("a", "bytes", "x", influx="a"),))
    assert means([one, other]) == {"m": ["b"]}


def test_no_declared_field_is_taken_for_an_extreme() -> None:
    names = {field.influx for group in GROUPS for field in group.fields if field.influx}
    assert [name for name in names if name.endswith((MIN, MAX))] == []


def test_the_steps_pass_their_buckets_on_and_nothing_is_written_twice() -> None:
    for earlier, later in pairwise(SCRIPTS):
        (target,) = set(re.findall(r'to\(bucket: "([^"]*)"\)', earlier))
        assert re.findall(r'from\(bucket: "([^"]*)"\)', later) == [target]
    for script in SCRIPTS:
        every = re.findall(r"\bevery: (\w+)", script)
        assert len(set(every)) == 1
        functions = re.findall(r"fn: (\w+), createEmpty", script)
        assert functions == ["mean", "min", "max", "last"]
        filters = re.findall(r"filter\(fn: \(r\) => (.*)\)$", script, re.MULTILINE)
        assert len(filters) == 4


@pytest.mark.parametrize("script", SCRIPTS)
def test_brackets_and_strings_are_closed(script: str) -> None:
    left = _LITERAL.sub("", script)
    assert '"' not in left
    brackets = re.sub(r"[^()\[\]{}]", "", left)
    while (fewer := re.sub(r"\(\)|\[\]|\{\}", "", brackets)) != brackets:
        brackets = fewer
    assert brackets == ""


def test_names_cannot_break_out_of_their_strings() -> None:
    assert quoted('a"b\\c${d}\n') == '"a\\"b\\\\c\\${d}\\n"'
    script = task(Step('x") |> drop(', "y", "5m", "1m", is_first=True), {})
    assert 'from(bucket: "x\\") |> drop(")' in script
