"""Files as they were at one moment: from a snapshot of LVM, ZFS or btrfs, mounted read-only while tar reads it."""

# ruff: noqa: ARG001 - a source's methods, and the functions of each kind, take what any may need

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from agent.core.options import option, required
from agent.core.units import Bytes
from backup.assertions import Assertion, Outcome
from backup.errors import BackupError, SourceFailed
from backup.extract import RECIPE, extract, fresh
from backup.source import Facts, Restored, Stream, Work
from backup.sources.files import below_root, drill_tar, is_below, list_tar, tar_step, topmost
from backup.sources.scratch import cleaning_up, owner_tag

NAME = "files"
_SUBVOLUME_INODE = 256  # of the root of every subvolume of btrfs
_SYS_ADMIN = 21  # CAP_SYS_ADMIN's bit
_OCTAL = re.compile(r"\\([0-7]{3})")


def _check_path(path: str) -> None:
    if not path.startswith("/") or "/../" in f"{path}/":
        raise ValueError("is not a plain absolute path; begin it with / and leave out ..")


@dataclass(frozen=True, slots=True)
class Mount:
    """What is mounted where."""

    device: str
    directory: str
    kind: str  # of the file system: ext4, xfs, zfs, btrfs


@dataclass(slots=True)
class Snapshot:
    """Backs up directories and files as they were at one moment, from snapshots that live no longer than the backup."""

    paths: list[str] = required("Directories and files.", check=_check_path, example="[/srv/mail]")
    kind: Literal["lvm", "zfs", "btrfs"] = required("What makes the snapshots.", example="btrfs")
    exclude: list[str] = option(
        list, "Patterns: with / at the beginning a path, otherwise any name.", example='[/srv/mail/cache, "*.tmp"]'
    )
    size: Bytes = option(5 << 30, "LVM: room for what changes meanwhile; when it is used up the backup fails.",
                         minimum=4 << 20)  # fmt: skip
    job: str = ""
    host: str = ""

    drills_apart: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.paths:
            raise ValueError("paths: is empty; write at least one")

    def describe(self, work: Work) -> Facts:
        for path in self.paths:
            if not os.path.lexists(path):
                raise SourceFailed(f"{path}: no such file or directory; correct source.snapshot.paths")
        _check_rights()
        found = {mount.directory: mount for mount in map(self._origin, self.paths)}
        for mount in found.values():
            _COMMANDS[self.kind](self, mount, NAME, work)
        version = work.run("tar", "--version").decode("utf-8", "replace").splitlines()[0]
        notes = {"paths": ", ".join(self.paths), "snapshots": f"{self.kind} of {', '.join(found)}"}
        return Facts({"tar": version.rpartition(" ")[2]}, notes)

    def streams(self, work: Work) -> Iterator[Stream]:
        """One archive of all the paths. The snapshots are mounted below a directory as their origins are below /."""
        name = f"vigilhost-{owner_tag(self.host, self.job)}-{secrets.token_hex(4)}"
        # Beside the scratch directory: a new run empties that one, and must not meet a mount that a kill left.
        root = os.path.join(os.path.dirname(work.scratch.rstrip("/")), name)
        origins = {mount.directory: mount for mount in map(self._origin, self.paths)}
        self._warn_of_others(origins, work)
        with contextlib.ExitStack() as stack:
            os.mkdir(root, 0o700)
            stack.callback(os.rmdir, root)
            checks: list[Callable[[], None]] = []
            for _, origin in sorted(origins.items()):  # what is mounted inside another comes after it
                checks.append(stack.enter_context(self._mounted(origin, name, root, work)))

            is_judged = False

            def after() -> Sequence[str]:
                nonlocal is_judged
                is_judged = True
                for check in checks:
                    check()
                return ()

            names = map(below_root, topmost(self.paths))
            yield Stream(NAME, "tar", (tar_step(root, names, exclude=self.exclude, user=work.user),), after=after)
            if not is_judged:
                after()  # tar failed; of a snapshot without room it knows only that it cannot be read

    def _origin(self, path: str) -> Mount:
        """The volume that a path is in. Raise SourceFailed where it is none of that kind."""
        found = mount_of(os.path.realpath(path), read_mounts())
        if (found.kind in ("zfs", "btrfs") or self.kind != "lvm") and found.kind != self.kind:
            raise SourceFailed(f"{path}: is on {found.kind}, mounted at {found.directory}, and not on {self.kind}")
        if os.path.realpath(path) != os.path.normpath(path):
            raise SourceFailed(f"{path}: leads over a link to {os.path.realpath(path)}; name that")
        if self.kind != "btrfs":
            return found
        # What is in a subvolume may not be mounted there by itself.
        directory = path if os.path.isdir(path) else os.path.dirname(path)
        while os.lstat(directory).st_ino != _SUBVOLUME_INODE:
            directory = os.path.dirname(directory)
        return Mount(found.device, directory, found.kind)

    def _warn_of_others(self, origins: Mapping[str, Mount], work: Work) -> None:
        """Other mounts below the paths are in no snapshot, nor are the subvolumes of btrfs inside another."""
        found = {mount.directory: "is mounted there" for mount in read_mounts()}
        for origin in origins if self.kind == "btrfs" else ():
            listed = work.run("btrfs", "subvolume", "list", "-o", origin).decode("utf-8", "replace")
            for line in listed.splitlines():
                if (nested := _located(line.partition(" path ")[2], origin)) is not None:
                    found[nested] = "is a subvolume"
        for directory, what in found.items():
            if directory not in origins and any(is_below(directory, path) for path in self.paths):
                work.warn(f"{directory}: {what} and not in the snapshot; name a path in it, too")

    @contextlib.contextmanager
    def _mounted(self, origin: Mount, name: str, root: str, work: Work) -> Iterator[Callable[[], None]]:
        """A snapshot of one volume, mounted below `root`. What comes with it raises SourceFailed if it was no good."""
        with contextlib.ExitStack() as stack:
            make, mount, destroy, check = _COMMANDS[self.kind](self, origin, name, work)
            stack.callback(_undo, work, name, destroy)  # before it is made: a failure may have made it
            work.run(*make)
            place = os.path.normpath(f"{root}/{origin.directory}")
            os.makedirs(place, mode=0o700, exist_ok=True)
            stack.callback(_remove_directories, root, place)
            work.run(*mount, place)
            stack.callback(_undo, work, name, ("umount", place))
            yield check

    def decode_check(self, name: str, plain: int, work: Work) -> None:
        list_tar(plain, work)

    def restore(self, name: str, plain: int, to: str, work: Work, allow: frozenset[str]) -> Restored:
        """Extract into `to`. `allow`: `force`, and `links` and `setuid` as `backup.extract` has them."""
        with fresh(to, force="force" in allow) as directory:
            return extract(plain, directory, guard=work.guard, allow=allow)

    def drill(self, name: str, plain: int, work: Work, assertions: Sequence[Assertion],
              estimates: Mapping[str, int]) -> list[Outcome]:  # fmt: skip
        return drill_tar(plain, work, assertions)

    def sweep(self, work: Work) -> list[str]:
        """Unmount and destroy the snapshots of runs that were killed; they are known by their names."""
        pattern = re.compile(rf"vigilhost-{owner_tag(self.host, self.job)}-[0-9a-f]{{8}}")
        removed = []
        for mount in reversed(read_mounts()):
            if pattern.search(mount.directory):
                work.run("umount", mount.directory)
                removed.append(f"mount {mount.directory}")
        above = os.path.dirname(work.scratch.rstrip("/"))
        for left in os.listdir(above) if os.path.isdir(above) else ():
            if pattern.fullmatch(left):
                # Never a recursive removal: it holds empty directories, or else something is mounted there.
                for directory, _, _ in os.walk(os.path.join(above, left), topdown=False):
                    os.rmdir(directory)
        for name, destroy in _LEFT[self.kind](self, pattern, work):
            work.run(*destroy)
            removed.append(f"snapshot {name}")
        return removed

    def recipe(self, name: str) -> str:
        return RECIPE


def _check_rights() -> None:
    """Raise SourceFailed where we may not mount: what fails without it says something else."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        (held,) = (line.split()[1] for line in file if line.startswith("CapEff:"))
    if not int(held, 16) >> _SYS_ADMIN & 1:
        raise SourceFailed("snapshots need CAP_SYS_ADMIN, which this process has not; give it to the service with"
                           " the drop-in backup-snapshots.conf")  # fmt: skip


# Mounts.


def read_mounts(path: str = "/proc/self/mountinfo") -> list[Mount]:
    """Everything that is mounted, in the order in which it was."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.split() for line in file]
    return [Mount(_plain(words[words.index("-") + 2]), _plain(words[4]), words[words.index("-") + 1])
            for words in lines]  # fmt: skip


def _plain(word: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), word)


def mount_of(path: str, mounts: Sequence[Mount]) -> Mount:
    """The mount that a path is in: the deepest, and of several at one place the last. Raise SourceFailed."""
    around = [mount for mount in mounts if is_below(path, mount.directory)]
    if not around:
        raise SourceFailed(f"{path}: is in nothing that is mounted")
    deepest = max(len(mount.directory) for mount in around)
    return [mount for mount in around if len(mount.directory) == deepest][-1]


def _located(listed: str, origin: str) -> str | None:
    """Where a subvolume is that btrfs lists by its path from the top of the file system; None where it is not seen."""
    words = listed.split("/")
    for at in range(len(words)):
        found = os.path.join(origin, *words[at:])
        if os.path.isdir(found) and os.lstat(found).st_ino == _SUBVOLUME_INODE:
            return found
    return None


def _remove_directories(root: str, place: str) -> None:
    """Remove what was made for a mount point, as far up as it is empty."""
    while place != root:
        try:
            os.rmdir(place)
        except OSError:
            return  # another snapshot is mounted beside it, whose turn comes
        place = os.path.dirname(place)


def _undo(work: Work, name: str, argv: Sequence[str]) -> None:
    """Undo one thing; what fails is a warning, and the next run's to sweep."""
    with cleaning_up(work, name) as cleanup:
        try:
            cleanup.run(*argv)
        except BackupError as error:
            work.warn(f"{name}: is left behind until the next run: {error}")


# The three kinds: how a snapshot is made, mounted, destroyed, and known to be good; and which are left.

_Commands = tuple[Sequence[str], Sequence[str], Sequence[str], Callable[[], None]]
_Left = Iterator[tuple[str, Sequence[str]]]


def _fine() -> None:
    """These snapshots cannot run out of room."""


def _lvm(source: Snapshot, origin: Mount, name: str, work: Work) -> _Commands:
    try:
        (said,) = _lvs(work, origin.device)
    except (SourceFailed, ValueError) as error:
        raise SourceFailed(f"{origin.directory}: {origin.device} is no logical volume: {error}") from error
    group, volume = said["vg_name"], said["lv_name"]
    # Two origins may be in one run; each has a snapshot of its own name.
    made = f"{group}/{name}-{volume}"

    def check() -> None:
        (found,) = _lvs(work, made)
        # The fifth letter tells whether a snapshot is (in)valid or (S)uspended and so.
        if found["lv_attr"][4:5] in ("I", "S") or float(found["snap_percent"] or 0) >= 100:
            raise SourceFailed(f"{made}: more changed meanwhile than the snapshot has room for; raise size")

    # xfs refuses a second file system of the same identity.
    options = "ro,nouuid" if origin.kind == "xfs" else "ro"
    make = ("lvcreate", "--yes", "--snapshot", f"--size={source.size}b", f"--name={name}-{volume}", f"{group}/{volume}")
    mount = ("mount", f"--types={origin.kind}", f"--options={options}", f"/dev/{made}")
    return make, mount, ("lvremove", "--yes", made), check


def _lvs(work: Work, *which: str) -> list[dict[str, str]]:
    said = work.run("lvs", "--reportformat=json", "--options=vg_name,lv_name,lv_attr,snap_percent", *which)
    try:
        found: list[dict[str, str]] = json.loads(said)["report"][0]["lv"]
    except (ValueError, KeyError, IndexError) as error:
        raise SourceFailed(f"lvs: answered with something unknown: {said[:200]!r}") from error
    return found


def _left_lvm(source: Snapshot, pattern: re.Pattern[str], work: Work) -> _Left:
    for found in _lvs(work):
        if pattern.match(found["lv_name"]):
            made = f"{found['vg_name']}/{found['lv_name']}"
            yield made, ("lvremove", "--yes", made)


def _zfs(source: Snapshot, origin: Mount, name: str, work: Work) -> _Commands:
    made = f"{origin.device}@{name}"
    return ("zfs", "snapshot", made), ("mount", "--types=zfs", "--options=ro", made), ("zfs", "destroy", made), _fine


def _left_zfs(source: Snapshot, pattern: re.Pattern[str], work: Work) -> _Left:
    listed = work.run("zfs", "list", "-H", "-t", "snapshot", "-o", "name").decode("utf-8", "replace")
    for made in listed.splitlines():
        if pattern.fullmatch(made.rpartition("@")[2]):
            yield made, ("zfs", "destroy", made)


def _btrfs(source: Snapshot, origin: Mount, name: str, work: Work) -> _Commands:
    made = os.path.join(origin.directory, f".{name}")
    make = ("btrfs", "subvolume", "snapshot", "-r", origin.directory, made)
    # Seen where its origin is, so that names in the archive are those of the host.
    return make, ("mount", "--bind", "--options=ro", made), ("btrfs", "subvolume", "delete", made), _fine


def _left_btrfs(source: Snapshot, pattern: re.Pattern[str], work: Work) -> _Left:
    for path in source.paths:
        if not os.path.lexists(path):
            continue
        directory = source._origin(path).directory
        for left in os.listdir(directory):
            if left.startswith(".") and pattern.fullmatch(left[1:]):
                made = os.path.join(directory, left)
                yield made, ("btrfs", "subvolume", "delete", made)


_COMMANDS: Mapping[str, Callable[[Snapshot, Mount, str, Work], _Commands]] = {
    "lvm": _lvm, "zfs": _zfs, "btrfs": _btrfs,
}  # fmt: skip
_LEFT: Mapping[str, Callable[[Snapshot, re.Pattern[str], Work], _Left]] = {
    "lvm": _left_lvm, "zfs": _left_zfs, "btrfs": _left_btrfs,
}  # fmt: skip
