"""Volumes of Docker (or Podman): the files of each, as one tar archive, while those who write to it are held still.

A database in a volume wants its own kind of job: files of a running one are not a backup of it.
"""

from __future__ import annotations

import fnmatch
import io
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from agent.core.options import option
from agent.core.units import Seconds
from backup.assertions import Assertion, Outcome
from backup.errors import Refused, SourceFailed
from backup.extract import RECIPE, extract, fresh
from backup.source import Facts, Inventory, Restored, Stream, Work, matching
from backup.sources.docker_api import DockerAPI
from backup.sources.files import drill_tar, list_tar, tar_step
from backup.sources.scratch import Undo, failed, private_directory, read_up_to, rejoined

LABEL = "vigilhost.backup"
_VOLUME = "volume:"
_HEAD_BYTES = 128 << 10  # in which the first entry of an archive is
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")
_UNDOING = {"stop": "start", "pause": "unpause"}


@dataclass(slots=True)
class DockerVolume:
    """Backs up local volumes, each as one archive.

    Containers labelled `vigilhost.backup: stop` or `pause` are held still while their volumes are read, and go on
    afterwards; after a kill or a power failure the next run lets them go on.
    """

    volumes: list[str] = option(list, "Volumes; none: all that have a name.", example="[shop_data]")
    exclude: list[str] = option(list, "Patterns of volumes to leave out.", example='["*_cache"]')
    containers: Literal["label", "stop", "pause", "leave"] = option(
        "label", "Containers that use a volume: as their label says, stop all, pause all, or leave them running."
    )
    stop_grace: Seconds = option(30.0, "Time a container has to stop before it is killed.", minimum=0, maximum=3600)
    socket: str = option("/run/docker.sock", "Socket of the daemon.")
    job: str = ""
    host: str = ""

    drills_apart: ClassVar[bool] = True

    def describe(self, work: Work) -> Facts:
        api = DockerAPI(self.socket)
        version = api.version()
        found = self._wanted(api)
        notes = {f"volume {one['Name']}": _recipe_of(one) for one in found}
        for one in found:
            for container in api.users(one["Name"]):
                notes[f"container {_name_of(container)}"] = str(container.get("Config", {}).get("Image", ""))
        return Facts({"docker": version}, notes)

    def streams(self, work: Work) -> Iterator[Stream]:
        api = DockerAPI(self.socket)
        for volume in self._wanted(api):
            name = str(volume["Name"])
            held = _Held(api, Undo(work), work, round(self.stop_grace))
            try:
                for container in api.users(name):
                    if (how := self._how(container, work)) is not None:
                        held.hold(container, how)
                # They go on as soon as the volume is read, not after all of it was verified.
                yield Stream(name, "tar", (tar_step(str(volume["Mountpoint"]), iter(["."]), user=work.user),),
                             after=held.after_reading)  # fmt: skip
            except SourceFailed as error:
                yield failed(name, "tar", error)
            finally:
                held.release()

    def _how(self, container: Mapping[str, Any], work: Work) -> str | None:
        """What to do to a container: `stop`, `pause`, or None."""
        label = (container.get("Config", {}).get("Labels") or {}).get(LABEL)
        how = {"label": label, "leave": None}.get(self.containers, self.containers)
        if how is not None and how not in _UNDOING:
            raise SourceFailed(f"{_name_of(container)}: label {LABEL}: {how!r}; write stop or pause")
        if container.get("State", {}).get("Paused"):
            return None  # somebody else did, and it writes nothing
        if how == "stop" and container.get("HostConfig", {}).get("AutoRemove"):
            work.warn(f"{_name_of(container)}: would be removed when it stops (--rm); paused instead")
            return "pause"
        return how

    def decode_check(self, name: str, plain: int, work: Work) -> None:
        list_tar(plain, work)

    def restore(self, name: str, plain: int, to: str, work: Work, allow: frozenset[str]) -> Restored:
        """Extract into the directory `to`, or into a volume where `to` is `volume:NAME`, made if it is missing.

        `allow`: `force` moves aside what is there; `links` and `setuid` as `backup.extract` has them. A volume that a
        running container uses is refused always.
        """
        directory = to
        if to.startswith(_VOLUME):
            directory = self._free_volume(to.removeprefix(_VOLUME))
        with fresh(directory, force="force" in allow) as staging:
            head = read_up_to(plain, _HEAD_BYTES)
            with rejoined(head, plain, work) as whole:
                done = extract(whole, staging, guard=work.guard, allow=allow)
            _dress(staging, head)
        return done

    def _free_volume(self, name: str) -> str:
        api = DockerAPI(self.socket)
        volume = api.volume(name)
        if volume is not None and (users := api.users(name)):
            raise Refused(f"{name}: is used by {', '.join(map(_name_of, users))}; stop what uses it first")
        if volume is None:
            volume = api.create_volume(name)
        if (reason := _why_not(volume)) is not None:
            raise Refused(f"{name}: {reason}")
        return str(volume["Mountpoint"])

    def drill(self, name: str, plain: int, work: Work, assertions: Sequence[Assertion],
              estimates: Mapping[str, int]) -> list[Outcome]:  # fmt: skip
        with private_directory(work, "drill") as directory:
            return drill_tar(plain, replace(work, scratch=directory), assertions)

    def sweep(self, work: Work) -> list[str]:
        undo = Undo(work)
        entries = [entry for entry in undo.entries() if "container" in entry]
        held = _Held(DockerAPI(self.socket), undo, work, 0, list(entries))
        held.release()
        undone = [entry for entry in entries if entry not in held.entries]
        return [f"container {entry['name']}: {_UNDOING[entry['how']]}" for entry in undone]

    def recipe(self, name: str) -> str:
        return f"{RECIPE}  # the volume's directory: docker volume inspect --format '{{{{.Mountpoint}}}}' VOLUME"

    def inventory(self, work: Work) -> Inventory:
        api = DockerAPI(self.socket)
        there = frozenset(str(one["Name"]) for one in api.volumes() if _why_not(one) is None)
        there = frozenset(name for name in there if not _ANONYMOUS.fullmatch(name))
        known = matching(there, self.exclude) | frozenset(str(one["Name"]) for one in self._wanted(api))
        return Inventory("volume", f"docker at {self.socket}", there, known)

    def _wanted(self, api: DockerAPI) -> list[dict[str, Any]]:
        """The volumes to back up. Raise SourceFailed for a named one that is missing or not here."""
        known = {str(one["Name"]): one for one in api.volumes()}
        missing = [name for name in self.volumes if name not in known]
        if missing:
            raise SourceFailed(f"{', '.join(missing)}: no such volume; correct source.docker_volume.volumes")
        found = []
        for name in self.volumes or sorted(known):
            if any(fnmatch.fnmatchcase(name, one) for one in self.exclude):
                continue
            reason = _why_not(known[name])
            if reason is None and (self.volumes or not _ANONYMOUS.fullmatch(name)):
                found.append(known[name])
            elif reason is not None and self.volumes:
                raise SourceFailed(f"{name}: {reason}")
        if not found:
            raise SourceFailed("source.docker_volume.volumes: matches none that is local and has a name")
        return found


@dataclass(slots=True)
class _Held:
    """Containers that we stopped or paused. Each is noted before it is touched."""

    api: DockerAPI
    undo: Undo
    work: Work
    grace_s: int
    entries: list[dict[str, Any]] = field(default_factory=list)

    def hold(self, container: Mapping[str, Any], how: str) -> None:
        """Stop or pause a container. Raise SourceFailed."""
        self.work.guard.check()
        entry = {"container": str(container["Id"]), "name": _name_of(container), "how": how}
        self.undo.add(entry)
        self.entries.append(entry)
        self.api.change(entry["container"], how, self.grace_s)

    def after_reading(self) -> Sequence[str]:
        """As a stream wants it: what went wrong has been said."""
        self.release()
        return ()

    def release(self) -> None:
        """Let them all go on, the last one first; what could not stays noted, for the next attempt, with a warning."""
        stuck = []
        while self.entries:
            entry = self.entries.pop()
            try:
                self._release(entry)
            except SourceFailed as error:
                stuck.append(entry)
                self.work.warn(f"container {entry['name']}: cannot {_UNDOING[entry['how']]}: {error}")
            else:
                self.undo.done(entry)
        self.entries = stuck[::-1]

    def _release(self, entry: Mapping[str, Any]) -> None:
        container = self.api.container(entry["container"])
        if container is None:
            self.work.warn(f"container {entry['name']}: was removed meanwhile")
            return
        state = container.get("State", {})
        if entry["how"] == "pause" and not state.get("Paused"):
            return  # it was not paused yet, or somebody was faster
        self.api.change(entry["container"], _UNDOING[entry["how"]])


def _dress(directory: str, head: bytes) -> None:
    """Give a volume's own directory its owner and mode, on which what runs in a container depends.

    Its entry is the first of the archive.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(head), mode="r:") as tar:
            first = tar.next()
    except tarfile.TarError:
        return  # what is wrong was said by who read it all
    if first is not None and first.isdir() and first.name in (".", "./"):
        if os.geteuid() == 0:
            os.chown(directory, first.uid, first.gid)
        os.chmod(directory, first.mode & 0o3777)


def _why_not(volume: Mapping[str, Any]) -> str | None:
    """Why a volume's files are not in a directory of this host; None when they are."""
    if volume.get("Driver") != "local":
        return f"its driver is {volume.get('Driver')}; only local volumes are files of this host"
    kind = (volume.get("Options") or {}).get("type") or ""
    if kind not in ("", "none"):
        return f"is mounted ({kind}) only while a container uses it; back up what it mounts"
    return None


def _name_of(container: Mapping[str, Any]) -> str:
    return str(container.get("Name") or container["Id"][:12]).lstrip("/")


def _recipe_of(volume: Mapping[str, Any]) -> str:
    """What it takes to make the volume again."""
    return json.dumps({key: volume.get(key) or {} for key in ("Labels", "Options")}, sort_keys=True)
