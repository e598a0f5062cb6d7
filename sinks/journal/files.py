"""Every call the journal makes to the file system, in one place, so that tests can make each of them fail."""

from __future__ import annotations

import errno
import os
from typing import Any, Never, Protocol


class Files(Protocol):
    """What the journal needs of a file system. Every method raises OSError."""

    def list(self, directory: str) -> list[str]: ...
    def read(self, path: str, size: int = -1) -> bytes: ...
    def size(self, path: str) -> int: ...
    def open(self, path: str, flags: int) -> int: ...
    def write(self, fd: int, data: bytes | memoryview) -> int: ...
    def write_at(self, fd: int, data: bytes, offset: int) -> int: ...
    def sync(self, fd: int) -> None: ...
    def sync_directory(self, fd: int) -> None: ...
    def close(self, fd: int) -> None: ...
    def cut(self, path: str, size: int) -> None: ...
    def rename(self, old: str, new: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def free_bytes(self, directory: str) -> int: ...


class OsFiles:
    """The real file system."""

    def list(self, directory: str) -> list[str]:
        return os.listdir(directory)

    def read(self, path: str, size: int = -1) -> bytes:
        """The first `size` bytes of a file, all of it when negative."""
        with open(path, "rb", buffering=0) as file:
            return (file.readall() if size < 0 else file.read(size)) or b""

    def size(self, path: str) -> int:
        return os.stat(path).st_size

    def open(self, path: str, flags: int) -> int:
        return os.open(path, flags | os.O_CLOEXEC, 0o600)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return os.write(fd, data)

    def write_at(self, fd: int, data: bytes, offset: int) -> int:
        return os.pwrite(fd, data, offset)

    def sync(self, fd: int) -> None:
        os.fdatasync(fd)

    def sync_directory(self, fd: int) -> None:
        os.fsync(fd)

    def close(self, fd: int) -> None:
        os.close(fd)

    def cut(self, path: str, size: int) -> None:
        os.truncate(path, size)

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def free_bytes(self, directory: str) -> int:
        """What an unprivileged process may still write."""
        room = os.statvfs(directory)
        return room.f_bavail * room.f_frsize


def _refuse(*_: Any, **__: Any) -> Never:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


class NoFiles:
    """A file system where nothing can be kept: every change is refused, and there is nothing to read."""

    read = size = write = write_at = sync = sync_directory = cut = rename = unlink = free_bytes = staticmethod(_refuse)
    close = staticmethod(os.close)

    def list(self, _: str) -> list[str]:
        return []

    def open(self, path: str, flags: int) -> int:
        """The directory only, as something that can be locked and closed."""
        if not flags & os.O_DIRECTORY:
            _refuse(path)
        return os.memfd_create("vigilhost-journal")


def write_all(files: Files, fd: int, data: bytes) -> None:
    """Write the whole of `data`: a nearly full disk takes a part first and says ENOSPC on the next call."""
    left = memoryview(data)
    while left:
        taken = files.write(fd, left)
        if taken <= 0:
            raise OSError(errno.EIO, "the file system took no bytes and gave no error")
        left = left[taken:]
