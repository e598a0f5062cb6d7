"""Space and inodes of mounted file systems, from /proc/1/mountinfo and statvfs.

The dialects differ in which mounts they show (node_exporter has tmpfs, Telegraf has not) and how they name devices, so
each has its own rows. A mount on another machine or in a process of a user may hang whoever asks for it; those go
through `stat_remote`, which the daemon replaces with one that keeps a deadline.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol

from agent.core.errors import SourceError
from agent.core.host import Host, read_file
from agent.core.model import Failed, Field, Group, Reading, gauge
from agent.core.options import option
from agent.core.units import Seconds
from collectors.sysfs import as_text, compiled, read_text

# node_exporter's own defaults.
DEFAULT_MOUNT_POINTS_EXCLUDE = (
    r"^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)"
)
DEFAULT_FS_TYPES_EXCLUDE = (
    r"^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs|iso9660|mqueue|nsfs|overlay"
    r"|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|erofs|sysfs|tracefs)$"
)
# Telegraf's own default.
DEFAULT_IGNORE_FS = ("tmpfs", "devtmpfs", "devfs", "iso9660", "overlay", "aufs", "squashfs")

# Never have blocks, so Telegraf asks for them in vain; autofs would be mounted by asking.
_WITHOUT_BLOCKS = frozenset((
    "autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "fusectl", "mqueue", "nsfs",
    "proc", "pstore", "rpc_pipefs", "securityfs", "selinuxfs", "sysfs", "tracefs",
))  # fmt: skip
_REMOTE = re.compile(
    r"(nfs4?|cifs|smb3|smbfs|ncpfs|9p|virtiofs|ceph|glusterfs|afs|coda|lustre|beegfs|gpfs|gfs2?|ocfs2|orangefs|pvfs2"
    r"|fuse(blk)?(\..*)?)"
)
# The mount is not for us, or is gone already: an answer, not a failure that a later try could mend.
_LASTING = frozenset((errno.EACCES, errno.EPERM, errno.ENOENT))


class StatResult(Protocol):
    """What is needed of os.statvfs_result."""

    @property
    def f_frsize(self) -> int: ...
    @property
    def f_blocks(self) -> int: ...
    @property
    def f_bfree(self) -> int: ...
    @property
    def f_bavail(self) -> int: ...
    @property
    def f_files(self) -> int: ...
    @property
    def f_ffree(self) -> int: ...


# Raises OSError when the file system refuses, TimeoutError or SourceError when there was no answer in time.
Stat = Callable[[str], StatResult]


DISK = Group("disk", (
    gauge("total", "bytes", "Size of the file system.", influx="total", twin="node_filesystem_size_bytes"),
    gauge("free", "bytes", "Space users other than root can still use.", influx="free",
          twin="node_filesystem_avail_bytes"),
    gauge("used", "bytes", "Space in use.", influx="used"),
    gauge("used_percent", "percent", "100 * used / (used + free), as df shows it.", influx="used_percent"),
    gauge("inodes_total", "count", "Inodes there are.", influx="inodes_total", twin="node_filesystem_files"),
    gauge("inodes_free", "count", "Unused inodes.", influx="inodes_free", twin="node_filesystem_files_free"),
    gauge("inodes_used", "count", "Inodes in use.", influx="inodes_used"),
    gauge("inodes_used_percent", "percent", "100 * inodes_used / inodes_total.", influx="inodes_used_percent"),
), tags=("path", "device", "fstype", "mode", "label"))  # fmt: skip


def _node(name: str, unit: str, help: str) -> Field:
    return gauge(name, unit, help, prom=f"node_filesystem_{name}")


FILESYSTEM = Group("filesystem", (
    _node("size_bytes", "bytes", "Size of the file system."),
    _node("free_bytes", "bytes", "Unused space, what is reserved for root included."),
    _node("avail_bytes", "bytes", "Space users other than root can still use."),
    _node("files", "count", "Inodes there are."),
    _node("files_free", "count", "Unused inodes."),
    _node("readonly", "bool", "1 when the file system is mounted read-only."),
    _node("device_error", "bool", "1 when the file system could not be asked."),
), tags=("device", "device_error", "fstype", "mountpoint"))  # fmt: skip

MOUNT_INFO = Group("filesystem_mount_info", (
    gauge("info", "info", "The device behind the mount, value always 1.", prom="node_filesystem_mount_info"),
), tags=("device", "major", "minor", "mountpoint"))  # fmt: skip


class Mount(NamedTuple):
    """One line of mountinfo."""

    major: str
    minor: str
    point: bytes
    options: frozenset[bytes]  # of this mount
    fstype: str
    source: str
    super_options: frozenset[bytes]  # of the file system


_ESCAPE = re.compile(rb"\\([0-7]{3})")


def _unescape(word: bytes) -> bytes:
    r"""The kernel writes blanks, newlines and backslashes as \040, \012, \134."""
    if b"\\" not in word:
        return word
    return _ESCAPE.sub(lambda match: bytes((int(match[1], 8) & 0xFF,)), word)


def parse_mountinfo(text: bytes) -> list[Mount]:
    """The mounts, the last one on each mount point: it hides the others. Raise SourceError when a line is not one."""
    mounts: dict[bytes, Mount] = {}
    for line in text.splitlines():
        words = line.split(b" ")
        try:
            dash = words.index(b"-", 6)
            fstype, source, super_options = words[dash + 1 : dash + 4]
            major, _, minor = words[2].decode("ascii", "replace").partition(":")
            point = _unescape(words[4])
            if b"\0" in point + _unescape(source):
                raise ValueError("a NUL, which no path can hold")
            mounts.pop(point, None)  # so that it takes its place in the order of mounting
            mounts[point] = Mount(
                major, minor, point, frozenset(words[5].split(b",")), _text(fstype), _text(source),
                frozenset(super_options.split(b",")),
            )  # fmt: skip
        except ValueError as error:
            raise SourceError(f"mountinfo: {line[:80]!r} is not a mount") from error
    return list(mounts.values())


def _text(word: bytes) -> str:
    return _unescape(word).decode("utf-8", "replace")


@dataclass(slots=True)
class Disk:
    """Space and inodes of mounted file systems."""

    name: ClassVar[str] = "disk"
    groups: ClassVar[tuple[Group, ...]] = (DISK, FILESYSTEM, MOUNT_INFO)
    own_lane: ClassVar[bool] = True  # the first ask of a mount that hangs takes its whole deadline
    timeout: ClassVar[float] = 15.0  # a hundred dead mounts at once; only who is in this lane waits

    interval: Seconds = option(30.0, "Time between two readings.")
    ignore_fs: list[str] = option(
        lambda: list(DEFAULT_IGNORE_FS), "File system types that the `disk` measurement leaves out."
    )
    mount_points_exclude: str = option(
        DEFAULT_MOUNT_POINTS_EXCLUDE, "Regular expression of the mount points that node_filesystem_* leaves out."
    )
    fs_types_exclude: str = option(
        DEFAULT_FS_TYPES_EXCLUDE, "Regular expression of the file system types that node_filesystem_* leaves out."
    )
    max_mounts: int = option(1000, "Mounts measured at most; the others are reported as one failed target.", minimum=1)
    host: Host = field(default_factory=Host)
    stat_local: Stat = os.statvfs
    stat_remote: Stat = os.statvfs

    def __post_init__(self) -> None:
        compiled("mount_points_exclude", self.mount_points_exclude)
        compiled("fs_types_exclude", self.fs_types_exclude)

    def collect(self) -> Iterator[Reading | Failed]:
        mounts = self._mounts()
        remote_points = {mount.point for mount in mounts if _REMOTE.fullmatch(mount.fstype)}
        points_exclude = compiled("mount_points_exclude", self.mount_points_exclude)
        types_exclude = compiled("fs_types_exclude", self.fs_types_exclude)
        ignored = {*self.ignore_fs, *_WITHOUT_BLOCKS}
        measured = 0
        for mount in mounts:
            point = mount.point.decode("utf-8", "replace")
            for_telegraf = mount.fstype not in ignored
            for_node = not (types_exclude.search(mount.fstype) or points_exclude.search(point))
            if not (for_telegraf or for_node):
                continue
            measured += 1
            if measured <= self.max_mounts:
                stat = self.stat_remote if _is_below(mount.point, remote_points) else self.stat_local
                yield from self._read_mount(mount, point, stat, for_telegraf=for_telegraf, for_node=for_node)
        if measured > self.max_mounts:
            yield Failed("max_mounts", f"{measured} mounts; only the first {self.max_mounts} are measured")

    def _mounts(self) -> list[Mount]:
        try:
            text = read_file(self.host.proc("1/mountinfo"))
        except SourceError:
            text = read_file(self.host.proc("self/mountinfo"))  # reading that of PID 1 takes a privilege
        return parse_mountinfo(text)

    def _read_mount(self, mount: Mount, point: str, stat: Stat, *, for_telegraf: bool,
                    for_node: bool) -> Iterator[Reading | Failed]:  # fmt: skip
        is_read_only = int(b"ro" in mount.options or b"ro" in mount.super_options)
        try:
            result = stat(self.host.file(os.fsdecode(mount.point)))
        except (OSError, SourceError) as error:
            reason = _reason(error)
            if not (isinstance(error, OSError) and error.errno in _LASTING):
                yield Failed(point, reason)
            if for_node:
                yield FILESYSTEM.row(
                    (mount.source, reason, mount.fstype, point), (None, None, None, None, None, is_read_only, 1)
                )
            return
        # df counts in fragments, too; f_bsize is what reads should be done in, and another size on some FUSE systems.
        unit = result.f_frsize
        total, free, available = (blocks * unit for blocks in (result.f_blocks, result.f_bfree, result.f_bavail))
        if for_telegraf and total:
            yield self._telegrafs_row(mount, point, total, total - free, available, result.f_files, result.f_ffree)
        if for_node:
            yield FILESYSTEM.row(
                (mount.source, "", mount.fstype, point),
                (total, free, available, result.f_files, result.f_ffree, is_read_only, 0),
            )
            yield MOUNT_INFO.row((mount.source, mount.major, mount.minor, point), (1,))

    def _telegrafs_row(self, mount: Mount, point: str, total: int, used: int, free: int, inodes: int,
                       inodes_free: int) -> Reading:  # fmt: skip
        device, label = self._device_and_label(mount)
        mode = "rw" if b"rw" in mount.options else "ro" if b"ro" in mount.options else "unknown"
        inodes_used = inodes - inodes_free
        return DISK.row((point, device, mount.fstype, mode, label), (
            total, free, used, 100.0 * used / (used + free) if used + free > 0 else 0.0,
            inodes, inodes_free, inodes_used, 100.0 * inodes_used / inodes if inodes else 0.0,
        ))  # fmt: skip

    def _device_and_label(self, mount: Mount) -> tuple[str, str]:
        """Telegraf's device has no /dev/ in front; a device-mapper volume is `dm-0`, its name is the label."""
        source = mount.source
        if not source.startswith(("/dev/mapper/", "/dev/dm-")):
            return source.replace("/dev/", ""), ""
        # By number, because a sandbox may have no /dev; btrfs numbers its own, so then by the link after all.
        for path in (self.host.sys(f"dev/block/{mount.major}:{mount.minor}"), self.host.file(source)):
            name = as_text(os.path.basename(os.path.realpath(path)))
            if name.startswith("dm-"):
                return name, read_text(self.host.sys(f"block/{name}/dm/name")) or ""
        return source.replace("/dev/", ""), ""


def _is_below(point: bytes, remote_points: set[bytes]) -> bool:
    """True for a remote mount, and for a local one that is reached through it."""
    while remote_points:
        if point in remote_points:
            return True
        if point in (b"/", b""):
            break
        point = os.path.dirname(point)
    return False


def _reason(error: OSError | SourceError) -> str:
    """The `device_error` label: few different texts, or each would be a series of its own."""
    if isinstance(error, TimeoutError):
        return "mountpoint timeout"  # node_exporter's word
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return "unavailable"
