from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest

from agent.core.clock import NS, FakeClock
from agent.core.model import Failed, Group, Reading, Tick, gauge
from agent.http import current
from sinks.history.history import History
from sinks.history.options import HistoryOptions
from tests.agent.http.asking import DISK, END_S, LOAD, START_S, Agent, Client, client_of, series

DAY_S = 86_400


async def data(client: Client, path: str, params: Any = ()) -> Any:
    answer = await client.get(f"/api/v1/metrics/{path}", params)
    assert answer.status == 200, answer.text
    return answer.json()["data"]


def agent_with(*readings: Reading) -> Agent:
    agent = Agent()
    agent.ticks = [Tick(END_S * NS + NS // 2, "test", list(readings), (Failed("x", "gone"),))]
    return agent


async def test_current_shows_the_newest_value_of_each_series_under_its_name_in_history() -> None:
    text = gauge("version", "text", "A text.", influx="version")
    odd = Group("odd", (gauge("ratio", "ratio", "A ratio.", prom="odd_ratio"), text))
    agent = agent_with(LOAD.row((), (0.5,)), DISK.row(("sda",), (7,)), DISK.row(("sdb",), (None,)),
                       odd.row((), (float("nan"), "6.1")))  # fmt: skip
    found = await data(client_of(None, agent=agent), "current")
    common = {"time": END_S + 0.5, "collector": "test"}
    at_home = {"instance": "web1", "job": "node"}
    assert found == {
        "time": END_S,
        "series": [
            {"metric": "node_load1", "labels": at_home, "unit": "load", "value": 0.5, **common},
            {"metric": "node_disk_reads_completed_total", "labels": {"device": "sda", **at_home}, "unit": "count",
             "value": 7, **common},
            {"metric": "odd_ratio", "labels": at_home, "unit": "ratio", "value": None, **common},
        ],
    }  # fmt: skip


async def test_current_can_be_asked_for_some_series_only() -> None:
    client = client_of(None, agent=agent_with(LOAD.row((), (0.5,)), *(DISK.row((d,), (1,)) for d in ("sda", "sdb"))))

    async def shown(**params: Any) -> list[str]:
        found = await data(client, "current", params)
        return [one["labels"].get("device", one["metric"]) for one in found["series"]]

    assert await shown(metric="node_load1") == ["node_load1"]
    assert await shown(metric=["node_load1", "node_disk_reads_completed_total"]) == ["node_load1", "sda", "sdb"]
    assert await shown(device="sdb") == ["sdb"]
    assert await shown(metric="node_load1", device="sdb") == []
    assert await shown(**{"match[]": '{device=~"sd.*"}'}) == ["sda", "sdb"]


async def test_history_gives_values_over_time_for_a_metric_and_its_labels(client: Client) -> None:
    asked = {
        "metric": "node_disk_reads_completed_total",
        "device": "sda",
        "start": END_S - 60,
        "end": END_S,
        "step": 30,
    }
    assert await data(client, "history", asked) == {
        "start": "2023-11-15T00:42:05Z", "end": "2023-11-15T00:43:05Z", "step": 30.0,
        "total": 1, "limit": 100, "offset": 0, "next_offset": None,
        "series": [{
            "metric": dict(series("node_disk_reads_completed_total", device="sda")),
            "values": [[END_S - 60, "4165"], [END_S - 30, "4179"], [END_S, "4193"]],
        }],
    }  # fmt: skip


async def test_the_step_is_chosen_so_that_there_are_at_most_500_points(client: Client) -> None:
    for hours, step in ((0.1, 1), (1, 8), (2, 15)):
        found = await data(client, "history", {"metric": "node_load1", "start": END_S - hours * 3600, "end": END_S})
        assert found["step"] == step
        assert len(found["series"][0]["values"]) <= 501


async def test_history_comes_in_pages_that_make_a_whole(client: Client) -> None:
    seen, offset = [], 0
    while offset is not None:
        found = await data(client, "history", {"match[]": '{job="node"}', "step": "1h", "limit": 3, "offset": offset})
        seen += [one["metric"] for one in found["series"]]
        assert found["total"] == 9
        offset = found["next_offset"]
    assert seen == [dict(labels) for labels in sorted(tuple(sorted(one.items())) for one in seen)]
    assert len(seen) == 9


@pytest.mark.parametrize(
    ("path", "params", "error"),
    [
        ("history", {}, "which metric? write metric=node_load1"),
        ("history", {"metric": "node_load1", "step": "0"}, 'invalid parameter "step": a duration above zero'),
        ("history", {"metric": "node_load1", "step": "1", "start": "0"}, 'invalid parameter "step": more than 11000'),
        (
            "history",
            {"metric": "node_load1", "limit": "1001"},
            'invalid parameter "limit": a whole number',
        ),
        ("history", {"metric": "node_load1", "offset": "-1"}, 'invalid parameter "offset": a whole number'),
        ("history", {"metric": "node_load1", "ä": "1"}, 'invalid parameter "ä": is neither a parameter'),
        ("history", {"metric": "node_load1", "start": END_S, "end": START_S}, 'invalid parameter "end": '),
        ("stats", {"metric": "node_load1", "start": END_S, "end": END_S}, 'invalid parameter "end": a moment after'),
        ("stats", {"match[]": "{"}, 'invalid parameter "match[]": 1:2: parse error: '),
        ("export", {"format": "xml"}, 'invalid parameter "format": one of csv, json, jsonl, openmetrics'),
        ("current", {"match[]": "up("}, 'invalid parameter "match[]": 1:1: parse error: '),
    ],
)
async def test_what_cannot_be_answered_is_said(client: Client, path: str, params: dict[str, Any], error: str) -> None:
    answer = await client.get(f"/api/v1/metrics/{path}", params)
    assert (answer.status, answer.json()["errorType"]) == (400, "bad_data")
    assert answer.json()["error"].startswith(error)


@pytest.fixture
def week(tmp_path: Path) -> History:
    """An hour today, the same hour yesterday at half the height, none a week ago but one series."""
    history = History(HistoryOptions(raw=10.0 * DAY_S), str(tmp_path), FakeClock(END_S), "web1")
    for days, height in ((7, 4.0), (1, 0.5), (0, 1.0)):
        for at in range(60):
            samples = {series("steady", disk="a"): height * at}
            if days < 7:
                samples[series("other")] = -height
            history.record("test", (END_S - days * DAY_S - (59 - at) * 60) * 1000, samples)
    history.append(Tick(END_S * NS, "system", [LOAD.row((), (1.0,))]))
    return history


async def test_statistics_are_those_of_the_samples_beside_yesterday_and_last_week(week: History) -> None:
    found = await data(client_of(week), "stats", {"match[]": ["steady", "other"], "start": END_S - 3600})
    assert [one["metric"]["__name__"] for one in found["series"]] == ["other", "steady"]
    other, steady = found["series"]
    numbers = list(range(60))
    expected = {
        "count": 60, "min": 0, "max": 59, "avg": statistics.fmean(numbers), "p50": 29.5,
        "p95": pytest.approx(59 * 0.95), "p99": pytest.approx(59 * 0.99),
    }  # fmt: skip
    assert {name: steady[name] for name in expected} == expected
    assert steady["compared"]["yesterday"]["max"] == 29.5
    assert steady["compared"]["yesterday"]["avg_change_percent"] == pytest.approx(100)
    assert steady["compared"]["last_week"]["avg_change_percent"] == pytest.approx(-75)
    assert (other["avg"], other["compared"]["yesterday"]["avg_change_percent"]) == (-1, -100)
    assert other["compared"]["last_week"] is None
    week.close()


async def test_what_does_not_change_about_600_series_is_made_once_for_all_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent = agent_with(*(DISK.row((f"sd{n}",), (n,)) for n in range(600)))
    client = client_of(None, agent=agent)
    assert len((await data(client, "current"))["series"]) == 600
    monkeypatch.setattr(current, "_head", lambda labels, unit: pytest.fail("made again"))
    answer = await client.get("/api/v1/metrics/current")
    assert answer.body.count(b'"metric"') == 600
