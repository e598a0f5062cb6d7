"""What is asked of a Debian 12 that runs systemd, in a container or in a machine of its own."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Mapping

from tests.servers.process import Server, ServerError, wait_until

ENVIRONMENT = ("env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8")

PATIENCE_S = 180.0  # for a command, unless it is told otherwise


class Debian(Server):
    """Up once systemd is: `systemctl is-system-running`. What is run in it is root's unless told otherwise."""

    def ready(self) -> bool:
        return self.attempt("systemctl", "is-system-running").stdout.strip() == "running"

    def attempt(
        self, *argv: str, stdin: str | None = None, deadline: float = PATIENCE_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it, to its end, whatever its exit status."""
        raise NotImplementedError

    def run(self, *argv: str, user: str | None = None, stdin: str | None = None, deadline: float = PATIENCE_S) -> str:
        """Run a command in it as that user and return what it prints. Raise ServerError where it fails."""
        who = ["runuser", "-u", user, "--"] if user is not None else []
        done = self.attempt(*who, *argv, stdin=stdin, deadline=deadline)
        if done.returncode != 0:
            said = (done.stderr + done.stdout).strip()
            raise ServerError(f"{shlex.join(argv)} exited {done.returncode}: {said}")
        return done.stdout

    def write(self, path: str, text: str, mode: str = "0600") -> None:
        """A file of root's with that text; its directory is there."""
        self.run("sh", "-ec", 'cat >"$1"; chmod "$2" "$1"', "sh", path, mode, stdin=text)

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
