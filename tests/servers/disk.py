"""A real ext4 file system of its own, small, on a loop device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.process import run
from tests.servers.programs import need


@contextmanager
def disk(image: Path, size: int, at: Path) -> Iterator[Path]:
    """Mount one of so many bytes, kept in the file `image`, on the directory `at`."""
    need("mkfs.ext4", "mount")
    with open(image, "wb") as file:
        file.truncate(size)
    run("mkfs.ext4", "-q", "-F", "-m", "0", image)
    run("mount", "-o", "loop", image, at)
    try:
        yield at
    finally:
        run("umount", "--lazy", at)
