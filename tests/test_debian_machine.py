"""A machine of our own boots, does what it is told, and leaves nothing behind."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import debian_machine, debian_root
from tests.servers.debian_machine import DebianMachine, need_machines
from tests.servers.http_call import answers_ok, call
from tests.servers.process import LOOPBACK, ServerError, alive, wait_until
from tests.servers.scripted_http import Reply, ScriptedHttp

WEB = ("systemd-run", "--quiet", "--unit=web", "python3", "-m", "http.server", "--bind", LOOPBACK, "8000")


@pytest.fixture(scope="module")
def machine() -> Iterator[DebianMachine]:
    need_machines()
    with DebianMachine() as machine:
        yield machine


def test_its_service_manager_is_systemd_and_nothing_has_failed(machine: DebianMachine) -> None:
    assert machine.run("systemctl", "--version").startswith("systemd 252 ")
    assert machine.run("systemctl", "--failed", "--no-legend") == ""
    assert machine.show("dbus.service", "ActiveState", "SubState") == {"ActiveState": "active", "SubState": "running"}


def test_commands_run_in_it_as_the_user_asked_for(machine: DebianMachine) -> None:
    assert machine.run("id", "-un") == "root\n"
    assert machine.run("sh", "-c", "cat; id -un", user="daemon", stdin="and ") == "and daemon\n"
    with pytest.raises(ServerError, match=r"sh -c 'echo why >&2; exit 3' exited 3: why"):
        machine.run("sh", "-c", "echo why >&2; exit 3")


def test_its_files_are_its_own(machine: DebianMachine) -> None:
    machine.run("sh", "-c", "echo there >/etc/written")
    assert machine.path("/etc/written").read_text() == "there\n"
    assert not (debian_root.debian_root() / "etc/written").exists()


def test_its_journal_is_read_by_field_and_time(machine: DebianMachine) -> None:
    machine.run("systemd-run", "--quiet", "--wait", "--unit=said", "sh", "-c", "echo before")
    now = time.monotonic()
    machine.run("systemd-run", "--quiet", "--wait", "--unit=said", "sh", "-c", "echo after; echo '<3>bad'")
    assert machine.await_event("said", "PRIORITY=3", after=now)["MESSAGE"] == "bad"
    said = [event["MESSAGE"] for event in machine.events("said", "_TRANSPORT=stdout", after=now)]
    assert said == ["after", "bad"]


def test_its_loopback_is_reached_from_here_and_ours_from_there(machine: DebianMachine) -> None:
    machine.run(*WEB)
    url = f"http://{LOOPBACK}:{machine.forward(8000)}"
    wait_until(lambda: _answers(url), "the web server")
    assert call(f"{url}/etc/hostname").text == machine.run("cat", "/etc/hostname")
    with ScriptedHttp(Reply(200, "from outside")) as ours:
        asked = f"import urllib.request as r; print(r.urlopen('http://{LOOPBACK}:{machine.give(ours.port)}').read())"
        assert machine.run("python3", "-c", asked) == "b'from outside'\n"


def _answers(url: str) -> bool:
    try:
        return answers_ok(url)
    except OSError:
        return False


def test_two_run_at_once_and_leave_nothing() -> None:
    need_machines()
    with DebianMachine() as one, DebianMachine() as other:
        assert one.hostname != other.hostname
        assert one.run("systemctl", "is-system-running") == other.run("systemctl", "is-system-running") == "running\n"
        inits, directories = (one.init, other.init), (one.data_dir, other.data_dir)
    assert not any(map(alive, inits))
    assert not any(directory.exists() for directory in directories)
    assert not [name for name in (one.hostname, other.hostname) if Path("/run/systemd/nspawn/propagate", name).exists()]


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(debian_machine, "need", lambda *_: None)
    with pytest.raises(outcome, match="needs root"):
        need_machines()


def test_the_mirrors_are_those_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    need_machines()
    for line in debian_root.mirrors():
        kind, url, suite, component = line.split()
        assert (kind, suite.partition("-")[0], component) == ("deb", debian_root.SUITE, "main")
        assert url.startswith(("http", "file"))
    monkeypatch.setattr(debian_root, "SUITE", "nosuch")
    monkeypatch.setattr(debian_root, "program", lambda _: "true")
    with pytest.raises(ServerError, match="no Debian nosuch among the sources of this machine's apt"):
        debian_root.mirrors()
