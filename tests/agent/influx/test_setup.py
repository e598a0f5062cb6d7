"""`vigilhost influx setup` against a stub of InfluxDB 2's management API, and against servers that are none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from agent.cli.influx_cmd import influx
from tests.servers.influxdb1 import InfluxDB1
from tests.servers.influxdb2_stub import ORG_ID, InfluxDB2Stub
from tests.servers.process import LOOPBACK, free_port
from tests.servers.scripted_http import Reply, ScriptedHttp
from tests.servers.victoriametrics import VictoriaMetrics


class Operator:
    """Somebody with a configuration, a token and a server."""

    def __init__(self, directory: Path, url: str) -> None:
        self.config = directory / "vigilhost.yaml"
        self.token = directory / "admin.token"
        self.token.write_text("admin-token\n")
        self.url = url
        self.write()

    def write(self, org: str = "home", token: str = "writer-token", **more: str) -> None:
        options = {"url": self.url, "org": org, "bucket": "hosts", "token": token, **more}
        self.config.write_text(f"sinks:\n  influxdb: {json.dumps(options)}\n")
        self.config.chmod(0o600)

    def types(self, *words: str, code: int = 0) -> Result:
        where = ["--config", str(self.config), "--token-file", str(self.token)]
        done = CliRunner(env={"COLUMNS": "200"}).invoke(influx, ["setup", *where, *words])
        assert done.exit_code == code, (done.output, done.exception)
        return done


@pytest.fixture
def stub() -> InfluxDB2Stub:
    return InfluxDB2Stub()


@pytest.fixture
def operator(tmp_path: Path, stub: InfluxDB2Stub) -> Iterator[Operator]:
    with stub.serve() as server:
        yield Operator(tmp_path, server.url)


def kept(stub: InfluxDB2Stub) -> dict[str, int]:
    return {one["name"]: one["retentionRules"][0]["everySeconds"] for one in stub.buckets.values()}


def test_an_empty_server_gets_four_buckets_and_three_tasks(operator: Operator, stub: InfluxDB2Stub) -> None:
    done = operator.types()
    assert kept(stub) == {"hosts": 86_400, "hosts_5m": 30 * 86_400, "hosts_1h": 365 * 86_400, "hosts_1d": 0}
    assert [(one["name"], one["every"], one["offset"], one["status"]) for one in stub.tasks.values()] == [
        ("vigilhost: hosts to hosts_5m", "5m", "1m", "active"),
        ("vigilhost: hosts_5m to hosts_1h", "1h", "5m", "active"),
        ("vigilhost: hosts_1h to hosts_1d", "1d", "10m", "active"),
    ]
    assert {one["orgID"] for one in (*stub.buckets.values(), *stub.tasks.values())} == {ORG_ID}
    assert "bucket hosts_1d: made (keeps for ever)" in done.stdout
    assert done.stdout.splitlines()[-2:] == ["token of the sink may write to hosts", "7 changes"]


def test_a_second_run_changes_nothing_and_says_so(operator: Operator, stub: InfluxDB2Stub) -> None:
    operator.types()
    stub.changes.clear()
    done = operator.types()
    assert stub.changes == []
    assert "bucket hosts: is there (keeps 1d)" in done.stdout
    assert done.stdout.splitlines()[-1] == "nothing changed: all is as it should be"
    assert json.loads(operator.types("--json").stdout)["changes"] == 0


def test_what_differs_is_changed_and_nothing_else(operator: Operator, stub: InfluxDB2Stub) -> None:
    operator.types()
    stub.changes.clear()
    first, second, _ = stub.tasks.values()
    first["flux"], second["status"] = first["flux"].replace("mean", "median"), "inactive"
    done = operator.types("--five-minutes", "60d")
    assert sorted(change.rpartition("/")[0] for change in stub.changes) == [
        "PATCH /api/v2/buckets", "PATCH /api/v2/tasks", "PATCH /api/v2/tasks",
    ]  # fmt: skip
    assert "bucket hosts_5m: changed (keeps 60d, before: 30d)" in done.stdout
    assert "to hosts_5m: changed (its Flux differed)" in done.stdout
    assert "to hosts_1h: changed (was inactive)" in done.stdout
    assert "median" not in first["flux"]


@pytest.mark.parametrize("before", [0, 90 * 86_400])
def test_a_retention_is_not_shortened_unasked(operator: Operator, stub: InfluxDB2Stub, before: int) -> None:
    stub.add_bucket("hosts", before)
    refused = operator.types(code=1)
    assert stub.changes == []
    assert "1d would delete what is older; --shorten allows it" in refused.stderr
    operator.types("--shorten")
    assert kept(stub)["hosts"] == 86_400


@pytest.mark.parametrize(
    ("change", "words", "said"),
    [
        ({"org": "hme"}, (), "org: there is no organisation 'hme' on"),
        ({"org": ""}, (), "org: is empty; write the organisation's name"),
        ({"token": "revoked"}, (), "the sink's token may not write to hosts: HTTP 401: unauthorized access"),
        ({"version": "1", "database": "hosts"}, (), "InfluxDB 1 has no buckets and no tasks"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    operator: Operator, change: dict[str, str], words: tuple[str, ...], said: str
) -> None:
    operator.write(**change)
    assert said in operator.types(*words, code=1).stderr


def test_a_token_that_is_not_accepted_and_one_that_may_too_little(operator: Operator, stub: InfluxDB2Stub) -> None:
    operator.token.write_text("wrong")
    assert "the token is not accepted: HTTP 401: unauthorized access" in operator.types(code=1).stderr
    operator.token.write_text(stub.writer)
    assert "the token may not do this: HTTP 403: insufficient permissions" in operator.types(code=1).stderr
    assert stub.changes == []


def test_the_token_comes_from_the_environment_or_the_sink(operator: Operator, stub: InfluxDB2Stub) -> None:
    words = ["setup", "--config", str(operator.config)]
    assert CliRunner(env={"INFLUX_TOKEN": stub.admin}).invoke(influx, words).exit_code == 0
    assert CliRunner(env={"INFLUX_TOKEN": ""}).invoke(influx, words).exit_code == 1
    operator.write(token=stub.admin)
    assert CliRunner(env={"INFLUX_TOKEN": ""}).invoke(influx, words).exit_code == 0


def test_no_token_is_ever_shown(operator: Operator) -> None:
    outputs = [operator.types().output, operator.types("--json").output, operator.types("--dry-run").output]
    assert all(token not in output for output in outputs for token in ("admin-token", "writer-token"))


def _stranger(directory: Path, url: str) -> str:
    said: str = Operator(directory, url).types(code=1).stderr
    return said


@pytest.mark.server("influxdb")
def test_influxdb_1_is_told_from_influxdb_2(tmp_path: Path, influxdb1: InfluxDB1) -> None:
    assert "does not answer as an InfluxDB 2 does (HTTP 404" in _stranger(tmp_path, influxdb1.url)


@pytest.mark.server("victoriametrics")
def test_victoriametrics_is_told_from_influxdb_2(tmp_path: Path, victoriametrics: VictoriaMetrics) -> None:
    assert "does not answer as an InfluxDB 2 does (HTTP 400" in _stranger(tmp_path, victoriametrics.url)


@pytest.mark.parametrize(
    "reply",
    [Reply(200, "<html>hello</html>", {"Content-Type": "text/html"}), Reply(404, "404 page not found"),
     Reply(200, "[]", {"Content-Type": "application/json"})],
)  # fmt: skip
def test_any_other_web_server_is_told_too(tmp_path: Path, reply: Reply) -> None:
    with ScriptedHttp(reply) as server:
        assert "does not answer as an InfluxDB 2 does" in _stranger(tmp_path, server.url)


def test_a_server_that_is_away_or_broken_is_said(tmp_path: Path) -> None:
    assert "cannot be reached" in _stranger(tmp_path, f"http://{LOOPBACK}:{free_port()}")
    with ScriptedHttp(Reply(500, '{"code":"internal error","message":"engine: closed"}')) as server:
        assert "organisations: HTTP 500: engine: closed" in _stranger(tmp_path, server.url)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--raw", "10m"), "--raw: 600 s is too short; 1h is the least"),
        (("--one-hour", "soon"), "'soon' is not a duration"),
        (("--sink", "nope"), "no such sink of InfluxDB; there are: influxdb"),
        (("--token-file", "/nowhere"), "--token-file /nowhere: [Errno 2]"),
    ],
)
def test_wrong_words_end_with_2(operator: Operator, words: tuple[str, ...], said: str) -> None:
    assert said in operator.types(*words, code=2).stderr


def test_a_dry_run_prints_the_flux_and_asks_nobody(tmp_path: Path) -> None:
    operator = Operator(tmp_path, f"http://{LOOPBACK}:{free_port()}")
    flux = operator.types("--dry-run").stdout
    assert flux.count("option task = ") == 3
    listed: dict[str, Any] = json.loads(operator.types("--dry-run", "--json").stdout)
    assert [one["retention_s"] for one in listed["buckets"]] == [86_400, 30 * 86_400, 365 * 86_400, 0]
    assert "\n".join(one["flux"] for one in listed["tasks"]) == flux
