"""Directories and files, as one tar archive with access control lists, extended attributes and holes kept."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from agent.core.options import option, required
from backup.assertions import Assertion, Outcome, judge_all
from backup.children import Step
from backup.errors import Damaged, SourceFailed
from backup.extract import RECIPE, extract, fresh
from backup.source import Facts, Restored, Stream, Work

NAME = "files"
MOST_LISTED = 100  # changed files named in the manifest
# What tar says of a file that changed while it was read; its exit status is 1 then.
_CHANGED = re.compile(
    r"(?:/\S*/)?tar: (.*): (?:file changed as we read it|File removed before we read it|File shrank by .*)"
)
TAR = ("tar", "--create", "--file=-", "--format=posix", "--acls", "--xattrs", "--xattrs-include=*", "--sparse",
       "--blocking-factor=128")  # fmt: skip


def _check_path(path: str) -> None:
    if not path.startswith("/") or "/../" in f"{path}/":
        raise ValueError("is not a plain absolute path; begin it with / and leave out ..")


@dataclass(slots=True)
class Files:
    """Backs up directories and files. Files that change meanwhile are a warning, listed in the manifest."""

    paths: list[str] = required("Directories and files.", check=_check_path, example="[/etc, /home]")
    exclude: list[str] = option(
        list, "Patterns: with / at the beginning a path, otherwise any name.", example='[/var/cache, "*.tmp"]'
    )
    one_file_system: bool = option(False, "Leave out what is mounted inside them.")

    drills_apart: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.paths:
            raise ValueError("paths: is empty; write at least one")

    def describe(self, work: Work) -> Facts:
        for path in self.paths:
            if not os.path.lexists(path):
                raise SourceFailed(f"{path}: no such file or directory; correct source.files.paths")
        version = work.run("tar", "--version").decode("utf-8", "replace").splitlines()[0]
        return Facts({"tar": version.rpartition(" ")[2]}, {"paths": ", ".join(self.paths)})

    def streams(self, work: Work) -> Iterator[Stream]:
        changed: list[str] = []

        def heed(line: str) -> None:
            if (match := _CHANGED.fullmatch(line)) is not None and len(changed) < MOST_LISTED:
                changed.append(f"changed while it was read: {match[1]}")

        paths = topmost(self.paths, one_file_system=self.one_file_system)
        yield Stream(NAME, "tar", (tar_step("/", map(below_root, paths), exclude=self.exclude, user=work.user,
                     one_file_system=self.one_file_system, on_line=heed),), after=lambda: changed)  # fmt: skip

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
        return []

    def recipe(self, name: str) -> str:
        return RECIPE


def tar_step(directory: str, names: Iterator[str], *, exclude: Sequence[str] = (), user: str | None = None,
             one_file_system: bool = False, on_line: object = None) -> Step:  # fmt: skip
    """GNU tar of names below a directory (`./etc`) to its standard output; what changes meanwhile is a warning."""
    patterns = [f"--exclude=.{one}" for one in exclude if one.startswith("/")]
    anywhere = [f"--exclude={one}" for one in exclude if not one.startswith("/")]
    argv = [*TAR, *(["--one-file-system"] if one_file_system else []), f"--directory={directory}",
            "--anchored", *patterns, "--no-anchored", *anywhere, "--", *names]  # fmt: skip
    return Step(tuple(argv), user=user, warning_statuses=frozenset({1}), on_line=on_line)  # type: ignore[arg-type]


def list_tar(plain: int, work: Work) -> None:
    """Read a tar archive to its end. Raise Damaged."""
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        work.run("tar", "--list", "--file=-", stdin=plain, stdout=null, kind=Damaged)
    finally:
        os.close(null)


def drill_tar(plain: int, work: Work, assertions: Sequence[Assertion]) -> list[Outcome]:
    """Extract a tar archive in the scratch directory and look for files; nothing of it stays."""
    directory = os.path.join(work.scratch, "drill")
    try:
        with fresh(directory, force=False) as staging:
            done = extract(plain, staging, guard=work.guard, allow=frozenset({"links", "look"}))
        found = f"{done.count} members, {len(done.refused)} refused"
        return [Outcome("members can be extracted", not done.refused, found), *judge_all(assertions, root=directory)]
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def is_below(path: str, directory: str) -> bool:
    """Whether it is the directory, or in it, as the names tell."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def topmost(paths: Sequence[str], *, one_file_system: bool = False) -> list[str]:
    """Without those inside another: tar comes to them by itself, and takes a file that it meets twice for a link.

    It comes neither over a link nor, with `one_file_system`, to another one. Raise OSError for what is not there.
    """
    plain = list(dict.fromkeys(map(os.path.normpath, paths)))

    def is_reached(path: str, other: str) -> bool:
        if path == other or not is_below(path, other):
            return False
        at = os.path.dirname(path)
        while at != other and not os.path.islink(at):
            at = os.path.dirname(at)
        if os.path.islink(at):
            return False
        return not one_file_system or os.lstat(path).st_dev == os.lstat(other).st_dev

    return [path for path in plain if not any(is_reached(path, other) for other in plain)]


def below_root(path: str) -> str:
    """Of a plain absolute path, its name seen from the directory that stands for /."""
    return "." + path if path != "/" else "."
