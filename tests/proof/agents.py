"""The real agent as the proofs treat it: killed, stopped, given another clock or a disk of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.control import SOCKET_NAME, ask
from tests.servers.process import ServerError, wait_until
from tests.servers.vigilhost import ROOT, Vigilhost

FEW_COLLECTORS = """\
collectors:
  others: false
  agent: {interval: 1s}
  cpu: {interval: 1s}
  memory: {interval: 1s}
  net: {interval: 1s}
"""


class Agent(Vigilhost):
    """`wrapper` is a command line that runs the agent as its last words, with the same process id (`env`, `unshare`).

    `awaits_ready`: False to go on as soon as the process exists. `fixes_address`: False to leave `listen` to the
    configuration, in which PORT stands for the port.
    """

    def __init__(self, config: str = "{}", *options: str, wrapper: Sequence[str] = (), awaits_ready: bool = True,
                 fixes_address: bool = True) -> None:  # fmt: skip
        super().__init__(config, *options)
        self.wrapper = wrapper
        self.awaits_ready = awaits_ready
        self.fixes_address = fixes_address

    def command(self) -> list[str | Path]:
        argv = super().command()
        if not self.fixes_address:
            self.write_config(self.config.replace("PORT", str(self.port)))
            argv = [word for word in argv if not str(word).startswith("--listen=")]
        return [*self.wrapper, *argv]

    def ready(self) -> bool:
        return not self.awaits_ready or super().ready()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def ended(self, deadline: float) -> int:
        """Its exit status once it ends by itself (negative: the signal that ended it).

        Raise subprocess.TimeoutExpired when it does not; a `with` block then ends it the hard way.
        """
        if self._child is None:
            raise ServerError("the agent is not running")
        status = self._child.wait(deadline)
        self._child = None
        return status

    def is_running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def ask(self, command: str, **arguments: Any) -> Any:
        """Over the control socket. Raise ControlError when it refuses."""
        return ask(str(self.state_dir / SOCKET_NAME), command, **arguments)

    @staticmethod
    def cli(*words: str) -> subprocess.CompletedProcess[str]:
        """A `vigilhost` command, to its end."""
        argv = [sys.executable, "-m", "agent.cli.main", *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)

    def complaints(self) -> list[str]:
        """Lines of its log that no healthy agent writes: tracebacks and what Python says on its own."""
        return [line for line in self.log.splitlines() if "Traceback" in line or "Exception" in line]

    def skipped(self, collector: str) -> int:
        """Slots it had to skip because it or the machine was late."""
        return int(self.health()["collectors"][collector]["skipped"])

    def settled(self, *collectors: str, deadline: float = 20.0) -> None:
        """Wait until each of these has given readings."""

        def have_run() -> bool:
            found = self.health()["collectors"]
            return all(found[name]["last_success"] for name in collectors)

        wait_until(have_run, f"{', '.join(collectors)} to have run", deadline)


def own_disk(state_dir: Path, options: str) -> list[str]:
    """A wrapper: the agent in a mount namespace of its own, its state directory on a tmpfs with these options."""
    how = ["-m"] if os.geteuid() == 0 else ["-Urm"]
    script = f'mount -t tmpfs -o {options},mode=700 tmpfs "$0" && exec "$@"'
    # a temporary directory of its own too: an agent that is killed leaves things there
    return ["env", f"TMPDIR={state_dir.parent}", "unshare", *how, "sh", "-c", script, str(state_dir)]


def read_only_host() -> list[str]:
    """A wrapper: the agent in a mount namespace of its own where nothing can be written, not even to a tmpfs."""
    how = ["-m"] if os.geteuid() == 0 else ["-Urm"]
    each = 'while read -r _ at _; do mount -o remount,bind,ro "$at" 2>/dev/null; done < /proc/self/mounts'
    return ["unshare", *how, "sh", "-c", f'{each}; exec "$@"', "sh"]


def seen_by(agent: Agent, path: Path) -> Path:
    """A path as the agent's mount namespace has it."""
    return Path(f"/proc/{agent.pid}/root{path}")


def in_namespace_of(agent: Agent, *argv: str) -> bool:
    """Run a command in the agent's mount namespace; whether it succeeded."""
    user = [] if os.geteuid() == 0 else ["-U", "--preserve-credentials"]
    done = subprocess.run(["nsenter", "-t", str(agent.pid), "-m", *user, "--", *argv], capture_output=True, timeout=20)
    return done.returncode == 0
