"""What the tests of the HTTP face share: a client without a server, an agent without a daemon, a filled history."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from agent.core.clock import NS, FakeClock
from agent.core.labels import Labels, labels_of
from agent.core.model import Group, Tick, counter, gauge
from agent.core.query import DEFAULT_LIMITS, Limits
from agent.http.app import build
from agent.http.desk import Desk
from agent.http.options import HttpOptions
from agent.http.service import Service
from sinks.history.history import History
from sinks.history.naming import Names
from sinks.history.options import HistoryOptions
from sinks.prometheus import Exposition

START_S = 1_700_000_000  # of the recorded series
POINTS = 600  # one each 15 s
STEP_S = 15
END_S = START_S + (POINTS - 1) * STEP_S

LOAD = Group("system", (gauge("load1", "load", "Load over 1 minute.", influx="load1", prom="node_load1"),))
DISK = Group(
    "disk",
    (counter("reads", "count", "Reads completed.", influx="reads", prom="node_disk_reads_completed_total"),),
    tags=("device",),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


class Client:
    """Calls an ASGI application without a server. `gone`: set it and the client has hung up."""

    def __init__(self, app: Any, headers: Mapping[str, str] | None = None) -> None:
        self.app = app
        self.headers = {"host": "localhost:9811", **(headers or {})}
        self.gone = asyncio.Event()

    async def get(self, path: str, params: Any = (), **headers: str) -> Answer:
        return await self.call("GET", path, params, headers=headers)

    async def post(self, path: str, form: Any = (), **headers: str) -> Answer:
        headers = {"content-type": "application/x-www-form-urlencoded", **headers}
        return await self.call("POST", path, body=urlencode(form, doseq=True).encode(), headers=headers)

    async def call(
        self, method: str, path: str, params: Any = (), body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        given = {**self.headers, **{name.replace("_", "-"): value for name, value in (headers or {}).items()}}
        given["content-length"] = str(len(body))
        query = (
            params if isinstance(params, bytes) else urlencode(params, doseq=True, errors="surrogateescape").encode()
        )
        scope = {
            "type": "http", "method": method, "path": path, "raw_path": quote(path).encode(), "query_string": query,
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items()],
            "http_version": "1.1", "scheme": "http", "root_path": "", "server": ("127.0.0.1", 9811),
        }  # fmt: skip
        waiting = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if waiting:
                return waiting.pop()
            await self.gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        found = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:]))


class Agent:
    """What the HTTP face sees of a daemon."""

    def __init__(self) -> None:
        self.number = 1
        self.status = "ok"
        self.is_ready = True
        self.asked = 0
        self.ticks: list[Tick] = []

    def snapshot(self) -> list[Tick]:
        self.asked += 1
        return self.ticks

    def revision(self) -> int:
        return self.number

    def health(self) -> dict[str, Any]:
        return {"status": self.status, "collectors": {}}


def series(name: str, **labels: str) -> Labels:
    return labels_of({"__name__": name, "job": "node", "instance": "web1", **labels})


def filled(directory: Path, clock: FakeClock) -> History:
    """A history of 2 h 30 min: a load, counters of three disks of which one resets, values of every odd kind."""
    history = History(HistoryOptions(), str(directory), clock, "web1")
    for at in range(POINTS):
        samples = {
            series("node_load1"): round(1 + math.sin(at / 40), 3),
            series("node_disk_reads_completed_total", device="sda"): float(at * 7),
            series("node_disk_reads_completed_total", device="sdb"): float((at * 3) % 700),
            series("node_disk_reads_completed_total", device='odd "ä"\n\\'): float(at),
            series("node_odd", kind="small"): 1.5e-7 * at,
            series("node_odd", kind="large"): 3.25e22 + at * 1e21,
            series("node_odd", kind="infinite"): math.inf,
        }
        if at % 100 < 60:
            samples[series("node_gap")] = float(at)
        history.record("test", (START_S + at * STEP_S) * 1000, samples)
    newest = [DISK.row(("sda",), ((POINTS - 1) * 7,)), LOAD.row((), (round(1 + math.sin((POINTS - 1) / 40), 3),))]
    history.append(Tick(END_S * NS, "disk", newest))  # brings type, help and unit
    return history


def client_of(
    history: Any,
    *,
    agent: Agent | None = None,
    options: HttpOptions | None = None,
    limits: Limits = DEFAULT_LIMITS,
    desk: Desk | None = None,
    more: Sequence[Any] = (),
) -> Client:
    clock = FakeClock(END_S)
    service = Service(clock, desk or Desk(), history, limits)
    app = build(
        agent or Agent(), Exposition(), service=service, names=Names("node", "web1"), options=options,
        hosts=["web1.example.org"], more=more,
    )  # fmt: skip
    return Client(app)
