"""The application: every route, behind its guard."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Match, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from agent.core.clock import SystemClock
from agent.core.model import Tick
from agent.http import plain_api, prometheus_api, refusals
from agent.http.desk import Desk
from agent.http.faces import AlertsFace
from agent.http.guard import Guard
from agent.http.openapi import OPERATIONS, Operation, document
from agent.http.options import HttpOptions
from agent.http.refusals import JSON, Refusal
from agent.http.service import Endpoint, Service
from sinks.history.naming import Names
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


def wants_openmetrics(accept: str) -> bool:
    """Whether an Accept header (RFC 9110, 12.5.1) takes OpenMetrics 1.0, which then comes before the older text.

    prometheus_client's negotiation says the same, and importing it costs the daemon 4.5 MB.
    """
    for offer in accept.lower().split(","):
        kind, *parameters = [part.strip() for part in offer.split(";")]
        given = dict(parameter.split("=", 1) for parameter in parameters if "=" in parameter)
        is_wanted = given.get("q", "1").strip("0.") != ""
        if kind == "application/openmetrics-text" and given.get("version", "1.0.0") == "1.0.0" and is_wanted:
            return True
    return False


class MetricsPage:
    """/metrics: the newest readings, rendered at most once a revision and dialect."""

    def __init__(self, agent: Agent, exposition: Exposition) -> None:
        self._agent = agent
        self._exposition = exposition
        self._cache: dict[tuple[Dialect, bool], tuple[int, bytes]] = {}

    async def __call__(self, request: Request) -> Response:
        dialect: Dialect = "openmetrics" if wants_openmetrics(request.headers.get("accept", "")) else "text"
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


def build(
    agent: Agent,
    exposition: Exposition,
    *,
    service: Service | None = None,
    names: Names | None = None,
    options: HttpOptions | None = None,
    alerts: AlertsFace | None = None,
    hosts: Sequence[str] = (),
    more: Sequence[tuple[Operation, Endpoint]] = (),
) -> ASGIApp:
    """The application.

    `service` asks history, None where there is none; `names` is how history calls series; `hosts` are names this host
    answers to besides those of `options`. `more`: endpoints of other rooms with their entries in the OpenAPI document;
    those that are no reads need an admin token.
    """
    asking = service or Service(SystemClock(), Desk(), None)
    operations = [*OPERATIONS, *(operation for operation, _ in more)]
    endpoints: dict[str, Endpoint] = {
        **_own_endpoints(agent, exposition, operations),
        **prometheus_api.endpoints(asking, alerts),
        **plain_api.endpoints(asking, agent, names or Names("node", os.uname().nodename)),
        **{operation.path: endpoint for operation, endpoint in more},
    }
    return Guard(Application(operations, endpoints), options or HttpOptions(), hosts, _reads(operations))


class Application:
    """Routes of the operations, without a guard.

    `starlette.applications` would bring an error page with it: 0.6 MB, for errors that the guard answers.
    """

    def __init__(self, operations: Sequence[Operation], endpoints: Mapping[str, Endpoint]) -> None:
        self.routes = [Route(one.path, endpoints[one.path], methods=list(one.methods)) for one in operations]
        handlers = {404: _not_found, 405: _no_such_method}
        self._answer = ExceptionMiddleware(Router(self.routes), handlers=handlers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self  # so the router raises what the handlers are for, instead of answering itself
        await self._answer(scope, receive, send)


def _reads(operations: Iterable[Operation]) -> Callable[[str, str], bool]:
    """Does a request change nothing? Anything but GET on a path not known to be a read may change something."""
    routes = [Route(one.path, _never, methods=list(one.methods)) for one in operations if one.is_read]

    def is_read(method: str, path: str) -> bool:
        if method in {"GET", "HEAD"}:
            return True
        scope = {"type": "http", "path": path, "method": method, "root_path": ""}
        return any(route.matches(scope)[0] != Match.NONE for route in routes)

    return is_read


async def _never(_: Request) -> Response:
    raise AssertionError("this route is only compared with")


def _own_endpoints(agent: Agent, exposition: Exposition, operations: Sequence[Operation]) -> dict[str, Endpoint]:
    metrics = MetricsPage(agent, exposition)
    described = msgspec.json.encode(document(operations))

    async def metrics_page(request: Request) -> Response:
        return await metrics(request)

    async def health(_: Request) -> Response:
        found = agent.health()
        body = json.dumps(found, indent=1)
        return Response(body, 503 if found["status"] == "stalled" else 200, {"Content-Type": JSON})

    async def ready(_: Request) -> Response:
        return PlainTextResponse("ready\n") if agent.is_ready else PlainTextResponse("starting\n", 503)

    async def index(_: Request) -> Response:
        return PlainTextResponse("vigilhost: /metrics, /health, /-/ready, /api/v1/, /api/openapi.json\n")

    async def openapi(_: Request) -> Response:
        return Response(described, headers={"Content-Type": JSON})

    return {"/": index, "/metrics": metrics_page, "/health": health, "/-/ready": ready, "/api/openapi.json": openapi}


async def _not_found(request: Request, _: Exception) -> Response:
    if request.url.path.startswith("/api/"):
        return refusals.answer(Refusal("not_found", "no such path; /api/openapi.json lists them"))
    return PlainTextResponse("not found\n", 404)


async def _no_such_method(request: Request, error: Exception) -> Response:
    headers = dict(getattr(error, "headers", None) or {})
    return refusals.answer(Refusal("bad_data", f"this path takes no {request.method}", headers), 405)
