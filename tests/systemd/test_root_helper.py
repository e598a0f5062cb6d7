"""Backups through the sockets: the agent without rights has them run as root, by name and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.servers.process import ServerError, wait_until
from tests.systemd.installed import Installed

SOCKET = "/run/vigilhost-backup.sock"
HELPER = "vigilhost-backup@*"
DRILL = "vigilhost-drill@*"
SECRET = "only root may read this"
JOB = """\
source: {files: {paths: [/srv/private]}}
schedule: never
targets: {disk: {type: local, path: /srv/backup}}
drill: {schedule: never, assertions: [{file_exists: [srv/private/secret]}]}
"""
# One request on a connection of its own; what comes back is printed, a JSON object a line.
ASK = f"""
import socket, sys
with socket.socket(socket.AF_UNIX) as s:
    s.connect({SOCKET!r})
    s.sendall(sys.argv[1].encode() + b"\\n")
    while piece := s.recv(65536): print(piece.decode(), end="")
"""


@pytest.fixture(scope="module")
def host(machine: Installed) -> Installed:
    """A directory of root's, a job that backs it up, and an agent that knows the job."""
    machine.run("sh", "-ec", "umask 077; mkdir -p /srv/private; cat >/srv/private/secret", stdin=SECRET)
    machine.run("sh", "-ec", "mkdir -p /srv/backup; cat >/etc/vigilhost/backup.d/private.yaml", stdin=JOB)
    machine.run("systemctl", "reload", "vigilhost")
    return machine


def ask(machine: Installed, request: str, user: str = "vigilhost") -> list[dict[str, Any]]:
    """What the helper answers that user."""
    said = machine.run("python3", "-c", ASK, request, user=user, deadline=120)
    return [json.loads(line) for line in said.splitlines()]


def ended(events: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
    """Exit status and result."""
    (result,) = [event for event in events if event["event"] == "result"]
    assert events[-1]["event"] == "exit", events
    return events[-1]["code"], result


def backups(machine: Installed) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(machine.run("vigilhost", "backup", "list", "--json"))["backups"]
    return found


def test_a_directory_that_only_root_can_read_is_backed_up_by_the_agent(host: Installed) -> None:
    with pytest.raises(ServerError, match="Permission denied"):
        host.run("cat", "/srv/private/secret", user="vigilhost")
    host.run("vigilhost", "backup", "run", "private", "--agent", user="vigilhost")
    event = host.agent_event("backup.done", "JOB=private")
    assert (event["STATUS"], event["PRIORITY"]) == ("ok", "6")
    host.run("vigilhost", "backup", "restore", "private", "--to", "/root/restored")
    assert host.path("/root/restored/srv/private/secret").read_text() == SECRET
    assert host.run("stat", "--format=%a %U", "/root/restored/srv/private/secret") == "600 root\n"


def test_the_helper_runs_the_job_that_was_named_and_says_how_it_ended(host: Installed) -> None:
    events = ask(host, "run private")
    code, result = ended(events)
    assert (code, result["job"], result["status"]) == (0, "private", "ok"), events
    phases = [event["phase"] for event in events if event["event"] == "phase"]
    assert len(phases) > 2


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ("run ../private", "'../private'"),
        ("run /etc/passwd", "'/etc/passwd'"),
        ("run nosuch", "no such job"),
        ("rm private", "is no request"),
        ("run private; reboot", "'private; reboot'"),
        ("run " + "a" * 100, "is longer than"),
    ],
)
def test_the_helper_refuses_what_is_no_job(host: Installed, request_: str, why: str) -> None:
    code, result = ended(ask(host, request_))
    assert (code, result["status"]) == (2, "fail")
    assert why in result["error"]


def test_another_user_is_refused(host: Installed) -> None:
    with pytest.raises(ServerError, match="PermissionError"):
        ask(host, "run private", user="nobody")
    host.run("chmod", "0666", SOCKET)  # even where the file's mode lets them in
    code, result = ended(ask(host, "run private", user="nobody"))
    assert (code, result["status"]) == (2, "fail")
    assert "may not have jobs run" in result["error"]
    host.run("chmod", "0660", SOCKET)


def test_a_job_that_others_than_root_can_write_is_refused(host: Installed) -> None:
    host.run("sh", "-ec", "cd /etc/vigilhost/backup.d; cp private.yaml mine.yaml; chown vigilhost mine.yaml")
    code, result = ended(ask(host, "run mine"))
    assert (code, result["status"]) == (2, "fail")
    assert "/etc/vigilhost/backup.d/mine.yaml" in result["error"]
    host.run("rm", "/etc/vigilhost/backup.d/mine.yaml")


def test_a_drill_restores_without_any_right(host: Installed) -> None:
    host.run("vigilhost", "backup", "run", "private")
    code, result = ended(ask(host, "drill private"))
    assert (code, result.get("error"), result["passed"]) == (0, None, True)
    started = host.events(DRILL, "_UID=" + host.run("id", "-u", "vigilhost-drill").strip())
    assert started, "by another user"
    assert {event["_CAP_EFFECTIVE"] for event in started} == {"0"}


def test_what_the_helper_did_is_in_the_journal_with_who_asked(host: Installed) -> None:
    uid = host.run("id", "-u", "vigilhost").strip()
    said = [event["MESSAGE"] for event in host.events(HELPER)]
    assert f"run private: asked by user {uid}" in said
    assert "run private: exit status 0" in said
    assert any(one.startswith("refused: ") for one in said)
    assert SECRET not in "\n".join(said)


def test_nothing_is_left_running_or_failed(host: Installed) -> None:
    def left() -> str:
        return host.run("systemctl", "list-units", "--all", "--no-legend", HELPER, DRILL).strip()

    wait_until(lambda: not left(), "the helpers to be gone", every=0.2)
    assert host.run("systemctl", "--failed", "--no-legend") == ""
