"""The root helper as systemd starts it, without systemd: a connection on descriptor 3, and jobs that root wrote."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.backup.hosts import HOST, REPOSITORY, BackedUp
from tests.servers.process import wait_until
from tests.servers.programs import need

AGENT = "daemon"  # stands for the user vigilhost; a user that every Debian has
STRANGER = "nobody"


def helper_argv(host: BackedUp) -> list[str]:
    (host.directory / "vigilhost.yaml").write_text(f"hostname: {HOST}\n")
    return [sys.executable, "-P", "-m", "agent.cli.main", "backup-helper", "--config",
            str(host.directory / "vigilhost.yaml"), "--jobs", str(host.directory / "backup.d"), "--state-dir",
            str(host.directory / "state"), "--user", AGENT]  # fmt: skip


@contextmanager
def acting_as(user: str | None) -> Iterator[None]:
    """What the kernel notes of who connects is the effective user at that moment."""
    if user is not None:
        os.seteuid(pwd.getpwnam(user).pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)


@dataclass
class Asked:
    """A helper that was started for one connection, of which `mine` is our end."""

    process: subprocess.Popen[bytes]
    mine: socket.socket

    def hear(self, deadline_s: float = 60.0) -> list[dict[str, Any]]:
        """Everything it says until it hangs up."""
        self.mine.settimeout(deadline_s)
        said = b""
        while part := self.mine.recv(1 << 16):
            said += part
        return [json.loads(line) for line in said.splitlines()]

    def end(self) -> int:
        self.mine.close()
        return self.process.wait(60)


@contextmanager
def asked(host: BackedUp, request: bytes, user: str | None = None, prefix: Sequence[str] = ()) -> Iterator[Asked]:
    """A helper with a connection of `user` (None: root) that says `request`. `prefix`: a program that starts it."""
    with acting_as(user):
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with its:
        process = subprocess.Popen(
            # The shell becomes the helper, so that LISTEN_PID is right.
            ["/bin/sh", "-c", 'exec 3<&0 0</dev/null; LISTEN_PID=$$ exec "$@"', "sh", *prefix, *helper_argv(host)],
            stdin=its, stderr=subprocess.PIPE, cwd="/",
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "LISTEN_FDS": "1"},
        )  # fmt: skip
    mine.sendall(request)
    found = Asked(process, mine)
    try:
        yield found
    finally:
        mine.close()
        process.kill()
        process.communicate()


def say(host: BackedUp, request: bytes, user: str | None = None) -> tuple[list[dict[str, Any]], int]:
    """All that it answers to a request, and its exit status."""
    with asked(host, request, user) as one:
        return one.hear(), one.end()


class Activated:
    """systemd's own socket activation, one process a connection."""

    def __init__(self, place: Path, argv: list[str]) -> None:
        need("systemd-socket-activate")
        self.path = str(place / "s")
        self._process = subprocess.Popen(
            ["systemd-socket-activate", "--accept", f"--listen={self.path}", f"--setenv=PYTHONPATH={REPOSITORY}",
             *argv],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        wait_until(self._listens, "the socket")
        os.chmod(self.path, 0o666)

    def _listens(self) -> bool:
        # It is bound a moment before it listens, and a connection to try it would be answered.
        lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
        return any(words[3] == "00010000" and words[-1] == self.path for words in lines)

    def stop(self) -> None:
        """End it with all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
