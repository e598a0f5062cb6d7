from __future__ import annotations

import gzip

import pytest
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from agent.core.model import Group, Tick, gauge
from agent.http.app import build, wants_openmetrics
from sinks.prometheus import Exposition
from tests.agent.http.asking import Agent, Client

G = Group("m", (gauge("n", "count", "A number.", prom="n"),))


@pytest.fixture
def agent() -> Agent:
    agent = Agent()
    agent.ticks = [Tick(0, "test", [G.row((), (1,))])]
    return agent


@pytest.fixture
def client(agent: Agent) -> Client:
    return Client(build(agent, Exposition()))


async def test_metrics_are_prometheus_text_unless_asked_otherwise(client: Client) -> None:
    answer = await client.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.body == b"# HELP n A number.\n# TYPE n gauge\nn 1\n"


async def test_a_scraper_that_wants_openmetrics_gets_it(client: Client) -> None:
    accept = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5"
    answer = await client.get("/metrics", accept=accept)
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert [family.name for family in parse_openmetrics(answer.text)] == ["n"]


async def test_metrics_are_compressed_for_who_can_unpack_them(client: Client) -> None:
    answer = await client.get("/metrics", accept_encoding="gzip, deflate")
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(answer.body).endswith(b"n 1\n")


async def test_nothing_is_rendered_twice_for_one_state_and_nothing_old_is_shown(agent: Agent, client: Client) -> None:
    for _ in range(3):
        await client.get("/metrics")
    assert agent.asked == 1
    agent.number, agent.ticks = 2, [Tick(0, "test", [G.row((), (2,))])]
    assert (await client.get("/metrics")).body.endswith(b"n 2\n")


async def test_health_is_503_only_when_the_agent_itself_stalls(agent: Agent, client: Client) -> None:
    for status, code in (("ok", 200), ("degraded", 200), ("stalled", 503)):
        agent.status = status
        answer = await client.get("/health")
        assert (answer.status, answer.json()["status"]) == (code, status)


async def test_ready_says_when_it_is(agent: Agent, client: Client) -> None:
    agent.is_ready = False
    assert (await client.get("/-/ready")).status == 503
    agent.is_ready = True
    assert (await client.get("/-/ready")).status == 200


async def test_an_unknown_path_is_404(client: Client) -> None:
    assert (await client.get("/nothing")).status == 404
    assert (await client.get("/api/v1/nothing")).json()["errorType"] == "not_found"


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "text/plain",
        "application/openmetrics-text",
        "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
        "text/plain;version=0.0.4;q=0.9, application/openmetrics-text; version=0.0.1; q=0.8",
        "application/openmetrics-text;version=2.0.0",
        ";;;=,,q",
    ],
)
def test_the_dialect_is_what_prometheus_client_would_choose(accept: str) -> None:
    _, content_type = choose_encoder(accept)
    assert wants_openmetrics(accept) == ("openmetrics" in content_type and "version=2" not in accept)


def test_an_offer_that_is_refused_is_not_taken() -> None:
    assert not wants_openmetrics("application/openmetrics-text;q=0, text/plain")


def test_media_types_are_compared_without_regard_to_case() -> None:
    assert wants_openmetrics("Application/OpenMetrics-Text")
