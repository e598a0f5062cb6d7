"""Schemathesis reads the OpenAPI document and tries to find an answer that the document does not describe."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from typing import Any

from agent import backup_api
from agent.core.clock import NS
from agent.core.model import Tick
from agent.http.server import Server, bind
from sinks.history.history import History
from tests.agent.http.asking import DISK, END_S, LOAD, Agent, client_of
from tests.servers.programs import lacking

# Left out: what can be a query, a moment or a selector is more than a schema can say.
NOT_SAID_BY_A_SCHEMA = "positive_data_acceptance,negative_data_rejection"


def need_schemathesis() -> None:
    if importlib.util.find_spec("schemathesis") is None:
        lacking("schemathesis is not installed; it is one of the development dependencies")


class OneJob:
    """Backups, as far as the API asks."""

    def listing(self) -> dict[str, Any]:
        return {"state": "ok", "error": None, "running": None, "jobs": [{"job": "etc", "status": "never"}]}


async def test_no_answer_surprises_who_reads_the_document(history: History) -> None:
    need_schemathesis()
    agent = Agent()
    agent.ticks = [Tick(END_S * NS, "disk", [DISK.row(("sda",), (5,)), LOAD.row((), (1.0,))])]
    listener = bind("127.0.0.1:0")
    server = Server(client_of(history, agent=agent, more=backup_api.operations(OneJob)).app, listener)
    serving = asyncio.ensure_future(server.run_until_stopped())
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/api/openapi.json"
    try:
        running = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "schemathesis.cli", "run", url, "--max-examples=5", "--phases=fuzzing", "--seed=1",
            f"--exclude-checks={NOT_SAID_BY_A_SCHEMA}",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await running.communicate()
    finally:
        server.stop()
        await serving
    assert running.returncode == 0, said.decode()[-6000:]
    assert b"Tested: 24" in said
