"""The server on a real socket: deadlines, sizes, connections, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.http import server as server_module
from agent.http.options import Tls
from agent.http.server import MOST_CONNECTIONS, ListenError, Server, bind
from tests.agent.http.asking import Agent, client_of
from tests.servers.certificates import Certificate

GET = b"GET /-/ready HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextlib.asynccontextmanager
async def serving(tls: Tls | None = None) -> AsyncIterator[int]:
    """The port of a server."""
    listener = bind("127.0.0.1:0")
    server = Server(client_of(None, agent=Agent()).app, listener, tls)
    running = asyncio.ensure_future(server.run_until_stopped())
    try:
        yield listener.getsockname()[1]
    finally:
        server.stop()
        await running


@contextlib.asynccontextmanager
async def connected(port: int, **options: Any) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **options)
    try:
        async with asyncio.timeout(30):
            yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def sent(port: int, *pieces: bytes) -> bytes:
    """Everything that comes back until the server closes."""
    async with connected(port) as (reader, writer):
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
        return await reader.read()


async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(GET)
    return await reader.readuntil(b"ready\n")


async def test_a_connection_is_kept_for_the_next_request() -> None:
    async with serving() as port, connected(port) as connection:
        for _ in range(3):
            assert (await answered(*connection)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("beginning", [b"", b"GET /-/ready HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
async def test_headers_that_do_not_come_end_the_connection(monkeypatch: pytest.MonkeyPatch, beginning: bytes) -> None:
    monkeypatch.setattr(server_module, "HEADER_DEADLINE_S", 0.05)
    async with serving() as port:
        with contextlib.suppress(ConnectionError):
            assert await sent(port, beginning) == b""


async def test_headers_that_drip_in_do_not_gain_time_with_each_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "HEADER_DEADLINE_S", 0.1)
    async with serving() as port:
        drops = 0
        async with connected(port) as (reader, writer):
            await answered(reader, writer)  # a second request on the same connection has the same deadline
            with contextlib.suppress(ConnectionError):
                while not reader.at_eof():
                    writer.write(b"E" if drops else b"G")
                    await writer.drain()
                    drops += 1
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(reader.read(1), 0.01)
        assert drops > 1
        async with connected(port) as connection:
            assert (await answered(*connection)).startswith(b"HTTP/1.1 200")


async def test_headers_above_8_kib_and_nonsense_are_answered_with_a_sentence() -> None:
    async with serving() as port:
        long = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 10_000_000 + b"\r\n\r\n"
        for request in (long, b"\x16\x03\x01 this is TLS\r\n\r\n", b"NONSENSE\r\n\r\n"):
            answer = await sent(port, request)
            assert answer.startswith(b"HTTP/1.1 400"), answer[:100]
            assert b"not an HTTP request, or one with a request line and headers of more than 8 KiB" in answer


async def test_a_query_of_10_mb_is_answered_with_a_sentence() -> None:
    body = b"query=" + b"1" * 10_000_000
    head = b"POST /api/v1/query HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n" % len(body)
    async with serving() as port:
        assert b"request body is larger than 64 KiB" in await sent(port, head + b"\r\n", body)
        assert b"request body is larger than 64 KiB" in await sent(port, head + b"Expect: 100-continue\r\n\r\n")


async def test_a_body_that_does_not_come_ends_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.http.guard.BODY_DEADLINE_S", 0.05)
    async with serving() as port:
        answer = await sent(port, b"POST /api/v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nquer")
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"connection: close" in answer.lower()


async def test_beyond_64_connections_the_next_is_told_so_and_served_once_one_is_gone() -> None:
    async with serving() as port, contextlib.AsyncExitStack() as stack:
        first = connected(port)
        held = [await first.__aenter__()]
        held += [await stack.enter_async_context(connected(port)) for _ in range(MOST_CONNECTIONS - 1)]
        for connection in held:  # all of them are being served
            await answered(*connection)
        answer = await sent(port)
        assert answer.startswith(b"HTTP/1.1 503")
        assert answer.endswith(b"\r\n\r\ntoo many connections\n")
        await first.__aexit__(None, None, None)
        async with asyncio.timeout(30):
            while not (await _first_line(port)).startswith(b"HTTP/1.1 200"):
                await asyncio.sleep(0.001)


async def _first_line(port: int) -> bytes:
    async with connected(port) as (reader, writer):
        with contextlib.suppress(ConnectionError):
            writer.write(GET)
            return await reader.readline()
    return b""


async def test_with_tls_only_tls_is_spoken(certificate: Certificate) -> None:
    async with serving(Tls(str(certificate.certificate), str(certificate.key))) as port:
        async with connected(port, ssl=certificate.client_context(), server_hostname="localhost") as connection:
            assert (await answered(*connection)).startswith(b"HTTP/1.1 200")
        with contextlib.suppress(ConnectionError):
            assert not (await sent(port, GET)).startswith(b"HTTP")


async def test_a_client_without_the_certificate_asked_for_is_not_served(certificate: Certificate) -> None:
    tls = Tls(str(certificate.certificate), str(certificate.key), str(certificate.authority))
    async with serving(tls) as port:
        context = certificate.client_context()
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            async with connected(port, ssl=context, server_hostname="localhost") as connection:
                await answered(*connection)
        context.load_cert_chain(certificate.certificate, certificate.key)
        async with connected(port, ssl=context, server_hostname="localhost") as connection:
            assert (await answered(*connection)).startswith(b"HTTP/1.1 200")


def test_a_certificate_that_cannot_be_used_is_said_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing\n")
    with bind("127.0.0.1:0") as listener:
        for name in ("missing.pem", "empty.pem"):
            with pytest.raises(ListenError, match=rf"http\.tls: .*{name}: "):
                Server(client_of(None).app, listener, Tls(str(tmp_path / name), str(tmp_path / name)))


async def test_small_answers_do_not_wait_for_an_acknowledgement() -> None:
    """Header and body are two small segments; with Nagle's algorithm the second one came 40 ms later."""
    options: list[int] = []

    class Noted(server_module.Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            options.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server_module, "Protocol", Noted)
        async with serving() as port, connected(port) as connection:
            await answered(*connection)
    assert options == [1]


def test_an_address_that_is_taken_is_said_by_name() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ListenError, match=r"listen: 127\.0\.0\.1:[0-9]+: address already in use"):
            bind(f"127.0.0.1:{other.getsockname()[1]}")
