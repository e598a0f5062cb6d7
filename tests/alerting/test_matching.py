from __future__ import annotations

import pytest

from agent.core.labels import labels_of, select
from alerting.matching import parse_matchers, show_matchers
from tests.servers import programs, promtool

LABELS = labels_of({"severity": "critical", "instance": "db1:9100", "path": 'a"b,c'})


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("severity=critical", True),
        ('severity="critical"', True),
        (' severity = "critical" ', True),
        ('{severity="critical",instance=~"db.*"}', True),
        ('severity="critical", instance!~"db.*"', False),
        ("severity=~crit|warn", False),  # anchored at both ends
        ("severity=~critical|warning", True),
        ("nosuch=", True),
        ("nosuch!=", False),
        ('path="a\\"b,c"', True),
        ("severity!=critical", False),
    ],
)
def test_matchers_read_as_alertmanagers(text: str, matches: bool) -> None:
    assert select(LABELS, parse_matchers(text)) is matches


@pytest.mark.parametrize("text", ["severity", "=x", "1a=b", 'a="b', 'a=b"c', "a=~(", 'a="b"c"', 'a="b" c="d"'])
def test_a_bad_matcher_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a matcher|quote|RE2|missing"):
        parse_matchers(text)


def test_matchers_show_in_alertmanagers_order() -> None:
    assert show_matchers(parse_matchers('b="2", a=~"x|y"')) == '{a=~"x|y",b="2"}'
    assert show_matchers(()) == "{}"


def test_amtool_agrees_on_what_is_a_matcher() -> None:
    programs.need("amtool")
    text = "{{route: {{receiver: a, routes: [{{receiver: a, matchers: ['{0}']}}]}}, receivers: [{{name: a}}]}}"
    assert promtool.check_alertmanager_config(text.format("severity=~critical|warning")) == []
    for bad in ("severity", "1a=b", 'a="b', "a=~("):
        assert promtool.check_alertmanager_config(text.format(bad)), bad
