from __future__ import annotations

import gzip

import pytest

from agent.core.errors import Rejected, Retryable, TooLarge
from agent.core.secrets import Secret
from sinks.influxdb import InfluxDB
from tests.servers.certificates import Certificate
from tests.servers.influxdb1 import InfluxDB1
from tests.servers.process import free_port
from tests.servers.scripted_http import Reply, ScriptedHttp
from tests.servers.victoriametrics import VictoriaMetrics

LINE = b"sink_test,host=a value=1.5 1700000000000000000\n"


def v2(url: str, **options: object) -> InfluxDB:
    return InfluxDB(url=url, org="home", bucket="hosts", token=Secret("canary"), **options)  # type: ignore[arg-type]


def test_version_2_asks_as_the_api_wants(scripted_http: ScriptedHttp) -> None:
    scripted_http.answer(Reply(204))
    v2(scripted_http.url).write(LINE)
    (request,) = scripted_http.requests
    assert request.method == "POST"
    assert request.path == "/api/v2/write"
    assert request.query == {"org": ["home"], "bucket": ["hosts"], "precision": ["ns"]}
    assert request.headers["authorization"] == "Token canary"
    assert request.headers["content-encoding"] == "gzip"
    assert gzip.decompress(request.body) == LINE


def test_version_1_asks_as_the_api_wants(scripted_http: ScriptedHttp) -> None:
    scripted_http.answer(Reply(204))
    sink = InfluxDB(url=scripted_http.url, version="1", database="d b", username="u", password=Secret("p"), gzip=False)
    sink.write(LINE)
    (request,) = scripted_http.requests
    assert (request.path, request.query) == ("/write", {"db": ["d b"], "precision": ["ns"]})
    assert request.headers["authorization"] == "Basic dTpw"
    assert request.body == LINE


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize(("status", "error"), [(503, Retryable), (413, TooLarge), (400, Rejected), (401, Retryable)])
def test_an_answer_becomes_its_error(scripted_http: ScriptedHttp, version: str, status: int, error: type) -> None:
    scripted_http.answer(Reply(status, '{"message": "told so"}', {"Retry-After": "7"}))
    sink = v2(scripted_http.url, version=version, database="d")
    with pytest.raises(error, match="told so") as caught:
        sink.write(LINE)
    if status == 503:
        assert caught.value.after == 7


@pytest.mark.parametrize("version", ["1", "2"])
def test_nobody_there_is_retryable_and_says_where(version: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(Retryable, match="onnection refused") as caught:
        v2(url, version=version, database="d").write(LINE)
    assert caught.value.kind == "network"
    assert url in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("fault", ["reset", "close", "hang"])
def test_a_broken_answer_is_retryable(scripted_http: ScriptedHttp, version: str, fault: str) -> None:
    scripted_http.answer(Reply(fault=fault))
    with pytest.raises(Retryable):
        v2(scripted_http.url, version=version, database="d", timeout=0.3).write(LINE)


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_certificate_that_cannot_be_trusted_is_retryable(certificate: Certificate, version: str) -> None:
    with ScriptedHttp(Reply(204), certificate) as server:
        with pytest.raises(Retryable, match=r"(?i)certificate"):
            v2(server.url, version=version, database="d").write(LINE)
        v2(server.url, version=version, database="d", ca_file=str(certificate.authority)).write(LINE)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"url": "127.0.0.1:8086", "bucket": "b"}, "url: not a server's"),
        ({"url": "http://user:pw@127.0.0.1:8086", "bucket": "b"}, "secrets in their own options"),
        ({"url": "http://127.0.0.1:8086"}, "bucket: missing; version 2 needs one"),
        ({"url": "http://127.0.0.1:8086", "version": "1", "bucket": "b"}, "database: missing; version 1 needs one"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        InfluxDB(**options)  # type: ignore[arg-type]
    assert "pw" not in str(caught.value)


def test_victoriametrics_stores_it(victoriametrics: VictoriaMetrics) -> None:
    v2(victoriametrics.url).write(LINE)
    (series,) = victoriametrics.export("sink_test_value")
    assert (series.values, series.times) == ([1.5], [1700000000.0])


def test_influxdb_1_stores_the_good_lines_and_names_the_bad(influxdb1: InfluxDB1) -> None:
    influxdb1.create_database("sink")
    sink = InfluxDB(url=influxdb1.url, version="1", database="sink")
    with pytest.raises(Rejected) as caught:
        sink.write(b"m a=1i 1\nm a=oops 2\nm a=3i 3\n")
    assert caught.value.bad_lines == [1]
    assert caught.value.stored
    assert [row["a"] for row in influxdb1.query("SELECT a FROM m", "sink")] == [1, 3]
    with pytest.raises(Retryable, match="database not found") as caught_retryable:
        InfluxDB(url=influxdb1.url, version="1", database="none").write(LINE)
    assert caught_retryable.value.is_lasting
