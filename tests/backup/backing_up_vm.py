"""An emulated machine that has vigilhost's package and makes backups as root, through the socket, like any host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.servers.debian_root import Recipe
from tests.servers.debian_vm import VOLUMES, DebianVm

STORE = "/srv/backup"


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
