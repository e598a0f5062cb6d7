from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
import structlog
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from agent.core.secrets import Secret
from agent.http.exposure import ExposedError, check_exposure, url_of
from agent.http.guard import BODY_BYTES
from agent.http.openapi import Operation
from agent.http.options import HttpOptions, Tls, Token, holder
from tests.agent.http.asking import Agent, Client, client_of

READER, ADMIN = "a-token-of-grafana-0123", "a-token-of-an-admin-0123"
HASHED = hashlib.sha256(READER.encode()).hexdigest()
GUARDED = HttpOptions(tokens=[Token("grafana", sha256=HASHED)], admin_tokens=[Token("ops", token=Secret(ADMIN))])


async def change(_: Request) -> Response:
    return PlainTextResponse("changed\n")


CHANGE = (Operation("/api/v1/silences", "Silence alerts.", methods=("GET", "POST"), is_read=False), change)


def guarded(options: HttpOptions | None = None, agent: Agent | None = None) -> Client:
    return client_of(None, options=options, agent=agent, more=[CHANGE])


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        (bearer("wrong"), 401),
        (bearer(""), 401),
        ({"authorization": "Basic !!!"}, 401),
        ({"authorization": READER}, 401),
        (bearer(READER), 200),
        (bearer(ADMIN), 200),
        ({"authorization": "basic " + base64.b64encode(f"anyone:{READER}".encode()).decode()}, 200),
        (bearer(READER + "ä"), 401),
    ],
)
async def test_with_tokens_every_reader_needs_one(headers: dict[str, str], status: int) -> None:
    client = guarded(GUARDED)
    for path in ("/metrics", "/health", "/api/v1/rules", "/api/openapi.json", "/", "/nothing"):
        answer = await client.call("GET", path, headers=headers)
        assert (answer.status == 401) == (status == 401), path
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_readiness_is_told_without_a_token() -> None:
    assert (await guarded(GUARDED).get("/-/ready")).status == 200


async def test_without_tokens_everyone_reads() -> None:
    assert (await guarded().get("/api/v1/rules")).status == 200


@pytest.mark.parametrize(
    ("options", "headers", "status"),
    [
        (HttpOptions(), {}, 403),
        (HttpOptions(tokens=GUARDED.tokens), bearer(READER), 403),
        (GUARDED, {}, 401),
        (GUARDED, bearer(READER), 403),
        (GUARDED, bearer(ADMIN), 200),
    ],
)
@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
async def test_changes_need_an_admin_token(
    options: HttpOptions, headers: dict[str, str], status: int, method: str
) -> None:
    answer = await guarded(options).call(method, "/api/v1/silences", headers=headers)
    assert answer.status == (405 if status == 200 and method != "POST" else status)


async def test_posted_queries_are_reads_and_other_methods_on_them_do_not_exist() -> None:
    assert (await guarded().post("/api/v1/query_exemplars", {"query": "up"})).status == 200
    answer = await guarded(GUARDED).call("DELETE", "/api/v1/query", headers=bearer(ADMIN))
    assert answer.status == 405


def test_the_holder_of_a_token_is_known_by_name() -> None:
    tokens = [*GUARDED.tokens, *GUARDED.admin_tokens]
    assert [holder(tokens, given) for given in (READER, ADMIN, "", "\udcff")] == ["grafana", "ops", None, None]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("localhost:9811", 200), ("127.0.0.1:9811", 200), ("[::1]:9811", 200), ("192.0.2.1", 200),
        ("web1.example.org:9811", 200), ("WEB1.example.org.", 200), ("metrics.internal", 200), ("a.b.lan:1", 200),
        ("evil.example", 421), ("localhost.evil.example", 421), ("lan", 421), ("127.0.0.1.evil.example:9811", 421),
    ],
)  # fmt: skip
async def test_only_names_of_this_host_are_answered(host: str, status: int) -> None:
    client = guarded(HttpOptions(allowed_hosts=["metrics.internal", "*.lan"]))
    assert (await client.get("/metrics", host=host)).status == status


async def test_every_answer_carries_protective_headers_and_none_lets_other_origins_read() -> None:
    client = guarded(GUARDED)
    for headers in ({}, bearer(READER), {**bearer(READER), "host": "evil.example"}):
        for path in ("/metrics", "/api/v1/query", "/nothing"):
            answer = await client.call("GET", path, headers={"origin": "https://evil.example", **headers})
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
            assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_a_body_above_64_kib_is_refused_with_a_sentence() -> None:
    client = guarded()
    fits = await client.post("/api/v1/query_exemplars", {"query": "1" + "+1" * 60})
    assert fits.status == 200
    for size in (BODY_BYTES, 10_000_000):
        answer = await client.post("/api/v1/query_exemplars", {"query": "1" * size})
        assert (answer.status, answer.json()["errorType"]) == (400, "bad_data")
        assert answer.json()["error"] == "request body is larger than 64 KiB; ask for less at a time"


async def test_headers_above_8_kib_are_refused() -> None:
    assert (await guarded().get("/metrics", x_long="a" * 9000)).status == 431
    assert (await guarded().get("/api/v1/query", {"query": "1" * 9000})).status == 431


async def test_errors_never_show_what_is_inside() -> None:
    class Broken(Agent):
        def health(self) -> dict[str, Any]:
            raise RuntimeError("the password is hunter2")

    with structlog.testing.capture_logs() as logged:
        answer = await guarded(agent=Broken()).get("/health")
    assert [(entry["event"], entry["path"]) for entry in logged] == [("http.failed", "/health")]
    assert answer.status == 500
    assert answer.json() == {
        "status": "error", "errorType": "internal", "error": "internal error; the agent's log has it",
    }  # fmt: skip


TLS = Tls("/cert.pem", "/key.pem")
MUTUAL = Tls("/cert.pem", "/key.pem", "/ca.pem")


@pytest.mark.parametrize(
    ("listen", "options", "warns"),
    [
        ("127.0.0.1:9811", HttpOptions(), False),
        ("127.8.8.8:9811", HttpOptions(), False),
        ("[::1]:9811", HttpOptions(), False),
        ("localhost:9811", HttpOptions(), False),
        ("0.0.0.0:9811", HttpOptions(tokens=GUARDED.tokens), True),
        (":9811", HttpOptions(tokens=GUARDED.tokens, tls=TLS), False),
        ("web1:9811", HttpOptions(tls=MUTUAL), False),
    ],
)
def test_a_protected_address_may_be_listened_on(listen: str, options: HttpOptions, warns: bool) -> None:
    assert bool(check_exposure(listen, options)) == warns


@pytest.mark.parametrize("listen", ["0.0.0.0:9811", ":9811", "[::]:9811", "192.0.2.1:9811", "web1:9811"])
@pytest.mark.parametrize(
    "options", [HttpOptions(), HttpOptions(tls=TLS), HttpOptions(admin_tokens=GUARDED.admin_tokens)]
)
def test_an_open_address_is_refused_unless_asked_for(listen: str, options: HttpOptions) -> None:
    with pytest.raises(ExposedError, match=r"configure http\.tokens"):
        check_exposure(listen, options)
    assert "--insecure" in check_exposure(listen, options, is_insecure=True)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({}, "neither or both"),
        ({"sha256": HASHED, "token": Secret(READER)}, "neither or both"),
        ({"token": Secret("short")}, "shorter than 16 characters"),
    ],
)
def test_a_token_that_protects_nothing_is_refused(given: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        Token("x", **given)


@pytest.mark.parametrize(
    ("listen", "is_tls", "url"),
    [
        ("127.0.0.1:9811", False, "http://127.0.0.1:9811"),
        (":9811", False, "http://127.0.0.1:9811"),
        ("[::]:9811", True, "https://127.0.0.1:9811"),
        ("[::1]:9811", False, "http://[::1]:9811"),
        ("web1:80", True, "https://web1:80"),
    ],
)
def test_the_address_is_told_as_someone_on_this_host_finds_it(listen: str, is_tls: bool, url: str) -> None:
    assert url_of(listen, is_tls=is_tls) == url
