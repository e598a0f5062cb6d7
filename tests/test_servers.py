"""The servers of the tests: each starts, answers, stops, and leaves neither process nor port nor directory behind."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.servers import promtool as judge
from tests.servers.alertmanager import Alertmanager
from tests.servers.http_call import call
from tests.servers.influxdb1 import InfluxDB1
from tests.servers.mariadb import MariaDB
from tests.servers.nginx import Nginx
from tests.servers.node_exporter import NodeExporter
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import LOOPBACK, Server, ServerError, alive, listens, run, wait_until
from tests.servers.programs import need, need_root, program
from tests.servers.prometheus import Prometheus
from tests.servers.radosgw import RadosGw
from tests.servers.redis import Redis
from tests.servers.scripted_http import Reply, ScriptedHttp
from tests.servers.sshd import Sshd
from tests.servers.victoriametrics import VictoriaMetrics

SERVERS: list[tuple[type[Server], Callable[..., bool]]] = [
    (VictoriaMetrics, lambda s: call(f"{s.url}/health").text == "OK"),
    (InfluxDB1, lambda s: call(f"{s.url}/ping").status == 204),
    (Prometheus, lambda s: s.query("1 + 1")[0].values == [2.0]),
    (Alertmanager, lambda s: s.alerts() == []),
    (NodeExporter, lambda s: "\nnode_load1 " in s.metrics()),
    (PostgreSQL, lambda s: s.sql("SELECT 40 + 2, 'a,b'") == [["42", "a,b"]]),
    (Redis, lambda s: s.cli("SET", "k", "v") == "OK" and s.cli("GET", "k") == "v"),
    (MariaDB, lambda s: s.sql("SELECT 40 + 2") == [["42"]]),
    (Nginx, lambda s: s.status().startswith("Active connections: 1")),
    (RadosGw, lambda s: call(f"{s.url}/").status == 200),
    (Sshd, lambda s: s.ssh("echo", "it's here").stdout == b"it's here\n"),
]


@pytest.mark.parametrize(("kind", "answers"), SERVERS, ids=[kind.__name__ for kind, _ in SERVERS])
def test_a_server_starts_answers_stops_and_leaves_nothing(kind: type[Server], answers: Callable[..., bool]) -> None:
    need(kind.name)
    with kind() as server:
        port, directory = server.port, server.data_dir
        family = [server.pid, *(child.pid for child in psutil.Process(server.pid).children(recursive=True))]
        assert answers(server)
        assert alive(server.pid)
        assert os.getpgid(server.pid) != os.getpgid(0)
    assert not any(map(alive, family))
    assert not listens(port)
    assert not directory.exists()


@pytest.mark.parametrize("kind", [Redis, PostgreSQL, MariaDB], ids=lambda kind: kind.__name__)
def test_a_killed_server_comes_back_on_its_port_with_its_data(kind: type[Server]) -> None:
    need(kind.name)
    with Redis(["--appendonly", "yes", "--appendfsync", "always"]) if kind is Redis else kind() as server:
        port = server.port
        if isinstance(server, Redis):
            server.cli("SET", "k", "v")
        elif isinstance(server, PostgreSQL | MariaDB):
            server.sql("CREATE DATABASE d; " if isinstance(server, MariaDB) else "CREATE TABLE t (n int)")
        server.kill()
        assert not listens(port)
        server.start(port)
        if isinstance(server, Redis):
            assert server.cli("GET", "k") == "v"
        elif isinstance(server, PostgreSQL):
            assert server.sql("SELECT count(*) FROM t") == [["0"]]
        elif isinstance(server, MariaDB):
            assert ["d"] in server.sql("SHOW DATABASES")


class Broken(Server):
    name = "sh"

    def command(self) -> list[str]:
        return ["sh", "-c", "echo no such option: --frobnicate >&2; exit 3"]


def test_a_server_that_does_not_start_shows_its_log() -> None:
    with pytest.raises(ServerError, match=r"(?s)sh exited 3 at once.*no such option: --frobnicate"), Broken():
        pass


class Racing(Redis):
    """Another process takes the first free port before redis-server does."""

    def command(self) -> list[str]:
        if not hasattr(self, "taken"):
            self.taken = socket.create_server((LOOPBACK, self.port))
        return super().command()

    def ready(self) -> bool:
        return self.port != self.taken.getsockname()[1] and super().ready()


@pytest.mark.server("redis")
def test_a_server_that_loses_the_race_for_its_port_takes_another() -> None:
    with Racing() as server:
        server.taken.close()
        assert server.cli("PING") == "PONG"


@pytest.mark.server("redis")
def test_a_server_ends_with_a_test_run_that_is_killed(tmp_path: Path) -> None:
    script = "from tests.servers.redis import Redis\nwith Redis() as s:\n print(s.pid, flush=True)\n input()"
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as child:  # fmt: skip
        assert child.stdout is not None
        pid = int(child.stdout.readline())
        assert alive(pid)
        child.kill()
    wait_until(lambda: not alive(pid), "the orphaned server to end")


# What is not installed.


def test_without_ci_a_missing_program_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match="frobnicated is not installed; `make test` installs it"):
        need("sh", "frobnicated")


def test_with_ci_a_missing_program_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="frobnicated is not installed; `make test` installs it"):
        need("frobnicated")


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_what_needs_root_is_not_left_out_in_silence_where_ci_runs_it(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(outcome, match="only root may mount; run the tests as root"):
        need_root("only root may mount")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    need_root("only root may mount")


INSTALL = Path(__file__).parent / "servers" / "install"


def test_each_package_is_listed_once_and_says_what_needs_it() -> None:
    lines = INSTALL.with_name("packages.txt").read_text().splitlines()
    rows = [line.partition("#") for line in lines if line and not line.startswith("#")]
    assert [name for name, _, why in rows if not why.strip()] == []
    assert len({name.strip() for name, _, _ in rows}) == len(rows)


def install_with(tools: Path, scripts: dict[str, str], ci: str = "") -> subprocess.CompletedProcess[str]:
    """Run `install` where PATH has a few real tools and some made of a line of sh: it can install nothing."""
    for tool in ("sh", "sed", "tr", "dirname", "grep", "sort"):
        (tools / tool).symlink_to(program(tool))
    for name, line in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{line}\n")
        (tools / name).chmod(0o755)
    return subprocess.run([INSTALL], env={"PATH": str(tools), "CI": ci}, capture_output=True, text=True)


LIST = f"sed -n 's/^\\([a-z0-9.+-]*\\) *#.*/installed \\1/p' '{INSTALL.with_name('packages.txt')}'"
NOBODY = {"apt-get": "exit 9", "id": "echo 1000", "sudo": "exit 1"}


@pytest.mark.parametrize(("ci", "status"), [("", 0), ("true", 1)], ids=["without CI that is fine", "CI insists"])
@pytest.mark.parametrize(
    ("scripts", "why"),
    [
        ({}, "no apt-get here"),
        ({"dpkg-query": f"{LIST} | grep -v restic", **NOBODY}, "neither root nor passwordless sudo"),
    ],
    ids=["no apt-get", "no rights"],
)
def test_where_it_cannot_install_it_says_what_is_left_out_and_why(
    tmp_path: Path, scripts: dict[str, str], why: str, ci: str, status: int
) -> None:
    done = install_with(tmp_path, scripts, ci)
    assert (done.returncode, done.stdout) == (status, "")
    said, left_out = done.stderr.splitlines()
    assert said == f"tests/servers: {why}; left out, and the tests that need them are skipped:"
    assert "restic" in left_out.split()
    assert ("age" in left_out.split()) is (scripts == {})


def test_where_everything_is_installed_it_does_nothing(tmp_path: Path) -> None:
    done = install_with(tmp_path, {"dpkg-query": LIST, **NOBODY}, ci="true")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# The helpers of the servers.


def test_victoriametrics_gives_back_what_was_written(victoriametrics: VictoriaMetrics) -> None:
    at = 1_700_000_000
    victoriametrics.write(f"given_back,host=a n=1,m=2i {at}000000000\ngiven_back,host=a n=3 {at + 1}000000000\n")
    series = {
        one.name: (one.values, one.times) for one in victoriametrics.export('{host="a",__name__=~"given_back.*"}')
    }
    assert series == {"given_back_n": ([1.0, 3.0], [at, at + 1]), "given_back_m": ([2.0], [at])}
    assert victoriametrics.count('{__name__=~"given_back.*"}') == 3
    assert victoriametrics.query("sum(given_back_n)", at + 1)[0].values == [3.0]
    assert victoriametrics.query_range("given_back_n", at, at + 1, 1)[0].values == [1.0, 3.0]
    victoriametrics.delete('{__name__=~"given_back.*"}')
    assert victoriametrics.count('{__name__=~"given_back.*"}') == 0


def test_influxdb1_says_what_it_refused_and_keeps_the_rest(influxdb1: InfluxDB1) -> None:
    influxdb1.create_database("partial")
    answer = influxdb1.write("partial", "m,h=a n=1i 1\nm n= 2\nm,h=b n=2i 3\n")
    assert (answer.status, "unable to parse" in answer.text) == (400, True)
    rows = influxdb1.query("SELECT n FROM m GROUP BY h", "partial")
    assert [(row["h"], row["n"], row["time"]) for row in rows] == [("a", 1, 1), ("b", 2, 3)]
    with pytest.raises(ServerError, match="database not found"):
        influxdb1.query("SELECT n FROM m", "absent")


def test_prometheus_scrapes_its_targets_and_evaluates_its_rules() -> None:
    need("prometheus")
    exposed = Reply(200, "# TYPE given gauge\ngiven 7\n", {"Content-Type": "text/plain; version=0.0.4"})
    rules = {"doubled": "groups: [{name: g, rules: [{record: doubled, expr: given * 2}]}]"}
    with ScriptedHttp(exposed) as target, Prometheus(
        targets={"us": f"{LOOPBACK}:{target.port}"}, rules=rules, interval="100ms"
    ) as server:  # fmt: skip
        found = wait_until(lambda: server.query("doubled"), "the rule's series")
        assert (found[0].values, found[0].labels["job"]) == ([14.0], "us")
        assert server.target_errors() == {"us": ""}
        with pytest.raises(ServerError, match="parse error"):
            server.query("sum(")


@pytest.mark.server("promtool")
def test_promtool_and_amtool_object_to_what_is_wrong_and_nothing_else() -> None:
    good, bad = "# HELP a_total A.\n# TYPE a_total counter\na_total 1\n", "# HELP a A.\n# TYPE a counter\na 1\n"
    assert judge.check_metrics(good) == []
    assert any('should have "_total" suffix' in line for line in judge.check_metrics(bad))
    rules = "groups: [{name: g, rules: [{alert: A, expr: x > 1, for: 1m}]}]"
    assert judge.check_rules(rules) == []
    assert judge.check_rules(rules.replace("x >", "x >>")) != []
    tests = """
        rule_files: [rules.yml]
        evaluation_interval: 1m
        tests:
        - input_series: [{series: x, values: '2 2 2'}]
          alert_rule_test: [{eval_time: 2m, alertname: A, exp_alerts: [{exp_labels: {}}]}]
    """
    assert judge.test_rules(rules, tests) == []
    assert any("FAILED" in line for line in judge.test_rules(rules, tests.replace("2 2 2", "0 0 0")))
    assert judge.check_config("scrape_configs: []") == []
    assert judge.check_config("scrape_configs: 1") != []


@pytest.mark.server("amtool")
def test_amtool_checks_and_routes() -> None:
    config = """
        route: {receiver: all, routes: [{matchers: [severity="page"], receiver: pager}]}
        receivers: [{name: all}, {name: pager}]
    """
    assert judge.check_alertmanager_config(config) == []
    assert judge.check_alertmanager_config(config.replace("name: pager", "name: other")) != []
    assert judge.route(config, {"severity": "page"}) == ["pager"]
    assert judge.route(config, {"severity": "info"}) == ["all"]


def test_alertmanager_holds_the_alerts_it_is_sent(alertmanager: Alertmanager) -> None:
    body = '[{"labels": {"alertname": "Held"}}]'
    call(f"{alertmanager.url}/api/v2/alerts", "POST", body, {"Content-Type": "application/json"})
    held = wait_until(lambda: alertmanager.alerts(filter='alertname="Held"'), "the alert")
    assert [alert["labels"] for alert in held] == [{"alertname": "Held"}]
    assert alertmanager.silences() == []


def test_postgresql_asks_for_a_password_over_tcp_only(postgresql: PostgreSQL) -> None:
    assert run("psql", "-XAtqw", "-d", postgresql.dsn, "-c", "SHOW is_superuser") == "on\n"
    assert run("psql", "-XAtqw", "-d", postgresql.url, "-c", "SHOW is_superuser") == "on\n"
    assert run("psql", "-XAtqw", "-d", postgresql.socket_dsn, "-c", "SHOW is_superuser") == "on\n"
    with pytest.raises(ServerError, match="password"):
        run("psql", "-XAtqw", "-d", re.sub("password=.*", "", postgresql.dsn), "-c", "SELECT 1")
    with pytest.raises(ServerError, match="does not exist"):
        postgresql.sql("SELECT * FROM absent")
    assert run(postgresql.bin("pg_basebackup"), "--version").startswith("pg_basebackup (PostgreSQL) ")


@pytest.mark.server("rsync")
def test_rsync_and_sftp_work_over_our_ssh(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "from").write_text("carried over")
    remote = f"{sshd.login}@{LOOPBACK}:{tmp_path}"
    run("rsync", "-e", sshd.rsh, tmp_path / "from", f"{remote}/to")
    assert (tmp_path / "to").read_text() == "carried over"
    run("sftp", "-q", *sshd.options, f"{remote}/to", tmp_path / "back")
    assert (tmp_path / "back").read_text() == "carried over"
    assert sshd.ssh("sh", "-c", "cat; exit 7", stdin=b"x").returncode == 7
