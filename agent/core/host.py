"""Where the host's files are, and how hot ones are read.

In a container the host's /proc, /sys and / are mounted elsewhere; tests point these at a fixture tree.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from agent.core.errors import SourceError, SourceMissing


@dataclass(frozen=True, slots=True)
class Host:
    """Roots of the host's own trees, without trailing slash except for `/`."""

    proc_root: str = "/proc"
    sys_root: str = "/sys"
    root: str = "/"

    def proc(self, name: str) -> str:
        return f"{self.proc_root}/{name}"

    def sys(self, name: str) -> str:
        return f"{self.sys_root}/{name}"

    def file(self, absolute: str) -> str:
        """A path of the host's root file system, e.g. `/etc/os-release`."""
        return absolute if self.root == "/" else f"{self.root}{absolute}"


class KeptFile:
    """A small kernel file read again and again through one descriptor: pread costs half of open, read and close.

    The descriptor is opened at the first read, and once more when a read fails (a module was reloaded).
    """

    __slots__ = ("_fd", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1

    def read(self) -> bytes:
        """The whole file. Raise SourceMissing when it does not exist, SourceError when it cannot be read."""
        if self._fd >= 0:
            try:
                return self._pread_all()
            except OSError:
                self.close()
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            return self._pread_all()
        except (OSError, ValueError) as error:
            self.close()
            raise source_error(error) from error

    def _pread_all(self) -> bytes:
        # A seq file gives about a page per call however much is asked for, so only an empty answer is the end; half a
        # page is further from the limit than any record of the files read this way is long.
        data = os.pread(self._fd, 65536, 0)
        if len(data) < 2048:
            return data
        chunks, at = [data], len(data)
        while chunk := os.pread(self._fd, 65536, at):
            chunks.append(chunk)
            at += len(chunk)
        return b"".join(chunks)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()


def read_file(path: str) -> bytes:
    """A file read once. Raise SourceMissing when it does not exist, SourceError when it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise source_error(error) from error


def source_error(error: OSError | ValueError) -> SourceError:
    """The collector's error for a failed read: missing, or unreadable with the reason and the path.

    A ValueError is a path that cannot be one (a name with a NUL, read from a damaged file).
    """
    if isinstance(error, ValueError):
        return SourceError(str(error))
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    text = f"{error.filename}: {reason}" if error.filename else reason
    return SourceMissing(text) if isinstance(error, FileNotFoundError | NotADirectoryError) else SourceError(text)
