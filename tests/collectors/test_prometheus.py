from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.core.model import Failed, Reading
from agent.core.secrets import Secret
from collectors.prometheus import Prometheus, Target
from tests.collectors.hosts import readings
from tests.servers.programs import need

PAGE = b'# TYPE requests_total counter\nrequests_total{code="200"} 5\n# TYPE temp gauge\ntemp 21.5\nplain 1\n'


class Exporter:
    """A page of metrics on a loopback port or a unix socket; `reply` is all it sends after the request's head."""

    def __init__(self, reply: Callable[[], Iterator[bytes]], listener: socket.socket) -> None:
        self.reply = reply
        self.requests: list[str] = []
        self.done = threading.Event()
        is_unix = listener.family == socket.AF_UNIX
        self.url = "" if is_unix else f"http://127.0.0.1:{listener.getsockname()[1]}/metrics"
        self._listener = listener
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed: the test is over
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                head = b""
                while b"\r\n\r\n" not in head and (chunk := connection.recv(4096)):
                    head += chunk
                self.requests.append(head.decode())
                for part in self.reply():
                    connection.sendall(part)
            except OSError:  # the scraper hung up, as it should on some of these
                pass

    def close(self) -> None:
        self.done.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


@contextmanager
def exporter(*parts: bytes, reply: Callable[[], Iterator[bytes]] | None = None) -> Iterator[Exporter]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = Exporter(reply or (lambda: iter(parts)), listener)
    try:
        yield server
    finally:
        server.close()


def answer(body: bytes, status: str = "200 OK", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\nContent-Type: text/plain\r\n\r\n".encode() + body


def collect(*targets: Target, **options: int) -> list[Reading | Failed]:
    return list(Prometheus(targets=list(targets), **options).collect())


def failure(target: Target, **options: int) -> str:
    """Why the scrape failed; its `up` says so as well."""
    found = collect(target, **options)
    assert readings(found) == [("vigilhost_scrape", (target.url,), {"up": 0})]
    (failed,) = [item for item in found if isinstance(item, Failed)]
    assert failed.target == target.url
    return failed.reason


def test_a_page_becomes_readings_that_carry_its_address() -> None:
    with exporter(answer(PAGE)) as server:
        (up, *series) = collect(Target(server.url))
    assert isinstance(up, Reading)
    assert up.tags == (server.url,)
    assert up.values[0] == 1
    assert up.values[2] == 3
    assert readings(series) == [
        ("requests_total", (server.url, "200"), {"value": 5}),
        ("temp", (server.url,), {"value": 21.5}),
        ("plain", (server.url,), {"value": 1}),
    ]
    first = series[0]
    assert isinstance(first, Reading)
    assert [(tag.influx, tag.prom) for tag in first.group.tags] == [("url", "target"), ("code", "code")]


def test_groups_stay_the_same_from_scrape_to_scrape() -> None:
    with exporter(answer(PAGE)) as server:
        collector = Prometheus(targets=[Target(server.url)])
        first, second = list(collector.collect()), list(collector.collect())
    assert [r.group for r in first if isinstance(r, Reading)] == [r.group for r in second if isinstance(r, Reading)]


def test_only_wanted_metrics_are_kept() -> None:
    with exporter(answer(PAGE)) as server:
        found = collect(Target(server.url, include="requests_total|temp", exclude="te.*"))
    assert [name for name, _, _ in readings(found)] == ["vigilhost_scrape", "requests_total"]


@pytest.mark.parametrize(
    ("reply", "reason", "why"),
    [
        (answer(b"", "503 Service Unavailable"), "answered 503 Service Unavailable", "a status is told"),
        (answer(b"", "302 Found"), "answered 302 Found", "redirects are not followed"),
        (answer(b"<html>\n"), "line 1: '<html>' is not a sample", "a page that is not metrics"),
        (answer(PAGE, length=len(PAGE) + 10), "incompleteread", "a page shorter than announced"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "badstatusline", "another service on that port"),
        (answer(b"a 1\nb 2"), "line 2: does not end with a line feed", "a page cut by its writer"),
        (answer(b"a 1\n" * 4), "line 4: more than 3 samples", "samples are bounded"),
        (answer(b"#" * 2000 + b"\n"), "the page is larger than 1KiB", "size is bounded"),
        (b"", "remote end closed connection without response", "no answer at all"),
    ],
)
def test_a_bad_answer_fails_that_target(reply: bytes, reason: str, why: str) -> None:
    with exporter(reply) as server:
        said = failure(Target(server.url), max_size=1024, max_samples=3)
    assert reason in said.lower() or reason in said, why


def test_an_endless_page_is_cut_at_its_size() -> None:
    def endless() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        while True:
            yield b"a 1\n" * 1000

    with exporter(reply=endless) as server:
        assert failure(Target(server.url), max_size=100_000) == "the page is larger than 97.7KiB"


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\n\r\na 1\n", b"HTTP/1.1 200 OK\r\nX: ", b""],
    ids=["in the body", "in the head", "dumb"],
)
def test_a_page_that_comes_drop_by_drop_is_given_up_at_the_deadline(head: bytes) -> None:
    def dripping() -> Iterator[bytes]:
        yield head
        while not server.done.wait(0.02):
            if head:
                yield b"#"

    with exporter(reply=dripping) as server:
        assert failure(Target(server.url, timeout=0.3)) == "no whole answer within 300ms"


def test_nobody_listening_is_a_plain_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    reason = failure(Target(f"http://127.0.0.1:{port}/metrics"))
    assert "connection refused" in reason
    assert "0x" not in reason


def test_a_dead_target_does_not_disturb_the_others() -> None:
    with exporter(answer(PAGE)) as good, exporter(b"") as bad:
        found = collect(Target(bad.url), Target(good.url), Target(good.url + "?x=2"))
    assert [(tags, value["up"]) for name, tags, value in readings(found) if name == "vigilhost_scrape"] == [
        ((bad.url,), 0),
        ((good.url,), 1),
        ((good.url + "?x=2",), 1),
    ]


def test_a_unix_socket_is_scraped(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "m.sock"))
    listener.listen()
    server = Exporter(lambda: iter([answer(PAGE)]), listener)
    try:
        found = collect(Target(f"unix://{tmp_path}/m.sock?path=/deep/metrics"))
    finally:
        server.close()
    assert server.requests[0].startswith("GET /deep/metrics HTTP/1.1")
    assert len(readings(found)) == 4
    assert "no such file" in failure(Target(f"unix://{tmp_path}/other.sock"))


@pytest.mark.parametrize(
    ("target", "header"),
    [
        ({"token": Secret("t0ken")}, "Authorization: Bearer t0ken"),
        ({"username": "bob", "password": Secret("pä:ss")}, "Authorization: Basic Ym9iOnDDpDpzcw=="),
    ],
)
def test_credentials_go_into_the_header_only(target: dict[str, Secret], header: str) -> None:
    with exporter(answer(PAGE)) as server:
        found = collect(Target(server.url, **target))  # type: ignore[arg-type]
        assert header in server.requests[0]
    assert "t0ken" not in repr(found) + repr(target)


def test_https_needs_a_certificate_it_trusts(tmp_path: Path) -> None:
    need("openssl")
    key, certificate = tmp_path / "key", tmp_path / "cert"
    subprocess.run(
        [str(shutil.which("openssl")), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-keyout", key, "-out", certificate, "-subj", "/CN=metrics", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True)
    server = Exporter(lambda: iter([answer(PAGE)]), listener)
    url = server.url.replace("http:", "https:")
    try:
        trusted = collect(Target(url, ca_file=str(certificate)))
    finally:
        server.close()
    assert readings(trusted)[0][2]["up"] == 1

    listener = context.wrap_socket(
        socket.create_server(("127.0.0.1", 0)), server_side=True, do_handshake_on_connect=False
    )
    stranger = Exporter(lambda: iter([answer(PAGE)]), listener)
    try:
        assert "certificate verify failed" in failure(Target(stranger.url.replace("http:", "https:")))
    finally:
        stranger.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:9100/metrics", "url: 'localhost' is not http, https or unix"),
        ("ftp://h/metrics", "url: 'ftp' is not http, https or unix"),
        ("http://bob:secret@h/metrics", "url: holds a password, which would be shown as a label"),
        ("http:///metrics", "names no host"),
        ("http://h:99999/", "Port out of range"),
    ],
)
def test_an_address_that_cannot_work_is_refused_at_once(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Target(url)


def test_one_page_cannot_be_two_targets() -> None:
    with pytest.raises(ValueError, match="two of them have the same url"):
        collect(Target("http://h/metrics"), Target("http://h/metrics"))


def test_without_targets_nothing_is_read() -> None:
    assert collect() == []
