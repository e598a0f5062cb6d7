from __future__ import annotations

import os
import socket

import pytest

from agent import sdnotify


def test_assignments_arrive_in_one_datagram(manager: socket.socket) -> None:
    assert sdnotify.notify("READY=1", "STATUS=fine")
    assert manager.recv(1000) == b"READY=1\nSTATUS=fine"


def test_reloading_carries_the_time_systemd_wants(manager: socket.socket) -> None:
    assert sdnotify.reloading()
    first, second = manager.recv(1000).decode().splitlines()
    assert first == "RELOADING=1"
    assert second.startswith("MONOTONIC_USEC=")
    assert second.partition("=")[2].isdigit()


def test_an_abstract_socket_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"vigilhost-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        assert sdnotify.notify("WATCHDOG=1")
        assert listener.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize("path", [None, "", "relative", "/nowhere/notify"])
def test_no_manager_is_no_error(path: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if path is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", path)
    assert not sdnotify.notify("READY=1")


@pytest.mark.parametrize(
    ("usec", "pid", "interval"),
    [("10000000", "mine", 10 / 3), ("10000000", "", 10 / 3), ("10000000", "1", None), ("", "", None), ("x", "", None),
     ("600000", "", 1.0)],
)  # fmt: skip
def test_the_watchdog_is_fed_three_times_an_interval(
    usec: str, pid: str, interval: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "mine" else pid)
    assert sdnotify.watchdog_interval() == (pytest.approx(interval) if interval else None)
