"""Everything a dashboard asks, asked of real servers with an agent's readings.

PromQL: of the agent itself and of a Prometheus that scrapes it. InfluxQL: of an InfluxDB 1 that the agent sends to.
No InfluxDB 2 can be had; the Flux of the panels was accepted by InfluxData's own compiler (see tests/agent/influx).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from agent import backup_results
from agent.dashboards.panels import Influx, Panel, Prom, rows
from agent.dashboards.queries import influxql
from agent.promql_language import PromQL
from tests.servers import promql_api
from tests.servers.influxdb1 import InfluxDB1
from tests.servers.process import wait_until
from tests.servers.programs import need
from tests.servers.prometheus import Prometheus
from tests.servers.scripted_http import Reply, ScriptedHttp
from tests.servers.vigilhost import Vigilhost

DATABASE = "dashboards"
CONFIG = """\
hostname: web1
collectors: {agent: {interval: 1s}, processes: false, memory: {interval: 1s}, disk: {interval: 1s}}
sinks: {influxdb: {version: "1", url: %s, database: %s, flush_interval: 1s}}
alerting:
  rules: {interval: 1s}
  receivers: {ops: {type: webhook, url: %s/hook}}
"""
JOB = (
    "source: {files: {paths: [/etc/hostname]}}\ntargets: {store: {type: local, path: /tmp}}\nschedule: never\nrpo: 1d\n"
)
ALWAYS = "groups: [{name: test, interval: 1s, rules: [{alert: Always, expr: vector(1) > 0}]}]\n"


@dataclass
class Site:
    agent: Vigilhost
    prometheus: Prometheus
    influxdb: InfluxDB1


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    need("prometheus", "influxdb")
    with ScriptedHttp(Reply(200)) as hook, InfluxDB1() as influxdb:
        influxdb.create_database(DATABASE)
        with Vigilhost(CONFIG % (influxdb.url, DATABASE, hook.url)) as agent:
            agent.stop()
            for directory, name, text in (("backup.d", "etc.yaml", JOB), ("rules.d", "always.yaml", ALWAYS)):
                (agent.data_dir / directory).mkdir()
                (agent.data_dir / directory / name).write_text(text)
            now = time.time()
            copies = backup_results.Copies("ok", last_success_at=now, last_verified_at=now, size_bytes=1000)
            known = backup_results.Result(now, "ok", duration_s=2.0, targets={"store": copies}, rto_s=3.0)
            backup_results.save(str(agent.state_dir), "etc", known)
            agent.start()
            with Prometheus(targets={"hosts": f"127.0.0.1:{agent.port}"}) as prometheus:
                wait_until(lambda: _has_twice(agent.url), "the agent remembers 15 s", 90.0)
                wait_until(lambda: _has_twice(prometheus.url), "Prometheus scraped for 15 s", 90.0)
                wait_until(lambda: bool(promql_api.query(agent.url, "ALERTS")), "an alert", 90.0)
                yield Site(agent, prometheus, influxdb)


def _has_twice(url: str) -> bool:
    """Every counter has been read often enough for a rate."""
    seen = promql_api.query(url, "min(count_over_time(node_disk_reads_completed_total[1m]))")
    has_pressure = promql_api.query(url, "count_over_time(node_pressure_cpu_waiting_seconds_total[1m]) > 2")
    return bool(seen and seen[0].values[0] >= 3 and has_pressure)


def asked(source: str) -> list[tuple[str, Panel, Prom]]:
    return [(f"{panel.title}: {query.legend}", panel, query) for row in rows(source) for panel in row.panels
            for query in panel.prom]  # fmt: skip


def filled_in(expr: str, host: str) -> str:
    return expr.replace("$__rate_interval", "1m").replace("$host", host)


@pytest.mark.parametrize("source", ["vigilhost", "prometheus"])
def test_every_promql_is_answered_and_has_data_where_its_series_exist(site: Site, source: str) -> None:
    url = site.agent.url if source == "vigilhost" else site.prometheus.url
    host = "web1" if source == "vigilhost" else f"127.0.0.1:{site.agent.port}"
    empty, answered = [], []
    for name, _, query in asked(source):
        expr = filled_in(query.expr, re.escape(host).replace("\\", "\\\\"))
        found = promql_api.query(url, expr)
        series = [f"count({{{_matchers(one)}}})" for one in PromQL().read(expr).inputs]
        exists = all(promql_api.query(url, each) for each in series)
        (answered if found else empty).append(name)
        assert bool(found) == exists, f"{name}: {expr}"
        for label in re.findall(r"\{(\w+)\}", query.legend):
            assert all(label in one.labels for one in found), f"{name}: no label {label}"
        end = time.time()
        promql_api.query_range(url, expr, end - 60, end, 15)
    # What this machine may lack: disks, network cards, swap, file systems of its own.
    assert len(answered) >= 35, f"nothing for: {empty}"
    assert {"CPU: CPU", "Memory: Memory", "Alerts: firing", "Age of the newest copy: {exported_job}"} <= set(answered)


def _matchers(one: object) -> str:
    matchers = getattr(one, "matchers")  # noqa: B009 - an Input of the rules' language
    name = f'__name__="{getattr(one, "name")}"'  # noqa: B009
    return ", ".join([name, *(str(each) for each in matchers if each.name != "__name__")])


def influx_asked() -> list[tuple[str, Influx]]:
    return [(f"{panel.title}: {one.legend}", one) for row in rows("influxql") for panel in row.panels
            for one in panel.influx]  # fmt: skip


def test_every_influxql_is_answered_and_has_data_where_its_field_exists(site: Site) -> None:
    empty, answered = [], []
    for name, one in influx_asked():
        statement = influxql(one).replace("$timeFilter", "time > now() - 10m").replace("$__interval", "5s")
        statement = statement.replace("$host", "web1")
        found = site.influxdb.query(statement, DATABASE)
        where = "".join(f' AND "{tag}" =~ /{pattern}/' for tag, pattern in one.where.items())
        points = site.influxdb.query(
            f'SELECT count("{one.field}") FROM "{one.measurement}" WHERE host = \'web1\'{where}', DATABASE
        )
        (answered if found else empty).append(name)
        assert bool(found) == bool(points), f"{name}: {statement}"
        assert all(tag in row for row in found for tag in one.by), name
    assert len(answered) >= 35, f"nothing for: {empty}"
    assert {"CPU: CPU", "Memory: Memory", "Alerts: firing", "Age of the newest copy: {job}"} <= set(answered)


def test_the_host_is_found_by_the_variable(site: Site) -> None:
    assert {one.labels["instance"] for one in promql_api.query(site.agent.url, "node_load1")} == {"web1"}
    found = site.influxdb.query('SHOW TAG VALUES FROM "system" WITH KEY = "host"', DATABASE)
    assert [row["value"] for row in found] == ["web1"]
