"""What is answered over HTTP: /metrics, /health, /-/ready. Reads only."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from agent.core.model import Tick
from sinks.prometheus import Dialect, Exposition

_GZIP_WINDOW = 31  # zlib: 15 bits of window, +16 for a gzip header


class Agent(Protocol):
    """What the HTTP face needs to know of the daemon."""

    @property
    def is_ready(self) -> bool: ...

    def snapshot(self) -> list[Tick]: ...

    def revision(self) -> int:
        """Changes whenever `snapshot` may have changed."""
        ...

    def health(self) -> dict[str, Any]: ...


class MetricsPage:
    """/metrics: the newest readings, rendered at most once a revision and dialect."""

    def __init__(self, agent: Agent, exposition: Exposition) -> None:
        self._agent = agent
        self._exposition = exposition
        self._cache: dict[tuple[Dialect, bool], tuple[int, bytes]] = {}

    async def __call__(self, request: Request) -> Response:
        _, content_type = choose_encoder(request.headers.get("accept", ""))
        dialect: Dialect = "openmetrics" if "openmetrics" in content_type else "text"
        if dialect == "text":
            content_type = "text/plain; version=0.0.4; charset=utf-8"
        else:
            content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8"
        packed = "gzip" in request.headers.get("accept-encoding", "")
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if packed:
            headers["Content-Encoding"] = "gzip"
        return Response(self._body(dialect, packed), headers=headers)

    def _body(self, dialect: Dialect, packed: bool) -> bytes:
        revision = self._agent.revision()
        known = self._cache.get((dialect, packed))
        if known is None or known[0] != revision:
            text = self._exposition.render(self._agent.snapshot(), dialect).encode("utf-8", "replace")
            known = self._cache[dialect, packed] = revision, _compress(text) if packed else text
        return known[1]


def _compress(data: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP_WINDOW)
    return packer.compress(data) + packer.flush()


def build(agent: Agent, exposition: Exposition) -> Starlette:
    """The application."""
    metrics = MetricsPage(agent, exposition)

    async def health(_: Request) -> Response:
        answer = agent.health()
        return _json(answer, 503 if answer["status"] == "stalled" else 200)

    async def ready(_: Request) -> Response:
        return PlainTextResponse("ready\n") if agent.is_ready else PlainTextResponse("starting\n", 503)

    async def index(_: Request) -> Response:
        return PlainTextResponse("vigilhost: /metrics, /health, /-/ready\n")

    return Starlette(
        routes=[
            Route("/", index),
            Route("/metrics", _endpoint(metrics)),
            Route("/health", health),
            Route("/-/ready", ready),
        ]
    )


def _endpoint(page: MetricsPage) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        return await page(request)

    return endpoint


def _json(answer: object, status: int = 200) -> Response:
    return Response(json.dumps(answer, indent=1), status, {"Content-Type": "application/json"})
