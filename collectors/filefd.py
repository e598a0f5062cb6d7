"""Files, inodes, dentries and asynchronous requests the kernel has open, and its limits, from /proc/sys/fs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host, KeptFile
from agent.core.model import Group, Reading, gauge
from agent.core.options import option
from agent.core.units import Seconds

SYSCTL_FS = Group("linux_sysctl_fs", (
    gauge("file_nr", "count", "Files open on the host.", influx="file-nr", prom="node_filefd_allocated"),
    gauge("file_max", "count", "Files that may be open.", influx="file-max", prom="node_filefd_maximum"),
    gauge("inode_nr", "count", "Inodes in memory.", influx="inode-nr"),
    gauge("inode_free_nr", "count", "Inodes in memory that are not in use.", influx="inode-free-nr"),
    gauge("inode_preshrink_nr", "count", "Not zero when inodes are being reclaimed.", influx="inode-preshrink-nr"),
    gauge("dentry_nr", "count", "Directory entries in memory.", influx="dentry-nr"),
    gauge("dentry_unused_nr", "count", "Directory entries in memory that are not in use.", influx="dentry-unused-nr"),
    gauge("dentry_age_limit", "count", "Seconds before unused entries may be reclaimed.", influx="dentry-age-limit"),
    gauge("dentry_want_pages", "pages", "Pages the system wants back.", influx="dentry-want-pages"),
    gauge("aio_nr", "count", "Asynchronous requests reserved.", influx="aio-nr"),
    gauge("aio_max_nr", "count", "Asynchronous requests that may be reserved.", influx="aio-max-nr"),
    gauge("dquot_nr", "count", "Disk quota entries (old kernels).", influx="dquot-nr"),
    gauge("dquot_max", "count", "Disk quota entries that may be (old kernels).", influx="dquot-max"),
    gauge("super_nr", "count", "Super blocks (old kernels).", influx="super-nr"),
    gauge("super_max", "count", "Super blocks that may be (old kernels).", influx="super-max"),
))  # fmt: skip

# Which columns of which file are wanted, in the order of the fields.
_COLUMNS = {
    "file-nr": (0, 2),
    "inode-state": (0, 1, 2),
    "dentry-state": (0, 1, 2, 3),
    **dict.fromkeys(("aio-nr", "aio-max-nr", "dquot-nr", "dquot-max", "super-nr", "super-max"), (0,)),
}


def parse_columns(text: bytes, columns: tuple[int, ...]) -> list[int | None]:
    """Numbers of these columns; None for one that is missing or no number."""
    words = text.split()
    numbers: list[int | None] = []
    for column in columns:
        try:
            numbers.append(int(words[column]))
        except (IndexError, ValueError):
            numbers.append(None)
    return numbers


@dataclass(slots=True)
class Filefd:
    """Open files, inodes and directory entries, and how many there may be."""

    name: ClassVar[str] = "filefd"
    groups: ClassVar[tuple[Group, ...]] = (SYSCTL_FS,)

    interval: Seconds = option(30.0, "Time between two readings.")
    host: Host = field(default_factory=Host)
    _files: list[tuple[KeptFile, tuple[int, ...]]] = field(init=False)

    def __post_init__(self) -> None:
        self._files = [(KeptFile(self.host.proc(f"sys/fs/{name}")), columns) for name, columns in _COLUMNS.items()]

    def collect(self) -> Iterator[Reading]:
        values: list[int | None] = []
        for file, columns in self._files:
            try:
                values += parse_columns(file.read(), columns)
            except SourceError:
                values += [None] * len(columns)
        if all(value is None for value in values):
            raise SourceMissing(f"{self.host.proc('sys/fs')}: none of its counters can be read")
        yield SYSCTL_FS.row((), tuple(values))
