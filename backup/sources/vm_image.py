"""Disks of virtual machines: those of libvirt's domains while they run, and image files that nobody writes to.

A running machine gets a disk-only snapshot: it writes to an overlay while what was its disk is copied, and then the
overlay is merged back. An image is copied by qemu-img, whose locks refuse one that is in use.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from agent.core.options import option
from backup.assertions import Assertion, Outcome, judge_all
from backup.children import Step
from backup.errors import BackupError, Damaged, Refused, SourceFailed
from backup.extract import copy
from backup.source import Facts, Inventory, Restored, Stream, Work
from backup.sources.scratch import (
    Undo,
    cleaning_up,
    failed,
    give,
    owner_tag,
    private_directory,
    read_up_to,
    remove_file,
)

_MOST_XML = 16 << 20
_MARK = ".vigilhost-"  # in the name of an overlay, behind that of its disk
_DISK = re.compile(r"^\s*(\S+)\s+(\S+)\s+(\S+)\s+(.*?)\s*$")


def _check_path(path: str) -> None:
    if not path.startswith("/"):
        raise ValueError("is not an absolute path; begin it with /")


@dataclass(frozen=True, slots=True)
class _Disk:
    """A disk of a domain: its name there (`vda`) and the file behind it."""

    target: str
    file: str


@dataclass(slots=True)
class VMImage:
    """Backs up virtual machines: each disk as a qcow2 image and each domain's definition, or plain image files.

    Copies are made in the worker's scratch directory first, which must have room for the largest disk.
    """

    domains: list[str] = option(list, "Domains of libvirt.", example="[web, mail]")
    images: list[str] = option(list, "Image files of machines that are off.", check=_check_path,
                               example="[/srv/vm/old.qcow2]")  # fmt: skip
    uri: str = option("qemu:///system", "Connection of libvirt.")
    quiesce: bool = option(False, "Have the guest's agent write out and hold its file systems; fails without one.")
    job: str = ""
    host: str = ""

    drills_apart: ClassVar[bool] = True

    def __post_init__(self) -> None:
        names = [os.path.basename(path) for path in self.images]
        if not (self.domains or self.images) or len(set(names)) < len(names):
            raise ValueError("names at least one of domains or images, and no two images of the same name")

    def describe(self, work: Work) -> Facts:
        versions = {"qemu-img": work.run("qemu-img", "--version").decode("utf-8", "replace").split()[2]}
        notes = {}
        for path in self.images:
            if not os.path.isfile(path):
                raise SourceFailed(f"{path}: no such file; correct source.vm_image.images")
        for domain in self.domains:
            notes[f"domain {domain}"] = self._virsh(work, "domstate", "--domain", domain).strip()
            for disk in self._disks(domain, work):
                notes[f"disk {domain}-{disk.target}"] = disk.file
        if self.domains:
            versions["libvirt"] = self._virsh(work, "version").splitlines()[0].rpartition(" ")[2]
        return Facts(versions, notes)

    def streams(self, work: Work) -> Iterator[Stream]:
        for domain in self.domains:
            try:
                yield from self._domain(domain, work)
            except SourceFailed as error:
                yield failed(domain, "qcow2", error)
        for path in self.images:
            yield from self._converted(os.path.basename(path), path, work)

    def _domain(self, domain: str, work: Work) -> Iterator[Stream]:
        disks = self._disks(domain, work)
        if not disks:
            raise SourceFailed(f"{domain}: has no disk that is a file; nothing of it can be copied")
        is_off = self._virsh(work, "domstate", "--domain", domain).strip() == "shut off"
        with self._on_overlays(domain, [] if is_off else disks, work):
            for disk in disks:
                yield from self._converted(f"{domain}-{disk.target}", disk.file, work)
        definition = ("virsh", "--connect", self.uri, "dumpxml", "--inactive", "--domain", domain)
        yield Stream(f"{domain}-definition", "xml", (Step(definition, user=work.user),))

    def _converted(self, name: str, image: str, work: Work) -> Iterator[Stream]:
        with private_directory(work, "image") as directory:
            file = os.path.join(directory, "disk.qcow2")
            try:
                work.run("qemu-img", "convert", "-O", "qcow2", image, file)
            except SourceFailed as error:
                yield failed(name, "qcow2", error)
                return
            yield Stream(name, "qcow2", (Step(("cat", file), user=work.user),))

    # libvirt.

    def inventory(self, work: Work) -> Inventory:
        listed = self._virsh(work, "list", "--all", "--name") if self.domains else ""
        return Inventory("domain", f"libvirt at {self.uri}", frozenset(listed.split()), frozenset(self.domains))

    def _virsh(self, work: Work, *words: str) -> str:
        return work.run("virsh", "--connect", self.uri, "--quiet", *words).decode("utf-8", "replace")

    def _disks(self, domain: str, work: Work) -> list[_Disk]:
        listed = self._virsh(work, "domblklist", "--details", "--domain", domain)
        found = [match.groups() for line in listed.splitlines() if (match := _DISK.match(line)) is not None]
        return [_Disk(target, file) for kind, device, target, file in found
                if kind == "file" and device == "disk" and file != "-"]  # fmt: skip

    @contextmanager
    def _on_overlays(self, domain: str, disks: Sequence[_Disk], work: Work) -> Iterator[None]:
        """Have a running domain write elsewhere meanwhile. No disks: it is off, and qemu-img's locks must do."""
        if not disks:
            yield
            return
        suffix = f"{_MARK}{owner_tag(self.host, self.job)}-{secrets.token_hex(4)}"
        entries = [{"domain": domain, "target": disk.target, "file": disk.file, "overlay": disk.file + suffix}
                   for disk in disks]  # fmt: skip
        undo = Undo(work)
        for entry in entries:
            undo.add(entry)
        try:
            specs = [
                word
                for disk in disks
                for word in ("--diskspec", f"{disk.target},snapshot=external,file={_escaped(disk.file + suffix)}")
            ]
            self._virsh(work, "snapshot-create-as", "--domain", domain, "--name", suffix[1:], "--disk-only", "--atomic",
                        "--no-metadata", *(["--quiesce"] if self.quiesce else []), *specs)  # fmt: skip
            yield
        finally:
            with cleaning_up(work, f"domain {domain}") as cleanup:
                for entry in entries:
                    self._merge(entry, undo, cleanup)

    def _merge(self, entry: Mapping[str, Any], undo: Undo, work: Work) -> str | None:
        """Bring a domain back from an overlay; what was done. What cannot be done now stays noted, with a warning."""
        domain, target, overlay = (str(entry[key]) for key in ("domain", "target", "overlay"))
        own = str(entry.get("file", overlay.rpartition(_MARK)[0]))
        try:
            before = self._file_of(domain, target, work)
            if before == overlay:
                self._abort_block_job(domain, target, work)
                # Down to the disk's own file and no further: what that lies on may be others' too.
                self._virsh(work, "blockcommit", "--domain", domain, "--path", target, "--base", own, "--active",
                            "--pivot", "--wait")  # fmt: skip
            now = self._file_of(domain, target, work)
        except SourceFailed as error:
            work.warn(f"{domain}: still writes to {overlay}: {error}; keep that file; the next run merges it, with the "
                      "domain running")  # fmt: skip
            return None
        if now != own and os.path.lexists(overlay):
            # The disk was detached, or a snapshot of somebody else lies on ours: what the domain wrote is in it.
            found = f"on {now}" if now else "not attached"
            work.warn(f"{domain}: {target} is {found}, not on {own}; keep {overlay}, which may hold what was written "
                      f"since; see that {own} has it, then remove that file")  # fmt: skip
            return None
        # Only now is nothing in it that the disk lacks.
        remove_file(overlay)
        undo.done(entry)
        return f"{domain}: {target} is back on its own file" if before == overlay else None

    def _file_of(self, domain: str, target: str, work: Work) -> str | None:
        return next((disk.file for disk in self._disks(domain, work) if disk.target == target), None)

    def _abort_block_job(self, domain: str, target: str, work: Work) -> None:
        """End a merge that a killed run had begun: a disk has one at a time."""
        if self._virsh(work, "blockjob", "--domain", domain, "--path", target, "--raw").strip():
            self._virsh(work, "blockjob", "--domain", domain, "--path", target, "--abort")

    def sweep(self, work: Work) -> list[str]:
        undo = Undo(work)
        done = [self._merge(entry, undo, work) for entry in undo.entries() if "overlay" in entry]
        return [text for text in done if text is not None]

    # What was copied.

    def decode_check(self, name: str, plain: int, work: Work) -> None:
        if _is_definition(name):
            _read_definition(plain)
            return
        with private_directory(work, "check") as directory:
            _receive(plain, directory, work)

    def restore(self, name: str, plain: int, to: str, work: Work, allow: frozenset[str]) -> Restored:
        """Write an image, or a definition, to the file `to`, or into the directory `to`. `allow`: `force` replaces."""
        file = os.path.join(to, f"{name}.{'xml' if _is_definition(name) else 'qcow2'}") if os.path.isdir(to) else to
        if os.path.lexists(file) and "force" not in allow:
            raise Refused(f"{file}: is there already; restore elsewhere, or replace it with --force")
        staging = f"{file}.restoring"
        remove_file(staging)
        try:
            size = copy(plain, staging, work.guard)
            if not _is_definition(name):
                _check_image(staging, work)
            os.rename(staging, file)
        finally:
            remove_file(staging)
        return Restored(1, size)

    def drill(self, name: str, plain: int, work: Work, assertions: Sequence[Assertion],
              estimates: Mapping[str, int]) -> list[Outcome]:  # fmt: skip
        """Restore the image and have qemu-img read every block of it; the machine is not started."""
        if _is_definition(name):
            _read_definition(plain)
            return [Outcome("the definition is whole", is_met=True), *judge_all(assertions)]
        with private_directory(work, "drill") as directory:
            file = _receive(plain, directory, work)
            work.run("qemu-img", "convert", "-O", "raw", file, os.path.join(directory, "disk.raw"), kind=BackupError)
            said = json.loads(work.run("qemu-img", "info", "--output=json", file, kind=BackupError))
            outcomes = [Outcome("every block can be read", is_met=True, found=f"{said['virtual-size']} bytes")]
            return outcomes + judge_all(assertions, root=directory)

    def recipe(self, name: str) -> str:
        if _is_definition(name):
            return f"cat > {name}.xml && virsh define {name}.xml"
        return f"cat > {name}.qcow2 && qemu-img check {name}.qcow2"


def _escaped(path: str) -> str:
    """A path in a list of virsh, where a comma ends the word unless it is doubled."""
    return path.replace(",", ",,")


def _is_definition(name: str) -> bool:
    return name.endswith("-definition")


def _read_definition(plain: int) -> None:
    content = read_up_to(plain, _MOST_XML).strip()
    if not (content.startswith(b"<domain") and content.endswith(b"</domain>")):
        raise Damaged("the definition of the domain is not whole")


def _receive(plain: int, directory: str, work: Work) -> str:
    """Write an image to a directory and check it; the file. Raise Damaged."""
    file = os.path.join(directory, "disk.qcow2")
    copy(plain, file, work.guard)
    give(file, work)
    _check_image(file, work)
    return file


def _check_image(file: str, work: Work) -> None:
    # Named, because a raw image would be right whatever it holds; and one may name other files as its base.
    try:
        said = json.loads(work.run("qemu-img", "info", "--output=json", "-f", "qcow2", file, kind=Damaged))
    except ValueError as error:
        raise Damaged(f"qemu-img: {error}") from error
    if "backing-filename" in said or "data-file" in json.dumps(said.get("format-specific", {})):
        raise Damaged("the image leads to another file")
    work.run("qemu-img", "check", "-q", "-f", "qcow2", file, kind=Damaged)
