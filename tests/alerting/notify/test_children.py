"""exec and apprise: real child processes."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from agent.core.errors import Rejected, Retryable
from agent.core.secrets import Secret
from alerting.notify.apprise import Apprise
from alerting.notify.exec import Exec
from tests.alerting.notify.examples import DIGEST, FIRING
from tests.servers.process import alive, wait_until

FAKE_APPRISE = """
import json, os, pathlib
class Apprise:
    def add(self, url):
        self.url = url
        return url.startswith("good://")
    def notify(self, **message):
        pathlib.Path(os.environ["OUT"]).write_text(json.dumps(message))
        print("could not reach", self.url)
        return "down" not in self.url
"""


def script(tmp_path: Path, text: str) -> str:
    path = tmp_path / "script"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_program_gets_the_notification_as_json(tmp_path: Path) -> None:
    out = tmp_path / "out"
    program = script(tmp_path, f'cat > {out}; printf "$1 $GIVEN $HOME" > {out}.args')
    command = Exec([program, "x;y"], {"GIVEN": Secret("given")})
    assert command.send(FIRING, None).detail == "exit status 0"
    told = json.loads(out.read_text())
    assert (told["status"], told["messageId"], told["alerts"][0]["labels"]["instance"]) == ("firing", "7f3a", "db1")
    assert (tmp_path / "out.args").read_text() == "x;y given "  # no shell, and nothing of our own environment
    Exec([script(tmp_path, f"cat > {out}")]).send(DIGEST, None)
    assert [one["fired"] for one in json.loads(out.read_text())["digest"]] == [3, 1]


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("echo no modem >&2; exit 1", Retryable, "exited 1: no modem"),
        ("exit 75", Retryable, "exited 75"),
        ("exit 65", Rejected, "exited 65"),
        ("/nosuch/program", Rejected, "exited 127"),
        ("head -c 1000000 /dev/zero | tr '\\0' x; exit 3", Retryable, r"exited 3: x{500}$"),
        ("exec yes", Retryable, r"exited -13: (y ){249}y$"),  # it may say 4 MiB
    ],
)
def test_what_an_exit_status_means(tmp_path: Path, text: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Exec([script(tmp_path, text)]).send(FIRING, None)


def test_a_full_disk_can_be_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc")  # where, as on a full disk, no file can be made
    assert Apprise(Secret("good://canary"), python).send(FIRING, None).detail == "sent by apprise"
    assert Exec([script(tmp_path, "cat")]).send(FIRING, None).detail == "exit status 0"


def test_what_a_program_says_of_its_environment_is_not_shown(tmp_path: Path) -> None:
    command = Exec([script(tmp_path, 'echo "no such token: $TOKEN, try $N"; exit 1')],
                   {"TOKEN": Secret("s3cr3t-canary"), "N": Secret("1")})  # fmt: skip
    with pytest.raises(Retryable, match=r"exited 1: no such token: \*\*\*, try 1$"):
        command.send(FIRING, None)


def test_what_a_program_leaves_running_does_not_keep_us(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    daemon = f"setsid sh -c 'echo $$ > {pid_file}; exec sleep 60' &"
    command = Exec([script(tmp_path, f"{daemon}\nuntil test -s {pid_file}; do sleep 0.02; done")], deadline=30.0)
    try:
        assert command.send(FIRING, None).detail == "exit status 0"
    finally:
        os.kill(int(pid_file.read_text()), signal.SIGKILL)


def test_at_the_deadline_all_that_it_started_is_ended(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    command = Exec([script(tmp_path, f"sleep 60 & echo $! > {pid_file}; wait")], deadline=0.5)
    with pytest.raises(Retryable, match=r"took longer than 0\.5 s"):
        command.send(FIRING, None)
    wait_until(lambda: not alive(int(pid_file.read_text())), "the grandchild to end")


def test_a_program_that_others_can_change_is_not_run(tmp_path: Path) -> None:
    path = script(tmp_path, "true")
    os.chmod(path, 0o777)
    with pytest.raises(Rejected, match="writable by nobody else"):
        Exec([path]).send(FIRING, None)
    with pytest.raises(Rejected, match="No such file"):
        Exec(["/nosuch"]).send(FIRING, None)
    with pytest.raises(ValueError, match="begins with an absolute path"):
        Exec(["mail", "me"])


@pytest.fixture
def python(tmp_path: Path) -> str:
    """A Python that has an apprise."""
    (tmp_path / "apprise.py").write_text(FAKE_APPRISE)
    here = f"OUT={tmp_path}/out PYTHONPATH={tmp_path}"
    return script(tmp_path, f'test "$1" = -I && {here} exec {sys.executable} -P "$2"')


def test_apprise_is_told_in_a_child(tmp_path: Path, python: str) -> None:
    assert Apprise(Secret("good://canary"), python).send(FIRING, None).detail == "sent by apprise"
    told = json.loads((tmp_path / "out").read_text())
    assert (told["title"], told["notify_type"]) == ("[FIRING:2] DiskFull critical", "failure")
    assert "apprise" not in sys.modules


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("good://down-canary", Retryable, r"exited 75: could not reach \*\*\*"),
        ("bad://canary", Rejected, "does not understand the address"),
    ],
)
def test_what_apprise_says(python: str, url: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        Apprise(Secret(url), python).send(FIRING, None)
    assert "canary" not in str(caught.value)


def test_a_python_without_apprise_is_refused_once_and_for_all(tmp_path: Path) -> None:
    bare = script(tmp_path, f'exec {sys.executable} -S -P "$2"')  # no site-packages
    with pytest.raises(Rejected, match="apprise is not installed"):
        Apprise(Secret("good://x"), bare).send(FIRING, None)
