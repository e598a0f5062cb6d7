from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceError, SourceMissing
from collectors.dbus import Call, Connection, DBusError, decode_body, split_signature
from tests.collectors.bus import stand_in_bus, text
from tests.servers.process import wait_until
from tests.servers.programs import need, program

FIXTURES = Path(__file__).parent.parent / "fixtures" / "dbus"
DRIVER = ("org.freedesktop.DBus", "/org/freedesktop/DBus")
PING = Call("x", "/x", "x.y", "Ping", ("a", "bb"))


@pytest.mark.parametrize(
    ("signature", "parts"),
    [("", ()), ("s", ("s",)), ("sa{sv}(ii)", ("s", "a{sv}", "(ii)")), ("aa(s(uu))y", ("aa(s(uu))", "y"))],
)
def test_a_signature_is_split_into_complete_types(signature: str, parts: tuple[str, ...]) -> None:
    assert split_signature(signature) == parts


@pytest.mark.parametrize("signature", ["a", "(", "(s", "()", "z", "a{s", "s)", "a" * 100])
def test_a_malformed_signature_is_refused(signature: str) -> None:
    with pytest.raises(DBusError, match="does not fit its signature"):
        decode_body(signature, bytes(1000))


@pytest.mark.parametrize(
    ("signature", "body", "values"),
    [
        ("yu", b"\x07\0\0\0\x01\0\0\0", [7, 1]),
        ("nqix", b"\xff\xff\x02\0\xfd\xff\xff\xff\x04\0\0\0\0\0\0\0", [-1, 2, -3, 4]),
        ("td", struct.pack("<Qd", 2**64 - 1, 0.5), [2**64 - 1, 0.5]),
        ("b", b"\x01\0\0\0", [True]),
        ("g", b"\x02as\0", ["as"]),
        ("as", b"\x0a\0\0\0" + text("a") + b"\0\0" + b"", None),
        ("av", b"\x08\0\0\0\x01u\0\0\x05\0\0\0", [[5]]),
        ("a{su}", b"\x0c\0\0\0\0\0\0\0" + text("k") + b"\0\0" + b"\x09\0\0\0", [{"k": 9}]),
        ("at", b"\0\0\0\0\0\0\0\0", [[]]),
    ],
)
def test_values_are_read_with_their_alignment(signature: str, body: bytes, values: list[Any] | None) -> None:
    if values is None:  # an array that says it is longer than the message
        with pytest.raises(DBusError):
            decode_body(signature, body)
    else:
        assert decode_body(signature, body) == values


def test_big_endian_is_read_too() -> None:
    assert decode_body("us", b"\0\0\0\x07\0\0\0\x02hi\0", ">") == [7, "hi"]


def test_a_list_of_units_that_a_real_systemd_sent_is_read() -> None:
    recorded = (FIXTURES / "list-units.reply").read_bytes()
    (body_length,) = struct.unpack_from("<I", recorded, 4)
    (units,) = decode_body("a(ssssssouso)", recorded[-body_length:])
    assert units[0] == (
        "-.mount", "Root Mount", "loaded", "active", "mounted", "",
        "/org/freedesktop/systemd1/unit/_2d_2emount", 0, "", "/",
    )  # fmt: skip
    assert [unit[0] for unit in units] == ["-.mount", "dbus.service", "dbus.socket"]


def test_answers_that_a_real_systemd_sent_are_told_apart(tmp_path: Path) -> None:
    # Recorded answers to Get Version, Get of a property there is not, and Get NRestarts, serials 2 to 4.
    recorded = (FIXTURES / "properties.replies").read_bytes()
    with stand_in_bus(tmp_path / "bus", {}) as bus:
        replies = iter([recorded, b"", b""])
        bus.raw = lambda: next(replies)
        connection = Connection(str(tmp_path / "bus"), 5.0)
        version, unknown, restarts = connection.calls([PING] * 3)
        connection.close()
    assert version == ["252.38-1~deb12u1"]
    assert isinstance(unknown, DBusError)
    assert str(unknown).startswith("org.freedesktop.DBus.Error.UnknownProperty: Unknown interface")
    assert restarts == [0]


@given(st.text(st.sampled_from("ybnqiuxtdsogav(){}"), max_size=8), st.binary(max_size=80))
def test_any_bytes_give_values_or_an_error(signature: str, body: bytes) -> None:
    try:
        values = decode_body(signature, body)
    except DBusError:
        return
    assert len(values) == len(split_signature(signature))


def test_a_real_bus_lets_us_in_and_answers(tmp_path: Path) -> None:
    need("dbus-daemon")
    path = tmp_path / "bus"
    bus = subprocess.Popen(
        [program("dbus-daemon"), "--session", "--nofork", "--nopidfile", f"--address=unix:path={path}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(path.exists, "the bus's socket")
        connection = Connection(str(path), 5.0)
        names, owned, unknown, everything = connection.calls([
            Call(*DRIVER, "org.freedesktop.DBus", "ListNames"),
            Call(*DRIVER, "org.freedesktop.DBus", "NameHasOwner", ("org.freedesktop.DBus",)),
            Call("no.such.service", "/", "no.such", "Thing"),
            Call(*DRIVER, "org.freedesktop.DBus.Properties", "GetAll", ("org.freedesktop.DBus",)),
        ])  # fmt: skip
        many = connection.calls([Call(*DRIVER, "org.freedesktop.DBus", "GetId")] * 500)
        connection.close()
    finally:
        bus.terminate()
        bus.wait()
    assert isinstance(names, list)
    assert "org.freedesktop.DBus" in names[0]
    assert owned == [True]
    assert isinstance(unknown, DBusError)
    assert isinstance(everything, list)
    assert {"Features", "Interfaces"} <= everything[0].keys()
    assert len({str(answer) for answer in many}) == 1
    assert isinstance(many[0], list)


@pytest.mark.parametrize(
    ("greeting", "raw", "message"),
    [
        (b"REJECTED EXTERNAL\r\n", b"", "access refused: REJECTED EXTERNAL"),
        (b"x" * 5000, b"", "does not speak D-Bus"),
        (None, b"HTTP/1.1 400 Bad\r\n\r\n", "what came is not D-Bus"),
        (None, struct.pack("<4BIII", ord("l"), 2, 0, 1, 2**31, 1, 0), "a message of 2147483664 bytes"),
        (None, struct.pack("<4BIII", ord("l"), 2, 0, 1, 0, 1, 8) + b"\xff" * 8, "does not fit its signature"),
        (None, b"l", "no answer within 0.2 s"),
    ],
)
def test_an_answer_that_is_not_dbus_is_told(tmp_path: Path, greeting: bytes | None, raw: bytes, message: str) -> None:
    with stand_in_bus(tmp_path / "bus", {}) as bus:
        bus.greeting = greeting or bus.greeting
        bus.raw = lambda: raw
        with pytest.raises(SourceError) as error:
            Connection(str(tmp_path / "bus"), 0.2).calls([PING])
    assert message in str(error.value)


def test_no_socket_and_nobody_behind_it_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="none: no such file"):
        Connection(str(tmp_path / "none"), 1.0)
    with stand_in_bus(tmp_path / "bus", {}):
        pass
    with pytest.raises(SourceError, match="connection refused"):
        Connection(str(tmp_path / "bus"), 1.0)
