"""A Debian 12 of its own that boots a real systemd 252 in a container: services, sandboxes, sockets, journal.

It shares the kernel and nothing else: its own processes, network (loopback alone) and files, which are a layer in
memory above the cached root and gone when it halts. Limits of memory do not hold in it; the kernel's are not delegated.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psutil

from tests.servers.debian_root import debian_root
from tests.servers.process import Server, ServerError, wait_until
from tests.servers.programs import need, need_root, program
from tests.servers.tcp_proxy import TcpProxy

_PROPAGATE = "/run/systemd/nspawn/propagate"  # nspawn leaves its directory there where /run is no tmpfs
_ENVIRONMENT = ("env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8")


def need_machines() -> None:
    """Skip the running test where no machine can be booted; with CI=true, fail it."""
    need("systemd-nspawn", "mmdebstrap", "nsenter")
    need_root("booting a machine in a container needs root")


class DebianMachine(Server):
    """Up once systemd is: `systemctl is-system-running`. What is run in it is root's unless told otherwise."""

    name = "systemd-nspawn"

    def prepare(self) -> None:
        self.hostname = f"vh-{secrets.token_hex(4)}"  # several machines run at once
        self._root = debian_root()
        self._between = contextlib.ExitStack()

    def command(self) -> list[str | Path]:
        return [
            self.name, "--quiet", f"--directory={self._root}", f"--machine={self.hostname}", "--volatile=overlay",
            "--register=no", "--keep-unit", "--private-network", "--console=pipe",
            "--system-call-filter=adjtimex clock_adjtime",  # to read the clock's state, which hosts do not forbid
            "--boot",
        ]  # fmt: skip

    def ready(self) -> bool:
        return self.attempt("systemctl", "is-system-running").stdout.strip() == "running"

    def stop(self) -> None:
        """Halt it: services are stopped first. Everything that was written in it is gone."""
        self._between.close()
        super().stop()
        with contextlib.suppress(OSError):
            Path(_PROPAGATE, self.hostname).rmdir()

    # What is done in it.

    @property
    def init(self) -> int:
        """The process id, here, of its PID 1. Raise ServerError until there is one."""
        children = psutil.Process(self.pid).children()
        if not children:
            raise ServerError("the machine has no PID 1")
        return children[0].pid

    def attempt(self, *argv: str, stdin: str | None = None, deadline: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command in it, to its end, whatever its exit status."""
        inside = [program("nsenter"), "--target", str(self.init), "--all", "--", *_ENVIRONMENT, *argv]
        given = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        return subprocess.run(inside, capture_output=True, text=True, timeout=deadline, check=False, **given)  # type: ignore[call-overload, no-any-return]

    def run(self, *argv: str, user: str | None = None, stdin: str | None = None, deadline: float = 60.0) -> str:
        """Run a command in it as that user and return what it prints. Raise ServerError where it fails."""
        who = ["runuser", "-u", user, "--"] if user is not None else []
        done = self.attempt(*who, *argv, stdin=stdin, deadline=deadline)
        if done.returncode != 0:
            said = (done.stderr + done.stdout).strip()
            raise ServerError(f"{shlex.join(argv)} exited {done.returncode}: {said}")
        return done.stdout

    def path(self, path: str) -> Path:
        """A file in it as seen from here; of no use where an absolute symbolic link is on the way."""
        return Path(f"/proc/{self.init}/root{path}")

    # Its units and their journal.

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit, as systemctl shows them."""
        lines = self.run("systemctl", "show", unit, *(f"--property={name}" for name in properties)).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def events(self, unit: str, *matches: str, after: float = 0.0) -> list[Mapping[str, str]]:
        """What a unit wrote to the journal, oldest first; `matches` are `FIELD=value`, all of them.

        `after`: monotonic seconds, which are the machine's too; --after-cursor skips an entry where there are matches.
        """
        argv = ["journalctl", "--no-pager", "--quiet", "--output=json", f"--unit={unit}", *matches]
        found = [json.loads(line) for line in self.run(*argv).splitlines()]
        return [event for event in found if int(event["__MONOTONIC_TIMESTAMP"]) > after * 1e6]

    def await_event(self, unit: str, *matches: str, after: float = 0.0, deadline: float = 30) -> Mapping[str, str]:
        """The first such event, once it is there."""
        what = " ".join((unit, *matches))
        return wait_until(lambda: self.events(unit, *matches, after=after), what, deadline, every=0.1)[0]

    # Its network.

    def forward(self, port: int) -> int:
        """The port of ours that leads to that one of its loopback."""
        return self._between.enter_context(TcpProxy(port, target_of=self.init)).port

    def give(self, ours: int) -> int:
        """The port of its loopback that leads to that one of ours."""
        return self._between.enter_context(TcpProxy(ours, listens_for=self.init)).port
