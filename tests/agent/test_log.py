from __future__ import annotations

import json
import logging
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from agent import log
from agent.core.secrets import Secret


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def test_a_line_is_one_line_whatever_the_values_hold() -> None:
    event = {
        "event": "sink.failed",
        "level": "info",
        "sink": "a b",
        "error": 'x\n"y"',
        "n": 4,
        "empty": "",
        "tags": ["a"],
    }
    assert log.line_of(event) == 'sink.failed sink="a b" error="x\\n\\"y\\"" n=4 empty="" tags=[\'a\']'


def test_json_carries_fields_and_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "info")
    structlog.get_logger("t").debug("not.shown")
    try:
        raise ValueError("why")
    except ValueError as error:
        structlog.get_logger("t").warning("it.failed", collector="cpu", token=Secret("canary"), exc_info=error)
    (line,) = capsys.readouterr().err.splitlines()
    event = json.loads(line)
    assert (event["event"], event["level"], event["collector"], event["token"]) == (
        "it.failed",
        "warning",
        "cpu",
        "***",
    )
    assert "ValueError: why" in event["traceback"]


def test_what_libraries_warn_of_comes_along(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "info")
    logging.getLogger("urllib3").info("chatter")
    logging.getLogger("urllib3").warning("retrying %s", "x")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "retrying x"


def test_the_journal_gets_priority_and_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.settimeout(5)
        journald.bind(str(tmp_path / "socket"))
        monkeypatch.setattr(log, "_JOURNAL_SOCKET", str(tmp_path / "socket"))
        log.configure("journal", "info")
        structlog.get_logger("t").warning("sink.write_failed", sink="influxdb", retry_in_s=4, _odd="x", reason="a\nb")
        fields = parse_native(journald.recv(65536))
    assert fields["PRIORITY"] == "4"
    assert fields["SINK"] == "influxdb"
    assert fields["RETRY_IN_S"] == "4"
    assert fields["ODD"] == "x", "journald refuses names that begin with an underscore"
    assert fields["REASON"] == "a\nb"
    assert fields["MESSAGE"] == 'sink.write_failed sink=influxdb retry_in_s=4 _odd=x reason="a\\nb"'


def test_a_journald_that_stands_still_does_not_stop_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(where)
        fill(where)
        monkeypatch.setattr(log, "_JOURNAL_SOCKET", where)
        log.configure("journal", "info")
        logging_thread = threading.Thread(target=structlog.get_logger("t").warning, args=("agent.late",), daemon=True)
        logging_thread.start()
        logging_thread.join(10)
        assert not logging_thread.is_alive()


def fill(address: str) -> None:
    """Send until the receiver's queue takes no more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
        try:
            while True:
                sender.sendto(b"MESSAGE=x\n", address)
        except BlockingIOError:
            pass


def test_without_journald_lines_carry_their_priority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log, "_JOURNAL_SOCKET", str(tmp_path / "nobody"))
    log.configure("journal", "info")
    structlog.get_logger("t").error("agent.broken")
    assert capsys.readouterr().err == "<3>agent.broken\n"


def parse_native(datagram: bytes) -> dict[str, str]:
    """Fields of one entry of journald's native protocol."""
    fields = {}
    while datagram:
        head, _, rest = datagram.partition(b"\n")
        name, equals, value = head.partition(b"=")
        if not equals:
            (size,) = struct.unpack("<Q", rest[:8])
            value, rest = rest[8 : 8 + size], rest[9 + size :]
        fields[name.decode()] = value.decode()
        datagram = rest
    return fields
