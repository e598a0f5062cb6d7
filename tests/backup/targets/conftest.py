from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.programs import need
from tests.servers.rclone_s3 import RcloneS3, need_rclone


@pytest.fixture
def rclone_s3() -> Iterator[RcloneS3]:
    """A server and a bucket of the test's own: what one test leaves there is nothing to another."""
    need_rclone()
    with RcloneS3() as server:
        yield server


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB."""
    need("mount")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m,mode=0755", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)
