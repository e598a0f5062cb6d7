from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from agent.core.clock import SystemClock
from sinks.carrier import Carrier, DeliveryStats
from sinks.dead_letters import DeadLetters
from sinks.influxdb import InfluxDB
from tests.proof.agents import FEW_COLLECTORS, Agent
from tests.proof.samples import (
    Values,
    in_influxdb1,
    in_victoriametrics,
    missed,
    missing_in_influxdb1,
    missing_in_victoriametrics,
    printed_points,
    slots,
    values_of,
)
from tests.proof.stubs import (
    LineStore,
    numbers_the_bad,
    refuses_all_naming_none,
    refuses_all_naming_one,
    stores_the_others,
    takes_at_most,
)
from tests.servers.certificates import Certificate
from tests.servers.influxdb1 import InfluxDB1
from tests.servers.process import wait_until
from tests.servers.programs import need
from tests.servers.scripted_http import Reply, ScriptedHttp
from tests.servers.tcp_proxy import TcpProxy
from tests.servers.victoriametrics import VictoriaMetrics

HOST = "faults"
FAULTY_SLOTS = 8  # how many slots the faults last at least
LASTING = 75.0  # seconds; what a person must mend is looked at once a minute
BY_NETWORK = ("refused", "hung", "reset", "half_answer", "half_request", "slow")
BY_ANSWER = ("busy", "busy_until", "broken", "unavailable", "gateway")
BY_PERSON = ("denied", "forbidden", "no_database")
BY_RELOAD = ("expired", "no_name")


@dataclass
class Stage:
    """One agent whose sinks fail in every way at once, each mended later; `healthy` is the one that never fails."""

    agent: Agent
    store: VictoriaMetrics
    influxdb1: InfluxDB1
    proxies: dict[str, TcpProxy]
    stubs: dict[str, LineStore]
    servers: dict[str, ScriptedHttp]
    while_failing: dict[str, Any] = field(default_factory=dict)  # /health
    worst_latency_s: float = 0.0  # of the healthy sink, all the while
    sent: Values = field(default_factory=dict)  # what was measured until everything was mended

    def missing(self, sink: str) -> int:
        """How much of what was measured that sink's store lacks."""
        if sink in self.stubs:
            stored = values_of(printed_points("\n".join(self.stubs[sink].lines)))
            return sum(1 for key in self.sent if key not in stored)
        if sink == "no_database":
            return len(missing_in_influxdb1(self.sent, in_influxdb1(self.influxdb1, "later")))
        found = in_victoriametrics(self.store, f'{{host="{HOST}", db="{sink}"}}')
        return len(missing_in_victoriametrics(self.sent, found))


def config(stage: Stage, *, is_mended: bool, certificate: Certificate) -> str:
    def by_v1(url: str, database: str) -> str:
        return f'type: influxdb, url: "{url}", version: "1", database: {database}'

    sinks = {"healthy": by_v1(stage.store.url, "healthy")}
    sinks |= {name: by_v1(proxy.url, name) for name, proxy in stage.proxies.items()}
    sinks |= {name: f'type: influxdb, url: "{server.url}", bucket: b' for name, server in stage.servers.items()}
    sinks["expired"] += f", verify_tls: {'false' if is_mended else 'true'}, ca_file: {certificate.authority}"
    sinks["no_database"] = by_v1(stage.influxdb1.url, "later")
    sinks["no_name"] = by_v1(stage.store.url if is_mended else "http://no-such-name.invalid:1", "no_name")
    sinks = {name: sink + ("" if name == "healthy" else ", timeout: 1s") for name, sink in sinks.items()}
    lines = "\n".join(f"  {name}: {{{sink}, flush_interval: 1s}}" for name, sink in sinks.items())
    return f"hostname: {HOST}\n{FEW_COLLECTORS}\nsinks:\n  stdout: {{flush_interval: 1s}}\n{lines}\n"


def set_faults(proxies: dict[str, TcpProxy]) -> None:
    proxies["refused"].refuse()
    proxies["hung"].hang()
    proxies["reset"].reset()
    proxies["half_answer"].cut(answer_after=20)
    proxies["half_request"].cut(request_after=300)
    proxies["slow"].slow(300)


def faulty_stores() -> dict[str, LineStore]:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=6), usegmt=True)
    denied = json.dumps({"code": "unauthorized", "message": "unauthorized access"})
    return {
        "busy": LineStore([Reply(429, "", {"Retry-After": "3"})]),
        "busy_until": LineStore([Reply(429, "", {"Retry-After": at})]),
        "broken": LineStore([Reply(500, "{}"), Reply(500, "not json")]),
        "unavailable": LineStore([Reply(503), Reply(503, "", {"Retry-After": "1"})]),
        "gateway": LineStore([Reply(502, "<html>"), Reply(504)]),
        "denied": LineStore([Reply(401, denied)]),
        "forbidden": LineStore([Reply(403, denied)]),
        "expired": LineStore(),
    }


@pytest.fixture(scope="module")
def stage(victoriametrics: VictoriaMetrics, influxdb1: InfluxDB1, expired_certificate: Certificate) -> Iterator[Stage]:
    need("victoriametrics", "influxdb")
    with ExitStack() as stack:
        proxies = {name: stack.enter_context(TcpProxy(victoriametrics.port)) for name in BY_NETWORK}
        set_faults(proxies)
        stubs = faulty_stores()
        certificates = {"expired": expired_certificate}
        servers = {n: stack.enter_context(ScriptedHttp(stub, certificates.get(n))) for n, stub in stubs.items()}
        stage = Stage(Agent(), victoriametrics, influxdb1, proxies, stubs, servers)
        stage.agent.config = config(stage, is_mended=False, certificate=expired_certificate)
        stack.enter_context(stage.agent)
        play(stage, expired_certificate)
        yield stage
        assert not stage.agent.complaints()


def play(stage: Stage, certificate: Certificate) -> None:
    """Let every fault show, then mend all of them."""
    agent = stage.agent
    failing = {*BY_NETWORK, *BY_PERSON, *BY_RELOAD}

    def all_fail() -> bool:
        sinks = stage.while_failing = agent.health()["sinks"]
        stage.worst_latency_s = max(stage.worst_latency_s, sinks["healthy"]["latency_s"])
        faults_left = [name for name, stub in stage.stubs.items() if stub.faults]
        has_lasted = len(slots(printed_points(agent.log.rpartition("\n")[0]), "mem")) >= FAULTY_SLOTS
        return has_lasted and not faults_left and all(sinks[name]["state"] == "failing" for name in failing)

    wait_until(all_fail, "every fault to show", 30, every=0.1)
    stage.sent = values_of(printed_points(agent.log.rpartition("\n")[0]))
    for proxy in stage.proxies.values():
        proxy.pass_through()
    stage.influxdb1.create_database("later")
    agent.write_config(config(stage, is_mended=True, certificate=certificate))
    agent.ask("reload")


@pytest.mark.parametrize("sink", ["healthy", *BY_NETWORK, *BY_ANSWER, *BY_RELOAD, *BY_PERSON])
def test_everything_arrives_once_the_fault_is_mended(stage: Stage, sink: str) -> None:
    assert len(stage.sent) > 500
    wait_until(lambda: stage.missing(sink) == 0, f"everything in {sink}", LASTING, every=0.3)


@pytest.mark.parametrize(
    ("sink", "reason", "needs_you"),
    [
        ("refused", "onnection refused", False),
        ("hung", "timed out|no answer within", False),
        ("reset", "eset|aborted", False),
        ("half_answer", "eset|aborted|refused|closed", False),
        ("half_request", "eset|aborted|roken pipe", False),
        ("slow", "timed out|no answer within", False),
        ("denied", "HTTP 401: unauthorized access .*not accepted", True),
        ("forbidden", "HTTP 403: unauthorized access .*may not write here", True),
        ("no_database", "HTTP 404: database not found", True),
        ("expired", "certificate.*expired", False),
        ("no_name", "no-such-name.invalid|ame resolution|not known", False),
    ],
)
def test_health_says_what_is_wrong_and_whether_a_person_is_needed(
    stage: Stage, sink: str, reason: str, needs_you: bool
) -> None:
    told = stage.while_failing[sink]
    assert re.search(reason, told["error"]), told["error"]
    assert (told["needs_you"], told["dead_letters"]) == (needs_you, 0)


def test_no_fault_of_a_sink_delays_a_collector_or_another_sink(stage: Stage) -> None:
    points = printed_points(stage.agent.log.rpartition("\n")[0])
    assert missed(slots(points, "mem"), stage.agent.skipped("memory")) == 0
    assert missed(slots(points, "net"), stage.agent.skipped("net")) == 0
    assert stage.worst_latency_s < 5, "the healthy sink's readings were late"


@pytest.mark.parametrize(("sink", "least_s"), [("busy", 3.0), ("busy_until", 1.0)])
def test_retry_after_in_seconds_or_as_a_date_is_kept_to(stage: Stage, sink: str, least_s: float) -> None:
    first, second = stage.servers[sink].requests[:2]
    assert second.at - first.at >= least_s
    assert second.content.startswith(first.content), "the same lines once more"


# One bad line among five thousand.

ROWS, BAD_ROW = 5000, 1234


def is_bad(line: str) -> bool:
    return f"row={BAD_ROW}," in line or f"row={BAD_ROW} " in line


def poisonous(directory: Path) -> Path:
    """A program that prints 5,000 points, one of them with a field that another type was stored for."""
    lines = "\n".join(f"poison,row={row} {'odd=1' if row == BAD_ROW else 'value=1'}" for row in range(ROWS))
    (directory / "lines").write_text(lines + "\n")
    program = directory / "poison"
    program.write_text(f"#!/bin/sh\nexec cat {directory}/lines\n")
    program.chmod(0o755)
    return program


def poison_config(influxdb1: InfluxDB1, servers: dict[str, ScriptedHttp], program: Path) -> str:
    sinks = "\n".join(
        f'  {name}: {{type: influxdb, url: "{server.url}", bucket: b, flush_interval: 1s}}'
        for name, server in servers.items()
    )
    return f"""\
collectors:
  others: false
  exec: {{interval: 1h, commands: [{{name: p, argv: [{program}]}}]}}
sinks:
  conflict: {{type: influxdb, url: "{influxdb1.url}", version: "1", database: poison, flush_interval: 1s}}
{sinks}
"""


@pytest.mark.server("influxdb")
def test_one_bad_line_in_five_thousand_is_quarantined_alone(influxdb1: InfluxDB1, tmp_path: Path) -> None:
    influxdb1.create_database("poison")
    influxdb1.write("poison", 'poison,row=first odd="a text"')
    stubs = {
        "named": LineStore(judge=refuses_all_naming_one(is_bad)),
        "unnamed": LineStore(judge=refuses_all_naming_none(is_bad)),
        "partial": LineStore(judge=stores_the_others(is_bad)),
        "numbered": LineStore(judge=numbers_the_bad(is_bad)),
        "small": LineStore(judge=takes_at_most(20_000)),
    }
    with ExitStack() as stack:
        servers = {name: stack.enter_context(ScriptedHttp(stub)) for name, stub in stubs.items()}
        agent = stack.enter_context(Agent(poison_config(influxdb1, servers, poisonous(tmp_path))))
        taken = dict.fromkeys(["conflict", "named", "unnamed", "partial", "numbered"], ROWS)  # and vigilhost_exec
        taken["small"] = ROWS + 1

        def lines() -> dict[str, int]:
            return {name: told["lines"] for name, told in agent.health()["sinks"].items()}

        wait_until(lambda: lines() == taken, f"{taken}, not", 30, every=0.1)
        told = agent.health()["sinks"]
        assert {name: each["dead_letters"] for name, each in told.items()} == {
            name: 0 if name == "small" else 1 for name in taken
        }
        for name, stub in stubs.items():
            rows = {line.split(",row=")[1].split()[0].split(",")[0] for line in stub.lines if ",row=" in line}
            assert len(rows) == (ROWS if name == "small" else ROWS - 1), name
        assert stubs["unnamed"].asked < 40, "bisection, not one by one"
        (counted,) = influxdb1.query("SELECT COUNT(value) FROM poison", "poison")
        assert counted["count"] == ROWS - 1
        shown = agent.cli("journal", "dead", "--json", "--state-dir", str(agent.state_dir))
        letters = [json.loads(line) for line in shown.stdout.splitlines()]
        assert sorted(letter["sink"] for letter in letters) == sorted(set(taken) - {"small"})
        assert all(is_bad(letter["line"]) for letter in letters), letters


@pytest.mark.server("influxdb")
def test_one_unparsable_line_in_five_thousand_is_quarantined_alone(influxdb1: InfluxDB1, tmp_path: Path) -> None:
    influxdb1.create_database("unparsable")
    lines = [f"m,row={row} value=1i {10**18 + row}" for row in range(ROWS)]
    lines[BAD_ROW] = "m,row=1234 value=oops 1"
    dead, stats = DeadLetters(str(tmp_path / "dead.jsonl")), DeliveryStats()
    sink = InfluxDB(url=influxdb1.url, version="1", database="unparsable")
    carrier = Carrier("test", sink, dead, stats, SystemClock())

    async def deliver() -> None:
        await carrier.until_taken(lines)
        carrier.close()

    asyncio.run(deliver())
    assert [letter["line"] for letter in dead.read()] == [lines[BAD_ROW]]
    assert (stats.lines, stats.dead_letters) == (ROWS - 1, 1)
    assert influxdb1.query("SELECT COUNT(value) FROM m", "unparsable")[0]["count"] == ROWS - 1
