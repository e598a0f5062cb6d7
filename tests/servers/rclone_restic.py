"""rclone's server for restic, as its owner runs it against thieves: what is there may be read and added to."""

from __future__ import annotations

import os

from tests.servers.process import LOOPBACK, Server, listens
from tests.servers.rclone_s3 import rclone


class RcloneRestic(Server):
    """One repository, which only locks can be removed from, in the directory `data_dir/repository`."""

    name = "rclone"

    def command(self) -> list[str]:
        where = [f"--addr={LOOPBACK}:{self.port}", str(self.data_dir / "repository")]
        return [rclone(), "serve", "restic", "--append-only", "--config", os.devnull, *where]

    def ready(self) -> bool:
        return listens(self.port)
