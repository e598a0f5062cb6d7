"""LXD or Incus: exported instances and custom volumes, and the profiles, networks and pools that they need.

An exported instance holds neither its profiles nor its networks nor the volumes attached to it; without them a new
host cannot start it.
"""

from __future__ import annotations

import fnmatch
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from agent.core.options import option
from backup.assertions import Assertion, Outcome, judge, judge_all
from backup.children import Step
from backup.errors import BackupError, Damaged, Refused, SourceFailed
from backup.extract import copy
from backup.source import Facts, Restored, Stream, Work
from backup.sources.files import list_tar
from backup.sources.scratch import (
    cleaning_up,
    failed,
    give,
    is_throwaway,
    private_directory,
    read_up_to,
    throwaway_name,
)
from backup.trusted import check_program

_VOLUME, _SETTINGS = "volume/", "settings/"  # how the names of archives begin; no instance's can
_KINDS = ("profiles", "networks", "storage-pools")
_MOST_SETTINGS = 4 << 20
_ROOTS = {False: "backup/container/rootfs", True: "backup/volume"}


def _check_program(text: str) -> None:
    if text not in ("lxc", "incus") and not text.startswith("/"):
        raise ValueError("is no client; write lxc, incus, or an absolute path")


@dataclass(slots=True)
class LXD:
    """Backs up instances with their snapshots, custom volumes, profiles, networks and storage pools.

    An export is written to the worker's scratch directory first, which must have room for the largest instance.
    """

    program: str = option("lxc", "Client: lxc, incus, or the absolute path of one.", check=_check_program)
    project: str = option("default", "Project whose instances they are.")
    instances: list[str] = option(list, "Instances; none: all.", example="[web, mail]")
    exclude: list[str] = option(list, "Patterns of instances to leave out.", example='["test-*"]')
    snapshots: bool = option(True, "Whether instances keep their snapshots.")
    volumes: bool = option(True, "Whether custom volumes are exported too.")
    job: str = ""
    host: str = ""

    drills_apart: ClassVar[bool] = False  # it is imported where it came from
    restores_to_names: ClassVar[bool] = True  # pool/name is no path

    def describe(self, work: Work) -> Facts:
        if self.program.startswith("/"):
            check_program(self.program)
        known = {str(one["name"]): str(one.get("status", "")) for one in self._json(work, "list")}
        missing = [name for name in self.instances if name not in known]
        if missing:
            raise SourceFailed(f"{', '.join(missing)}: no such instance; correct source.lxd.instances")
        version = self._run(work, "version").strip()
        return Facts({"lxd": " ".join(version.split())},
                     {f"instance {name}": known[name] for name in self._names(known)})  # fmt: skip

    def streams(self, work: Work) -> Iterator[Stream]:
        for name in self._names([str(one["name"]) for one in self._json(work, "list")]):
            only = () if self.snapshots else ("--instance-only",)
            yield from self._exported(name, work, ("export", name), only)
        for pool, volume in self._volumes(work) if self.volumes else ():
            only = () if self.snapshots else ("--volume-only",)
            yield from self._exported(f"{_VOLUME}{pool}/{volume}", work,
                                      ("storage", "volume", "export", pool, volume), only)  # fmt: skip
        for kind in _KINDS:
            asked = f"/1.0/{kind}?recursion=1&project={self.project}"
            yield Stream(f"{_SETTINGS}{kind}", "json", (Step((self.program, "query", asked), user=work.user),))

    def _exported(self, name: str, work: Work, words: Sequence[str], flags: Sequence[str]) -> Iterator[Stream]:
        with private_directory(work, "export") as directory:
            file = os.path.join(directory, "export.tar")
            try:
                # Not compressed twice: its own gzip takes most of the time.
                self._run(work, *words, file, *flags, "--compression=none", "--quiet", f"--project={self.project}")
            except SourceFailed as error:
                yield failed(name, "tar", error)
                return
            yield Stream(name, "tar", (Step(("cat", file), user=work.user),))

    def _names(self, known: Sequence[str] | Mapping[str, str]) -> list[str]:
        wanted = self.instances or [name for name in sorted(known) if not name.startswith("vigilhost-drill-")]
        return [name for name in wanted if not any(fnmatch.fnmatchcase(name, one) for one in self.exclude)]

    def _volumes(self, work: Work) -> list[tuple[str, str]]:
        found = []
        for pool in self._json(work, "storage", "list"):
            for volume in self._json(work, "storage", "volume", "list", str(pool["name"])):
                if volume.get("type") == "custom" and volume.get("content_type") == "iso":
                    work.warn(f"{pool['name']}/{volume['name']}: an ISO image is left out; keep the file it came from")
                elif volume.get("type") == "custom" and not str(volume["name"]).startswith("vigilhost-drill-"):
                    found.append((str(pool["name"]), str(volume["name"])))
        return found

    # The client.

    def _run(self, work: Work, *words: str, kind: type[BackupError] = SourceFailed) -> str:
        return work.run(self.program, *words, kind=kind).decode("utf-8", "replace")

    def _json(self, work: Work, *words: str) -> list[dict[str, Any]]:
        said = self._run(work, *words, "--format=json", f"--project={self.project}")
        try:
            found = json.loads(said)
        except ValueError as error:
            raise SourceFailed(f"{self.program} {' '.join(words)}: answered with no JSON: {error}") from error
        if not isinstance(found, list):
            raise SourceFailed(f"{self.program} {' '.join(words)}: answered with no list")
        return found

    # What was exported.

    def decode_check(self, name: str, plain: int, work: Work) -> None:
        if name.startswith(_SETTINGS):
            _read_settings(plain)
        else:
            list_tar(plain, work)

    def restore(self, name: str, plain: int, to: str, work: Work, allow: frozenset[str]) -> Restored:
        """Import as the new instance `to`, or as the new volume `POOL/NAME`; settings become the file `to`.

        What is there is never replaced, whatever `allow` says: rename or delete it first.
        """
        if name.startswith(_SETTINGS):
            if os.path.lexists(to):
                raise Refused(f"{to}: is there already; restore elsewhere")
            return Restored(1, copy(plain, to, work.guard))
        with private_directory(work, "import") as directory:
            file = os.path.join(directory, "import.tar")
            size = copy(plain, file, work.guard)
            give(file, work)
            self._import(name, file, to, work)
        return Restored(1, size)

    def _import(self, name: str, file: str, to: str, work: Work) -> None:
        if not name.startswith(_VOLUME):
            if to in {str(one["name"]) for one in self._json(work, "list")}:
                raise Refused(f"{to}: there is such an instance; import it under another name, or delete that one")
            self._run(work, "import", file, to, f"--project={self.project}", "--quiet", kind=BackupError)
            return
        pool, slash, volume = to.partition("/")
        if not (slash and volume):
            raise Refused(f"{to}: is no volume; write it as pool/name")
        if volume in {str(one["name"]) for one in self._json(work, "storage", "volume", "list", pool)}:
            raise Refused(f"{to}: there is such a volume; import it under another name, or delete that one")
        self._run(work, "storage", "volume", "import", pool, file, volume, f"--project={self.project}", "--quiet",
                  kind=BackupError)  # fmt: skip

    def _delete(self, name: str, made: str, work: Work) -> None:
        """Remove what a drill imported; nothing there is no error."""
        with cleaning_up(work, made) as cleanup:
            if not name.startswith(_VOLUME):
                if made in {str(one["name"]) for one in self._json(cleanup, "list")}:
                    self._run(cleanup, "delete", "--force", made, f"--project={self.project}")
                return
            pool, _, volume = made.partition("/")
            if volume in {str(one["name"]) for one in self._json(cleanup, "storage", "volume", "list", pool)}:
                self._run(cleanup, "storage", "volume", "delete", pool, volume, f"--project={self.project}")

    def drill(self, name: str, plain: int, work: Work, assertions: Sequence[Assertion],
              estimates: Mapping[str, int]) -> list[Outcome]:  # fmt: skip
        """Import under a random name, which is deleted again. It is not started: it has the original's addresses."""
        if name.startswith(_SETTINGS):
            _read_settings(plain)
            return [Outcome("the settings are whole", is_met=True), *judge_all(assertions)]
        made = throwaway_name(self.host, self.job, "-")
        if name.startswith(_VOLUME):
            made = f"{name.removeprefix(_VOLUME).partition('/')[0]}/{made}"
        with private_directory(work, "drill") as directory:
            file = os.path.join(directory, "import.tar")
            copy(plain, file, work.guard)
            give(file, work)
            try:
                self._import(name, file, made, work)
                outcomes = [Outcome("it can be imported", is_met=True)]
            finally:
                self._delete(name, made, work)
            look = _finder(file, _ROOTS[name.startswith(_VOLUME)], work)
            for one in assertions:
                outcomes += [look(path) for path in one.file_exists]
                # What is asked beside files is answered as for anything that is no database: not met.
                files = {f"{path} exists" for path in one.file_exists}
                outcomes += [found for found in judge(one, now=0.0) if found.assertion not in files]
        return outcomes

    def sweep(self, work: Work) -> list[str]:
        removed = []
        try:
            names = [(str(one["name"]), str(one["name"])) for one in self._json(work, "list")]
            for pool in self._json(work, "storage", "list"):
                volumes = self._json(work, "storage", "volume", "list", str(pool["name"]))
                names += [(_VOLUME, f"{pool['name']}/{one['name']}") for one in volumes]
            for name, made in names:
                if is_throwaway(made.rpartition("/")[2], self.host, self.job, "-"):
                    self._delete(name, made, work)
                    removed.append(f"import {made}")
        except SourceFailed as error:
            work.warn(f"imports that a killed drill may have left were not looked for: {error}")
        return removed

    def recipe(self, name: str) -> str:
        if name.startswith(_SETTINGS):
            return f"cat > {name.removeprefix(_SETTINGS)}.json  # each entry: {self.program} profile edit NAME, ..."
        if name.startswith(_VOLUME):
            pool = name.removeprefix(_VOLUME).partition("/")[0]
            return f"cat > import.tar && {self.program} storage volume import {pool} import.tar NAME"
        return f"cat > import.tar && {self.program} import import.tar NAME"


def _read_settings(plain: int) -> None:
    try:
        found = json.loads(read_up_to(plain, _MOST_SETTINGS))
    except ValueError as error:
        raise Damaged(f"the settings are no JSON: {error}") from error
    if not isinstance(found, list):
        raise Damaged("the settings are no list")


def _finder(file: str, root: str, work: Work) -> Callable[[str], Outcome]:
    """Looks for paths in an export, below the instance's own root."""

    def look(path: str) -> Outcome:
        try:
            work.run("tar", "--list", f"--file={file}", f"{root}/{path.strip('/')}", kind=BackupError)
        except BackupError:
            work.guard.check()
            return Outcome(f"{path} exists", is_met=False, found="not there")
        return Outcome(f"{path} exists", is_met=True, found="there")

    return look
