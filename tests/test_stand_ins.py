"""The stand-ins of the tests do what they say: mail, scripted HTTP, fault proxy, hung mount, loopback guard."""

from __future__ import annotations

import gzip
import os
import signal
import smtplib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.certificates import Certificate
from tests.servers.faulty_fuse import argv_on_hung_mount, can_mount, run_on_hung_mount
from tests.servers.http_call import call
from tests.servers.loopback_only import CalledOut, LoopbackOnly, is_here
from tests.servers.process import LOOPBACK, alive, free_port, wait_until
from tests.servers.programs import lacking, need
from tests.servers.scripted_http import HANG, RESET, Reply, ScriptedHttp, as_json
from tests.servers.smtp_sink import SmtpSink
from tests.servers.tcp_proxy import TcpProxy

# Mail.

MAIL = "Subject: disk full\r\n\r\non /srv\r\n"


def test_the_smtp_sink_keeps_messages_and_refuses_as_told(smtp_sink: SmtpSink) -> None:
    smtp_sink.refuse("451 4.7.1 try again later")
    with smtplib.SMTP(LOOPBACK, smtp_sink.port) as client:
        with pytest.raises(smtplib.SMTPDataError, match="451"):
            client.sendmail("a@x.test", ["b@x.test"], MAIL)
        client.sendmail("a@x.test", ["b@x.test", "c@x.test"], MAIL)
    (mail,) = smtp_sink.wait_for(1)
    assert (mail.sender, mail.recipients, mail.tls) == ("a@x.test", ["b@x.test", "c@x.test"], False)
    assert (mail.message["Subject"], mail.message.get_content()) == ("disk full", "on /srv\r\n")
    assert smtp_sink.refusals == 1


def test_the_smtp_sink_insists_on_starttls_and_login(certificate: Certificate) -> None:
    with SmtpSink(certificate, require_tls=True, login=("agent", "secret")) as sink:
        with smtplib.SMTP("localhost", sink.port) as client, pytest.raises(smtplib.SMTPException):
            client.sendmail("a@x.test", ["b@x.test"], MAIL)
        with smtplib.SMTP("localhost", sink.port) as client:
            client.starttls(context=certificate.client_context())
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login("agent", "wrong")
            client.login("agent", "secret")
            client.sendmail("a@x.test", ["b@x.test"], MAIL)
        assert [(mail.tls, mail.user) for mail in sink.mails] == [(True, "agent")]


def test_the_smtp_sink_speaks_tls_from_the_first_byte(certificate: Certificate) -> None:
    with SmtpSink(certificate, implicit_tls=True) as sink:
        with smtplib.SMTP_SSL("localhost", sink.port, context=certificate.client_context()) as client:
            client.sendmail("a@x.test", ["b@x.test"], MAIL)
        assert [mail.tls for mail in sink.mails] == [True]


# The scripted HTTP stand-in.


def test_scripted_replies_come_in_order_by_path_first_then_the_default(scripted_http: ScriptedHttp) -> None:
    url = scripted_http.url
    scripted_http.answer(Reply(503, "busy", {"Retry-After": "7"}), as_json({"n": 1}))
    scripted_http.answer(Reply(401), path="/login")
    assert call(f"{url}/login").status == 401
    busy = call(f"{url}/write")
    assert (busy.status, busy.text, busy.headers["retry-after"]) == (503, "busy", "7")
    assert scripted_http.left == 1
    assert call(f"{url}/login").json() == {"n": 1}
    assert call(f"{url}/write").status == 204


def test_requests_are_recorded_with_query_headers_and_unzipped_body(scripted_http: ScriptedHttp) -> None:
    body = gzip.compress(b'{"v": 1}')
    call(f"{scripted_http.url}/w?a=1&a=2&b=", "PUT", body, {"Content-Encoding": "gzip", "X-Token": "t"})
    (request,) = scripted_http.wait_for(1)
    assert (request.method, request.path, request.query) == ("PUT", "/w", {"a": ["1", "2"], "b": [""]})
    assert (request.headers["x-token"], request.body, request.json()) == ("t", body, {"v": 1})


def test_a_chunked_request_is_read_whole(scripted_http: ScriptedHttp) -> None:
    with socket.create_connection((LOOPBACK, scripted_http.port)) as client:
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3;x=y\r\ncde\r\n0\r\n\r\n"
        )
        assert client.recv(100).startswith(b"HTTP/1.1 204")
    assert scripted_http.requests[0].body == b"abcde"


def test_a_reply_may_be_a_function_of_the_request(scripted_http: ScriptedHttp) -> None:
    scripted_http.default = lambda request: Reply(200, request.text.upper())
    assert call(scripted_http.url, "POST", "lines").text == "LINES"


def raw_exchange(port: int, request: bytes = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", patience: float = 5.0) -> bytes:
    """All bytes of an answer up to FIN. Raise ConnectionResetError on RST, TimeoutError on silence."""
    with socket.create_connection((LOOPBACK, port), timeout=patience) as client:
        client.sendall(request)
        received = b""
        while piece := client.recv(65536):
            received += piece
        return received


def test_a_reset_reply_is_a_reset(scripted_http: ScriptedHttp) -> None:
    scripted_http.answer(RESET)
    with pytest.raises(ConnectionResetError):
        raw_exchange(scripted_http.port)


def test_a_closing_reply_is_an_empty_answer(scripted_http: ScriptedHttp) -> None:
    scripted_http.answer(Reply(fault="close"))
    assert raw_exchange(scripted_http.port) == b""


def test_a_hanging_reply_says_nothing_and_does_not_keep_the_test_from_ending(scripted_http: ScriptedHttp) -> None:
    scripted_http.answer(HANG)
    with pytest.raises(TimeoutError):
        raw_exchange(scripted_http.port, patience=0.1)
    scripted_http.answer(HANG, Reply(200, "next"))
    waiting = socket.create_connection((LOOPBACK, scripted_http.port))
    waiting.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    scripted_http.wait_for(2)
    assert call(scripted_http.url).text == "next", "one hanging connection keeps no other from its answer"
    waiting.close()


@pytest.mark.parametrize("fault", ["close", "reset", "hang"])
def test_half_a_reply_promises_the_whole(scripted_http: ScriptedHttp, fault: str) -> None:
    scripted_http.answer(Reply(200, "0123456789", cut=4, fault=fault))  # type: ignore[arg-type]
    with socket.create_connection((LOOPBACK, scripted_http.port), timeout=0.3) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        received = b""
        end: type[BaseException] | None = None
        try:
            while piece := client.recv(65536):
                received += piece
        except OSError as error:
            end = type(error)
    assert end == {"close": None, "reset": ConnectionResetError, "hang": TimeoutError}[fault]
    if fault != "reset":  # a reset may overtake the bytes before it
        assert b"Content-Length: 10\r\n" in received
        assert received.endswith(b"\r\n\r\n0123")


def test_a_delayed_reply_comes_after_its_delay(scripted_http: ScriptedHttp) -> None:
    scripted_http.answer(Reply(200, "late", delay=0.2))
    before = time.monotonic()
    assert call(scripted_http.url).text == "late"
    assert time.monotonic() - before >= 0.2


def test_a_kept_connection_is_seen_as_one_client(scripted_http: ScriptedHttp) -> None:
    with socket.create_connection((LOOPBACK, scripted_http.port)) as client:
        for _ in range(2):
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 204")
    first, second = scripted_http.requests
    assert first.client == second.client


def test_the_stand_in_speaks_tls_and_a_client_sees_an_expired_certificate(
    certificate: Certificate, expired_certificate: Certificate
) -> None:
    def fetch(port: int, trust: Certificate) -> bytes:
        plain = socket.create_connection((LOOPBACK, port), timeout=5)
        with plain, trust.client_context().wrap_socket(plain, server_hostname="localhost") as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            return client.recv(1000)

    with ScriptedHttp(certificate=certificate) as server:
        assert server.url.startswith("https://")
        assert fetch(server.port, certificate).startswith(b"HTTP/1.1 204")
        with pytest.raises(ssl.SSLCertVerificationError):
            fetch(server.port, expired_certificate)  # another authority
    raises = pytest.raises(ssl.SSLCertVerificationError, match="expired")
    with ScriptedHttp(certificate=expired_certificate) as server, raises:
        fetch(server.port, expired_certificate)


def test_the_stand_ins_leave_no_thread_behind() -> None:
    before = set(threading.enumerate())
    with ScriptedHttp(HANG) as server, TcpProxy(server.port) as proxy:
        idle = socket.create_connection((LOOPBACK, proxy.port))
        asking = socket.create_connection((LOOPBACK, proxy.port))
        asking.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        server.wait_for(1)
        assert len(threading.enumerate()) > len(before)
    assert set(threading.enumerate()) <= before
    idle.close()
    asking.close()


# The fault proxy.


@pytest.fixture
def proxy(scripted_http: ScriptedHttp) -> Iterator[TcpProxy]:
    scripted_http.default = Reply(200, "x" * 1000, {"Connection": "close"})
    with TcpProxy(scripted_http.port) as between:
        yield between


def test_the_proxy_passes_everything_both_ways(proxy: TcpProxy, scripted_http: ScriptedHttp) -> None:
    big = os.urandom(3_000_000)
    scripted_http.default = lambda request: Reply(200, request.body)
    assert call(proxy.url, "POST", big).body == big
    assert proxy.accepted == 1
    assert proxy.to_server > len(big)
    wait_until(lambda: proxy.to_client > len(big), "the last piece, counted once the client has it")


def test_the_proxy_resets_new_and_open_connections(proxy: TcpProxy) -> None:
    with socket.create_connection((LOOPBACK, proxy.port), timeout=5) as open_one:
        wait_until(lambda: proxy.accepted == 1, "the connection")
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            open_one.recv(1)
    with pytest.raises(ConnectionResetError):
        raw_exchange(proxy.port)


def test_the_proxy_hangs_and_then_goes_on_where_it_was(proxy: TcpProxy, scripted_http: ScriptedHttp) -> None:
    proxy.hang()
    with socket.create_connection((LOOPBACK, proxy.port), timeout=0.2) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(TimeoutError):
            client.recv(1)
        assert scripted_http.requests == []
        proxy.pass_through()
        client.settimeout(5)
        assert client.recv(8) == b"HTTP/1.1"


def test_the_proxy_is_slow(proxy: TcpProxy) -> None:
    proxy.slow(bytes_per_s=5000)
    before = time.monotonic()
    assert len(raw_exchange(proxy.port)) > 1000
    assert time.monotonic() - before > 1000 / 5000 / 2


@pytest.mark.parametrize(("way", "limit"), [("answer", 100), ("request", 10)])
def test_the_proxy_cuts_after_so_many_bytes(proxy: TcpProxy, scripted_http: ScriptedHttp, way: str, limit: int) -> None:
    proxy.cut(**{f"{way}_after": limit})
    with pytest.raises(ConnectionResetError):
        raw_exchange(proxy.port)
    assert (proxy.to_client if way == "answer" else proxy.to_server) == limit
    assert len(scripted_http.requests) == (1 if way == "answer" else 0)


def test_the_proxy_refuses_and_listens_again_on_the_same_port(proxy: TcpProxy) -> None:
    for _ in range(3):
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            raw_exchange(proxy.port)
        proxy.pass_through()
        assert raw_exchange(proxy.port).endswith(b"xxx")


def test_the_proxy_ends_a_connection_whose_target_is_down() -> None:
    with TcpProxy(free_port()) as proxy, socket.create_connection((LOOPBACK, proxy.port), timeout=5) as client:
        assert client.recv(1) == b""


# The hung file system.


@pytest.fixture
def mountpoint(tmp_path: Path) -> Path:
    need("unshare")
    if not can_mount():
        lacking("this machine lets us mount no FUSE in a namespace of our own")
    path = tmp_path / "hung"
    path.mkdir()
    return path


# The state is "S" until a signal finds that the request cannot be taken back, and then "D": the picture of a dead NFS.
KILL_AND_SEE = """
    stat -f "$0" & asker=$!
    until [ -e "$1/asked" ]; do sleep 0.01; done
    kill -9 $asker
    until grep -o 'State:.D' /proc/$asker/status; do sleep 0.01; done
"""


def test_statvfs_of_the_hung_mount_never_answers_and_the_caller_cannot_be_killed(
    mountpoint: Path, tmp_path: Path
) -> None:
    script = 'ls "$0" && stat "$0" >/dev/null || exit 9\n' + KILL_AND_SEE
    done = run_on_hung_mount(mountpoint, tmp_path, ["sh", "-c", script, str(mountpoint), str(tmp_path)])
    assert (done.returncode, done.stdout, done.stderr) == (0, "State:\tD\n", "")
    assert str(mountpoint) not in Path("/proc/self/mounts").read_text()


def test_the_hung_mount_answers_once_it_is_told(mountpoint: Path, tmp_path: Path) -> None:
    script = KILL_AND_SEE + 'touch "$1/answer"; wait $asker; stat -f -c "%b %a" "$0"'
    done = run_on_hung_mount(mountpoint, tmp_path, ["sh", "-c", script, str(mountpoint), str(tmp_path)])
    assert done.stdout == "State:\tD\n1000 400\n"


def test_ending_the_script_frees_who_waits_for_the_hung_mount(mountpoint: Path, tmp_path: Path) -> None:
    script = KILL_AND_SEE + "echo $asker; wait"
    argv = argv_on_hung_mount(mountpoint, tmp_path, ["sh", "-c", script, str(mountpoint), str(tmp_path)])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"State:\tD\n"
        asker = int(child.stdout.readline())
        os.killpg(child.pid, signal.SIGKILL)
    wait_until(lambda: not alive(asker), "the waiting process to end")


# No test calls out.


@pytest.mark.parametrize(
    ("address", "here"),
    [
        (("127.0.0.1", 80), True), (("127.9.9.9", 80), True), (("::1", 80, 0, 0), True), (("localhost", 80), True),
        (("0.0.0.0", 80), True), (("::ffff:127.0.0.1", 80), True), (("192.0.2.1", 80), False),
        (("2001:db8::1", 80, 0, 0), False), (("fe80::1%lo", 80), False), (("::ffff:192.0.2.1", 80), False),
        (("example.test", 80), False), (("10.0.0.1", 80), False),
    ],
)  # fmt: skip
def test_what_is_this_machine(address: tuple[object, ...], here: bool) -> None:
    assert is_here(address) is here


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_calling_out_is_refused_and_remembered(kind: socket.SocketKind, loopback_only: LoopbackOnly) -> None:
    with socket.socket(type=kind) as client:
        client.settimeout(0.1)
        with pytest.raises(CalledOut, match=r"192\.0\.2\.1"):
            client.connect(("192.0.2.1", 9))
        with pytest.raises(CalledOut):
            client.connect_ex(("192.0.2.1", 9))
        with pytest.raises(CalledOut):
            client.sendto(b"x", ("192.0.2.1", 9))
    assert len(loopback_only.offences) == 3
    loopback_only.offences.clear()  # they were meant
