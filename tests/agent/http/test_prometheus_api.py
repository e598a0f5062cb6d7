from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.query import Limits, Points, QueryTimeoutError
from agent.http.desk import BusyError, Desk
from sinks.history.history import History
from tests.agent.http.asking import END_S, START_S, Client, client_of, series

LOAD_SERIES = {"__name__": "node_load1", "instance": "web1", "job": "node"}


async def data(client: Client, path: str, params: Any = ()) -> Any:
    answer = await client.get(f"/api/v1/{path}", params)
    assert answer.status == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    assert found["status"] == "success"
    return found["data"]


async def test_the_health_check_of_grafana_is_answered(client: Client) -> None:
    assert await data(client, "query", {"query": "1+1", "time": "4"}) == {"resultType": "scalar", "result": [4, "2"]}


async def test_each_kind_of_result_has_its_form(client: Client) -> None:
    at = {"time": END_S}
    assert await data(client, "query", {"query": "'x'", **at}) == {"resultType": "string", "result": [END_S, "x"]}
    assert await data(client, "query", {"query": "node_load1", **at}) == {
        "resultType": "vector", "result": [{"metric": LOAD_SERIES, "value": [END_S, "1.669"]}],
    }  # fmt: skip
    assert await data(client, "query", {"query": "node_load1[30s]", **at}) == {
        "resultType": "matrix",
        "result": [{"metric": LOAD_SERIES, "values": [[END_S - 15, "1.687"], [END_S, "1.669"]]}],
    }
    window = {"start": START_S, "end": START_S + 30, "step": "15s"}
    assert await data(client, "query_range", {"query": "node_load1 * 2", **window}) == {
        "resultType": "matrix",
        "result": [
            {
                "metric": {"instance": "web1", "job": "node"},
                "values": [[START_S, "2"], [START_S + 15, "2.05"], [START_S + 30, "2.1"]],
            }
        ],
    }


@pytest.mark.parametrize("path", ["query", "query_range", "labels", "series", "query_exemplars"])
async def test_a_posted_form_is_answered_as_the_address_is(client: Client, path: str) -> None:
    asked = {"query": "node_load1", "match[]": "node_load1", "time": END_S, "start": START_S, "end": END_S, "step": 60}
    by_get, by_post = await client.get(f"/api/v1/{path}", asked), await client.post(f"/api/v1/{path}", asked)
    assert by_get.status == 200
    assert by_get.json() == by_post.json()


async def test_labels_values_and_series_are_found(client: Client) -> None:
    assert await data(client, "labels") == ["__name__", "device", "instance", "job", "kind"]
    assert await data(client, "labels", {"match[]": "node_load1"}) == ["__name__", "instance", "job"]
    assert await data(client, "label/device/values") == ['odd "ä"\n\\', "sda", "sdb"]
    assert await data(client, "label/kind/values", {"match[]": 'node_odd{kind!="small"}'}) == ["infinite", "large"]
    assert await data(client, "label/nothing/values") == []
    assert await data(client, "series", {"match[]": ["node_load1", '{kind="small"}']}) == [
        LOAD_SERIES, {"__name__": "node_odd", "instance": "web1", "job": "node", "kind": "small"},
    ]  # fmt: skip
    assert await data(client, "series", {"match[]": "node_load1", "end": START_S - 86400}) == []


async def test_metadata_has_type_help_and_unit(client: Client) -> None:
    load = [{"type": "gauge", "help": "Load over 1 minute.", "unit": "load"}]
    assert (await data(client, "metadata"))["node_load1"] == load
    assert await data(client, "metadata", {"metric": "node_load1", "limit_per_metric": "1"}) == {"node_load1": load}
    assert await data(client, "metadata", {"limit": "0"}) == {}


async def test_what_is_cut_by_a_limit_is_said(client: Client) -> None:
    cut = ["results truncated due to limit"]
    for path, asked in (
        ("labels", {}),
        ("label/device/values", {}),
        ("series", {"match[]": "node_odd"}),
        ("query", {"query": "node_odd", "time": END_S}),
    ):
        answer = (await client.get(f"/api/v1/{path}", {**asked, "limit": 2})).json()
        found = answer["data"]["result"] if path == "query" else answer["data"]
        assert (len(found), answer["warnings"]) == (2, cut), path
        assert "warnings" not in (await client.get(f"/api/v1/{path}", {**asked, "limit": 9})).json()


async def test_warnings_and_infos_stand_beside_the_data(client: Client) -> None:
    answer = (await client.get("/api/v1/query", {"query": "rate(node_load1[5m])", "time": END_S})).json()
    (info,) = answer["infos"]
    assert info.startswith("PromQL info: metric might not be a counter, ")


async def test_a_lookback_of_ones_own_decides_how_old_a_value_may_be(client: Client) -> None:
    asked = {"query": "node_load1", "time": END_S + 60}
    assert len((await data(client, "query", asked))["result"]) == 1
    assert (await data(client, "query", {**asked, "lookback_delta": "30s"}))["result"] == []


async def test_rules_and_alerts_are_empty_without_alerting_and_what_it_says_with_it(history: History) -> None:
    client = client_of(history)
    assert await data(client, "rules") == {"groups": []}
    assert await data(client, "alerts") == {"alerts": []}
    assert (await client.get("/api/v1/rules", {"type": "x"})).json()["error"] == (
        'invalid parameter "type": not supported value "x"'
    )


async def test_build_information_is_that_of_the_api_spoken(client: Client) -> None:
    found = await data(client, "status/buildinfo")
    assert found["version"] == "2.42.0"
    assert "features" not in found


RANGE = {"query": "1", "start": "0", "end": "10", "step": "1"}

REFUSED = [
    ("query", {"query": ""}, 400, 'invalid parameter "query": 1:1: parse error: found no expression'),
    ("query", {"query": "sum(up"}, 400, 'invalid parameter "query": 1:7: parse error: '),
    ("query", {"query": "1", "time": "abc"}, 400,
     "invalid parameter \"time\": Invalid time value for 'time': cannot parse \"abc\" to a valid timestamp"),
    ("query", {"query": "1", "timeout": "x"}, 400, 'invalid parameter "timeout": cannot parse "x" to a valid duration'),
    ("query", {"query": "1", "timeout": "-1"}, 503, "query timed out in query queue"),
    ("query", {"query": "1", "lookback_delta": "0"}, 400, 'invalid parameter "lookback_delta": '),
    ("query", {"query": "1", "limit": "-1"}, 400, 'invalid parameter "limit": a whole number'),
    ("query", {"query": 'node_load1{ä="1"}'}, 400, 'invalid parameter "query": 1:12: parse error: '),
    ("query", {"query": 'node_load1{job=~"("}'}, 400, 'invalid parameter "query": 1:17: parse error: invalid regular'),
    ("query", {"query": "node_odd + on(job) node_odd"}, 422, ""),
    ("query_range", {**RANGE, "start": ""}, 400,
     'invalid parameter "start": cannot parse "" to a valid timestamp'),
    ("query_range", {**RANGE, "end": "-1"}, 400, 'invalid parameter "end": end timestamp must not'),
    ("query_range", {**RANGE, "step": ""}, 400, 'invalid parameter "step": cannot parse "" to a valid duration'),
    ("query_range", {**RANGE, "step": "0"}, 400, 'invalid parameter "step": zero or negative query resolution step'),
    ("query_range", {**RANGE, "step": "1e300"}, 400, 'invalid parameter "step": cannot parse "1e300" to'),
    ("query_range", {**RANGE, "end": "11001"}, 400, "exceeded maximum resolution of 11,000 points per timeseries."),
    ("query_range", {**RANGE, "query": "up[5m]"}, 400, 'invalid parameter "query": 1:1: parse error: invalid'),
    ("labels", {"match[]": "{"}, 400, 'invalid parameter "match[]": 1:2: parse error: '),
    ("labels", {"start": "x"}, 400, "invalid parameter \"start\": Invalid time value for 'start': "),
    ("series", {}, 400, "no match[] parameter provided"),
    ("series", {"match[]": "{}"}, 400, 'invalid parameter "match[]": '),
    ("series", {"match[]": "rate(up[5m])"}, 400, 'invalid parameter "match[]": not a series selector'),
    ("series", {"match[]": "up offset 5m"}, 400, 'invalid parameter "match[]": not a series selector'),
    ("label/a-b/values", {}, 400, 'invalid label name: "a-b"'),
    ("label/ä/values", {}, 400, 'invalid label name: "ä"'),
    ("metadata", {"limit": "x"}, 400, "limit must be a number"),
    ("query_exemplars", {"query": "rate("}, 400, "1:6: parse error: "),
]  # fmt: skip


@pytest.mark.parametrize(("path", "params", "status", "error"), REFUSED)
async def test_what_cannot_be_answered_is_said_as_prometheus_says_it(
    client: Client, path: str, params: dict[str, str], status: int, error: str
) -> None:
    answer = await client.get(f"/api/v1/{path}", params)
    found = answer.json()
    assert (answer.status, found["status"]) == (status, "error")
    assert found["errorType"] == {400: "bad_data", 422: "execution", 503: "timeout"}[status]
    assert found["error"].startswith(error)


async def test_a_range_of_exactly_11000_steps_is_answered(client: Client) -> None:
    found = await data(client, "query_range", {**RANGE, "end": "10999"})
    assert len(found["result"][0]["values"]) == 11_000


async def test_what_costs_too_much_is_422_and_what_takes_too_long_503(history: History) -> None:
    small = client_of(history, limits=Limits(samples=10))
    answer = await small.get("/api/v1/query", {"query": "node_load1[1h]", "time": END_S})
    assert (answer.status, answer.json()["errorType"]) == (422, "execution")
    slow = client_of(history, limits=Limits(deadline_s=1e-6))
    answer = await slow.get("/api/v1/query", {"query": "sum(node_load1)", "time": END_S})
    assert (answer.status, answer.json()["errorType"]) == (503, "timeout")


class SlowToShow(list[Points]):
    """Points that take their time once they are asked for."""

    def __iter__(self) -> Iterator[Points]:
        for one in super().__iter__():
            time.sleep(0.03)
            yield one


async def test_an_answer_that_takes_too_long_to_write_is_503() -> None:
    points = SlowToShow([Points(series("up", at=str(n)), [0], [1.0]) for n in range(1000)])
    history = SimpleNamespace(querier=lambda _: SimpleNamespace(
        range=lambda *_: SimpleNamespace(kind="matrix", matrix=lambda: points, value=points, warnings=(), infos=())
    ))  # fmt: skip
    client = client_of(history, limits=Limits(deadline_s=0.2))
    answer = await client.get("/api/v1/query_range", {**RANGE, "query": "up"})
    assert (answer.status, answer.json()["errorType"]) == (503, "timeout")


async def test_without_a_history_queries_are_503_with_the_reason() -> None:
    answer = await client_of(None).get("/api/v1/query", {"query": "1"})
    assert (answer.status, answer.json()["errorType"]) == (503, "unavailable")


class Gate:
    """Work for the desk that stays until it is let go."""

    def __init__(self) -> None:
        self.has_begun, self.may_go = threading.Event(), threading.Event()

    def __call__(self, _: float) -> str:
        self.has_begun.set()
        assert self.may_go.wait(30)
        return "done"


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.001)


async def test_too_many_questions_at_once_are_refused_and_rules_go_first(history: History) -> None:
    desk = Desk(most_waiting=2)
    gate = Gate()
    running = asyncio.ensure_future(desk.ask(gate, 30))
    await until(gate.has_begun.is_set)
    client = client_of(history, desk=desk)
    waiting = asyncio.ensure_future(client.get("/api/v1/query", {"query": "1"}))
    await until(lambda: desk.waiting == 2)
    with pytest.raises(BusyError):
        await desk.ask(lambda _: 1, 30)
    refused = await client.get("/api/v1/query", {"query": "1"})
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert await desk.ask(lambda _: "rule", 30, is_rule=True) == "rule"  # while a person's query still runs
    gate.may_go.set()
    assert await running == "done"
    assert (await waiting).status == 200
    desk.close()


async def test_a_question_that_waits_too_long_times_out_and_the_next_is_answered() -> None:
    desk, gate = Desk(), Gate()
    running = asyncio.ensure_future(desk.ask(gate, 30))
    await until(gate.has_begun.is_set)
    client = client_of(None, desk=desk, limits=Limits(deadline_s=0.02))
    answer = await client.get("/api/v1/query_exemplars", {"query": "up"})  # needs no history, only its turn
    assert (answer.status, answer.json()["error"]) == (503, "query timed out in query queue")
    gate.may_go.set()
    assert await running == "done"
    assert await desk.ask(lambda _: "next", 30) == "next"
    desk.close()


async def test_a_question_that_never_ends_is_left_behind_and_the_next_ones_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agent.http.desk._GRACE_S", 0.05)
    desk, gate = Desk(), Gate()
    with pytest.raises(QueryTimeoutError, match="did not end"):
        await desk.ask(gate, 0.01)
    with pytest.raises(QueryTimeoutError, match="an earlier query has not ended yet; ask again"):
        await desk.ask(lambda _: "too early", 30)
    gate.may_go.set()

    async def answers() -> bool:
        try:
            return await desk.ask(lambda _: True, 30)
        except QueryTimeoutError:
            return False

    async with asyncio.timeout(30):
        while not await answers():
            await asyncio.sleep(0.001)
    desk.close()


async def test_the_question_of_who_hung_up_is_dropped(history: History) -> None:
    desk, gate = Desk(), Gate()
    running = asyncio.ensure_future(desk.ask(gate, 30))
    await until(gate.has_begun.is_set)
    client = client_of(history, desk=desk)
    asking = asyncio.ensure_future(client.get("/api/v1/query", {"query": "1"}))
    await until(lambda: desk.waiting == 2)
    client.gone.set()
    assert (await asking).json()["errorType"] == "canceled"
    assert desk.waiting == 1
    gate.may_go.set()
    assert await running == "done"
    desk.close()


async def test_the_event_loop_goes_on_while_a_query_runs_and_its_answer_is_written(history: History) -> None:
    client = client_of(history)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.ensure_future(count())
    window = {"query": '{job="node"}', "start": START_S, "end": END_S, "step": 1}
    answer = await client.get("/api/v1/query_range", window)
    counting.cancel()
    assert len(answer.body) > 1_000_000
    assert turns > 100


HOSTILE = st.text(max_size=200) | st.sampled_from(["\udcff", "\x00", "{" * 5000, "-" * 4000 + "1", "(" * 4000, "1e999"])


@given(
    path=st.sampled_from(["query", "query_range", "labels", "series", "metadata", "rules", "label/job/values",
                          "query_exemplars", "metrics/current", "metrics/history", "metrics/stats", "metrics/export"]),
    params=st.dictionaries(
        st.sampled_from(["query", "time", "start", "end", "step", "timeout", "match[]", "limit", "metric", "offset",
                         "format", "lookback_delta", "type"]) | st.text(max_size=5),
        HOSTILE | st.sampled_from(["node_load1", "4", str(END_S), "1", "15s"]),
    ),
)  # fmt: skip
def test_nothing_that_is_sent_makes_an_internal_error(history: History, path: str, params: dict[str, str]) -> None:
    async def ask() -> int:
        return (await client_of(history).get(f"/api/v1/{path}", params)).status

    assert asyncio.run(ask()) in {200, 400, 422, 431, 503}


async def test_parameters_that_are_not_utf_8_are_refused(client: Client) -> None:
    answer = await client.get("/api/v1/query", b"query=%ff%fe")
    assert (answer.status, answer.json()["errorType"]) == (400, "bad_data")
