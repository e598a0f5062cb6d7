"""What must be there after a power failure."""

from __future__ import annotations

import os


def fsync_directory(path: str) -> None:
    """Make lasting what the names in a directory are. Raise OSError."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
