"""An emulated machine that has vigilhost's package and makes backups as root, through the socket, like any host."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.servers.debian_root import Recipe
from tests.servers.debian_vm import VOLUMES, DebianVm

STORE = "/srv/backup"
# In the place of tar, which it becomes: holds a backup whose snapshots are there while the test does something.
_HELD_TAR = """#!/bin/sh
case "$*" in *--create*)
  [ -e /run/hold ] && touch /dev/shm/held
  while [ -e /run/hold ]; do sleep 0.2; done ;;
esac
exec /usr/bin/tar "$@"
"""
_HOLD = "rm -f /dev/shm/held; touch /run/hold"
_AWAIT_HELD = "for _ in $(seq 600); do [ -e /dev/shm/held ] && break; sleep 0.2; done"


class BackingUpVm(DebianVm):
    """The agent is off, which nothing here needs: backups are asked for by hand."""

    def __init__(self, package: Path, recipe: Recipe = VOLUMES, disk: int = 1) -> None:
        """`disk`: MiB of the empty one, /dev/vdb."""
        super().__init__(package, recipe=recipe, disks=(disk,), masked="vigilhost.service")

    def start(self, port: int | None = None) -> None:
        super().start(port)
        self.run("mkdir", "-p", STORE)

    def job(self, name: str, source: dict[str, Any], **options: Any) -> None:
        targets = {"disk": {"type": "local", "path": STORE}}
        given = {"source": source, "targets": targets, "schedule": "never", "retention": "forever", **options}
        self.write(f"/etc/vigilhost/backup.d/{name}.yaml", yaml.safe_dump(given))

    def backup(self, *words: str) -> str:
        """What `vigilhost backup` prints. Raise ServerError where it fails."""
        return self.run("vigilhost", "backup", *words)

    def fails(self, *words: str) -> str:
        """What it says when it fails, which it must."""
        done = self.attempt("vigilhost", "backup", *words)
        assert done.returncode == 1, done
        return done.stderr

    def permit_snapshots(self) -> None:
        """As the drop-in itself says."""
        self.run("sh", "-ec", "cd /usr/share/doc/vigilhost/drop-ins; eval \"$(sed -n '/install -D/,/daemon-reload/"
                 "s/^# *//p' backup-snapshots.conf)\"")  # fmt: skip

    def left(self, listing: str, others: str) -> list[str]:
        """Snapshots of ours, whose names `listing` prints, and what is mounted of them. `others`: one that is not."""
        mounts = [line.split()[1] for line in self.run("cat", "/proc/mounts").splitlines()]
        return [name for name in (*self.run(*listing.split()).split(), *mounts)
                if "vigilhost-" in name and name != others]  # fmt: skip

    # Backups that are held between their snapshots and the reading of them.

    def hold_tar(self) -> None:
        """Have tar be held where a test says so."""
        self.write("/usr/local/sbin/tar", _HELD_TAR, "0755")

    def runs_while(self, job: str, meanwhile: str) -> subprocess.CompletedProcess[str]:
        """Run a job, and these commands when its snapshots are there but nothing was read of them."""
        aside = f"{_HOLD}; {{ {_AWAIT_HELD}; {meanwhile}; rm /run/hold; }} >&2 & "
        return self.attempt("sh", "-c", f"{aside} vigilhost backup run {job}; status=$?; wait; exit $status")

    def is_killed(self, job: str, state: str) -> None:
        """Run a job with a state directory of its own, and kill it when its snapshots are there; `let_go` follows."""
        self.run("sh", "-c", _HOLD)
        # As a child of the command: in the service the mounts would be its own, and gone with it.
        self.run("systemd-run", "--quiet", "--unit=run", "vigilhost", "backup", "run", job, "--state-dir", state)
        self.run("sh", "-c", _AWAIT_HELD)
        self.run("systemctl", "kill", "--signal=KILL", "run.service")

    def let_go(self) -> None:
        """Backups are held no longer."""
        self.run("rm", "/run/hold")
