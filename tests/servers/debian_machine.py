"""A Debian 12 of its own that boots a real systemd 252 in a container: services, sandboxes, sockets, journal.

It shares the kernel and nothing else: its own processes, network (loopback alone) and files, which are a layer in
memory above the cached root and gone when it halts. Limits of memory do not hold in it; the kernel's are not delegated.
"""

from __future__ import annotations

import contextlib
import secrets
import subprocess
from pathlib import Path

import psutil

from tests.servers.debian import ENVIRONMENT, PATIENCE_S, Debian
from tests.servers.debian_root import debian_root
from tests.servers.process import ServerError
from tests.servers.programs import need, need_root, program
from tests.servers.tcp_proxy import TcpProxy

_PROPAGATE = "/run/systemd/nspawn/propagate"  # nspawn leaves its directory there where /run is no tmpfs


def need_machines() -> None:
    """Skip the running test where no machine can be booted; with CI=true, fail it."""
    need("systemd-nspawn", "mmdebstrap", "nsenter")
    need_root("booting a machine in a container needs root")


class DebianMachine(Debian):
    """Booted by systemd-nspawn."""

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

    def attempt(
        self, *argv: str, stdin: str | None = None, deadline: float = PATIENCE_S
    ) -> subprocess.CompletedProcess[str]:
        inside = [program("nsenter"), "--target", str(self.init), "--all", "--", *ENVIRONMENT, *argv]
        given = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        return subprocess.run(inside, capture_output=True, text=True, timeout=deadline, check=False, **given)  # type: ignore[call-overload, no-any-return]

    def path(self, path: str) -> Path:
        """A file in it as seen from here; of no use where an absolute symbolic link is on the way."""
        return Path(f"/proc/{self.init}/root{path}")

    # Its network.

    def forward(self, port: int) -> int:
        """The port of ours that leads to that one of its loopback."""
        return self._between.enter_context(TcpProxy(port, target_of=self.init)).port

    def give(self, ours: int) -> int:
        """The port of its loopback that leads to that one of ours."""
        return self._between.enter_context(TcpProxy(ours, listens_for=self.init)).port
