"""A disk in memory that fails where a test says so, and forgets at a power loss what was never synced."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field


class Crash(BaseException):
    """The process dies here."""


@dataclass(slots=True, eq=False)
class Inode:
    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""


class Disk:
    """A `Files` for one flat directory. Only the directory's own descriptor, which is locked, is a real one."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.names: dict[str, Inode] = {}
        self.durable_names: dict[str, Inode] = {}
        self.calls: list[str] = []
        self.before: Callable[[str], None] = lambda call: None  # may raise: the call is not made
        self.after: Callable[[str], None] = lambda call: None  # may raise: the call was made
        self.short: Callable[[], bool] = lambda: False  # the next write takes half only
        self.room = 1 << 40
        self.directory_fd = -1
        self.lost_pages = False
        self._open: dict[int, tuple[Inode, int]] = {}
        self._fds = itertools.count(100_000)

    def lose_power(self) -> None:
        """What was not synced has never been."""
        self.die()
        self.names = dict(self.durable_names)
        for inode in self.names.values():
            inode.data = bytearray(inode.durable)

    def lose_pages(self) -> None:
        """As after a failed fsync: what was not synced is gone, though the process lives on."""
        self.lost_pages = True
        for inode in self.names.values():
            inode.data = bytearray(inode.durable)

    def die(self) -> None:
        """The process ends without closing anything; the kernel keeps what it was given."""
        os.close(self.directory_fd)
        self._open.clear()
        self.before = self.after = lambda call: None
        self.short = lambda: False

    def content(self, name: str) -> bytes:
        return bytes(self.names[name].data)

    def _call(self, name: str) -> None:
        self.calls.append(name)
        self.before(name)

    def _inode(self, path: str) -> Inode:
        try:
            return self.names[os.path.basename(path)]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "no such file", path) from None

    def list(self, directory: str) -> list[str]:
        return list(self.names)

    def read(self, path: str, size: int = -1) -> bytes:
        data = self._inode(path).data
        return bytes(data if size < 0 else data[:size])

    def size(self, path: str) -> int:
        return len(self._inode(path).data)

    def open(self, path: str, flags: int) -> int:
        if flags & os.O_DIRECTORY:
            self.directory_fd = os.open(path, flags)
            return self.directory_fd
        self._call("open")
        name = os.path.basename(path)
        if flags & os.O_CREAT and name not in self.names:
            self.names[name] = Inode()
        inode = self._inode(path)
        if flags & os.O_TRUNC:
            inode.data.clear()
        fd = next(self._fds)
        self._open[fd] = (inode, flags)
        self.after("open")
        return fd

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return self._put(fd, data, None)

    def write_at(self, fd: int, data: bytes, offset: int) -> int:
        return self._put(fd, data, offset)

    def _put(self, fd: int, data: bytes | memoryview, offset: int | None) -> int:
        is_short = self.short()
        self._call("write")
        inode, _ = self._open[fd]
        start = len(inode.data) if offset is None else offset
        taken = len(data) // 2 if is_short else len(data)
        if len(inode.data) < start:
            inode.data.extend(bytes(start - len(inode.data)))
        inode.data[start : start + taken] = data[:taken]
        self.after("write")
        return taken

    def sync(self, fd: int) -> None:
        self._call("sync")
        inode, _ = self._open[fd]
        inode.durable = bytes(inode.data)
        self.after("sync")

    def sync_directory(self, fd: int) -> None:
        self._call("sync_directory")
        self.durable_names = dict(self.names)
        self.after("sync_directory")

    def close(self, fd: int) -> None:
        if fd == self.directory_fd:
            os.close(fd)
        else:
            del self._open[fd]

    def cut(self, path: str, size: int) -> None:
        self._call("cut")
        del self._inode(path).data[size:]
        self.after("cut")

    def rename(self, old: str, new: str) -> None:
        self._call("rename")
        self.names[os.path.basename(new)] = self._inode(old)
        del self.names[os.path.basename(old)]
        self.after("rename")

    def unlink(self, path: str) -> None:
        self._call("unlink")
        self._inode(path)
        del self.names[os.path.basename(path)]
        self.durable_names.pop(os.path.basename(path), None)  # the worst order: it is gone before anything else is safe
        self.after("unlink")

    def free_bytes(self, directory: str) -> int:
        return self.room - sum(len(inode.data) for inode in self.names.values())
