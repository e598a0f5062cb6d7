from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import pytest

from agent.core.labels import Labels, Matcher, labels_of, quote, select
from agent.core.query import ParseError
from agent.promql_language import PromQL
from alerting.expressions import Expression
from alerting.rule_check import missing_series
from alerting.rule_files import parse_rules


@dataclass
class Known:
    series: list[Labels]

    def exists(self, matchers: Collection[Matcher]) -> bool:
        return any(select(labels, matchers) for labels in self.series)

    def metrics(self) -> Collection[str]:
        return {dict(labels)["__name__"] for labels in self.series}


HOST = Known([
    labels_of({"__name__": "node_filesystem_avail_bytes", "mountpoint": "/", "fstype": "ext4"}),
    labels_of({"__name__": "node_filesystem_avail_bytes", "mountpoint": "/boot", "fstype": "vfat"}),
])  # fmt: skip


@pytest.mark.parametrize(
    ("expr", "because"),
    [
        ("node_filesystem_avail_bytes > 0", []),
        ('node_filesystem_avail_bytes{fstype!="tmpfs"}', []),
        ("made_by_a_rule > 0 or ALERTS", []),
        ("absent(backup_ok) or absent_over_time(backup_ok[5m])", []),
        ("backup_ok == 0", ["there is no backup_ok on this host"]),
        ("node_filesystem_avail_byte < 5",
         ["there is no node_filesystem_avail_byte on this host; did you mean 'node_filesystem_avail_bytes'?"]),
        ('node_filesystem_avail_bytes{mountpoint="/srv"}',
         ['node_filesystem_avail_bytes exists, but none with mountpoint="/srv"']),
        ('node_filesystem_avail_bytes{mountpoint="/", fstype="vfat"}',
         ["node_filesystem_avail_bytes exists, but no series matches all of "
          'node_filesystem_avail_bytes{mountpoint="/", fstype="vfat"}']),
        ('{__name__=~"pg_.*"}', ['no series matches {__name__=~"pg_.*"}']),
        ("a + a + rate(a[5m]) + b", ["there is no a on this host", "there is no b on this host"]),
    ],
)  # fmt: skip
def test_what_is_missing(expr: str, because: list[str]) -> None:
    rules = "groups:\n- name: g\n  rules:\n  - {record: made_by_a_rule, expr: '1'}\n  - alert: A\n"
    rules += f"    expr: {quote(expr)}\n"
    found = parse_rules(rules, "f", PromQL())
    assert found.errors == []
    assert [one.because for one in missing_series(found.groups, HOST)] == because
    assert all(str(one).startswith("f:5: g/A: ") for one in missing_series(found.groups, HOST))


def read(text: str) -> Expression:
    return PromQL().read(text)


def test_what_an_expression_reads() -> None:
    found = read('sum(rate(a{x="y"}[5m])) / on () absent(b) > 0.5')
    assert [(one.name, one.range_ms, one.asks_for_absence) for one in found.inputs] == [
        ("a", 300_000, False),
        ("b", 0, True),
    ]
    assert found.asks_for_absence
    assert [found.text[low:high] for low, high in found.thresholds] == ["0.5"]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("a > 5", ["5"]), ("5 < a", ["5"]), ("a > -5", ["-5"]), ("a > b", []), ("a * 5 > 1e3 and b == 2", ["1e3"]),
     ("1 > bool 2", []), ("count(a > 3) > bool 4", ["4"]), ("time() - (a > 0) > 8 * 86400", ["8 * 86400"]),
     ("(100 * (a / b) > 90) and on () c == 0", ["90"]), ("a / (b > 10) > 1 unless c > 2", ["1"]),
     ("a > 1 or b > 2", ["1", "2"]), ("sum(a > 3)", ["3"]), ("(a > 1) * on () group_left () b", ["1"]),
     ("a > b and c > 5", ["5"])],
)  # fmt: skip
def test_thresholds(text: str, numbers: list[str]) -> None:
    assert [text[low:high] for low, high in read(text).thresholds] == numbers


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("up", {"__name__": "up"}),
        ('up{a="b",}', {"__name__": "up", "a": "b"}),
        ("{}", {}),
        ('{a="b", c=""}', {"a": "b"}),
    ],
)
def test_series(text: str, labels: dict[str, str]) -> None:
    assert PromQL().series(text) == labels_of(labels)


@pytest.mark.parametrize("text", ["", "up{", 'up{a=~"b"}', "up offset 5m", "up[5m]", "1", "up + up"])
def test_no_series(text: str) -> None:
    with pytest.raises(ParseError):
        PromQL().series(text)
