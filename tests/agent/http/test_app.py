from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from agent.core.model import Group, Tick, gauge
from agent.http.app import build
from sinks.prometheus import Exposition

G = Group("m", (gauge("n", "count", "A number.", prom="n"),))


class Agent:
    """What the HTTP face sees of a daemon."""

    def __init__(self) -> None:
        self.number = 1
        self.status = "ok"
        self.is_ready = True
        self.asked = 0

    def snapshot(self) -> list[Tick]:
        self.asked += 1
        return [Tick(0, "test", [G.row((), (self.number,))])]

    def revision(self) -> int:
        return self.number

    def health(self) -> dict[str, Any]:
        return {"status": self.status, "collectors": {}}


class Client:
    """Calls an ASGI application without a server."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
                 "headers": raw, "http_version": "1.1", "scheme": "http", "root_path": ""}  # fmt: skip
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:])


@pytest.fixture
def agent() -> Agent:
    return Agent()


@pytest.fixture
def client(agent: Agent) -> Client:
    return Client(build(agent, Exposition()))


async def test_metrics_are_prometheus_text_unless_asked_otherwise(client: Client) -> None:
    status, headers, body = await client.get("/metrics")
    assert status == 200
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert body == b"# HELP n A number.\n# TYPE n gauge\nn 1\n"


async def test_a_scraper_that_wants_openmetrics_gets_it(client: Client) -> None:
    accept = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5"
    _, headers, body = await client.get("/metrics", accept=accept)
    assert headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert [family.name for family in parse_openmetrics(body.decode())] == ["n"]


async def test_metrics_are_compressed_for_who_can_unpack_them(client: Client) -> None:
    _, headers, body = await client.get("/metrics", accept_encoding="gzip, deflate")
    assert headers["content-encoding"] == "gzip"
    assert gzip.decompress(body).endswith(b"n 1\n")


async def test_nothing_is_rendered_twice_for_one_state_and_nothing_old_is_shown(agent: Agent, client: Client) -> None:
    for _ in range(3):
        await client.get("/metrics")
    assert agent.asked == 1
    agent.number = 2
    _, _, body = await client.get("/metrics")
    assert body.endswith(b"n 2\n")


async def test_health_is_503_only_when_the_agent_itself_stalls(agent: Agent, client: Client) -> None:
    for status, code in (("ok", 200), ("degraded", 200), ("stalled", 503)):
        agent.status = status
        found, _, body = await client.get("/health")
        assert (found, json.loads(body)["status"]) == (code, status)


async def test_ready_says_when_it_is(agent: Agent, client: Client) -> None:
    agent.is_ready = False
    assert (await client.get("/-/ready"))[0] == 503
    agent.is_ready = True
    assert (await client.get("/-/ready"))[0] == 200


async def test_an_unknown_path_is_404(client: Client) -> None:
    assert (await client.get("/nothing"))[0] == 404
