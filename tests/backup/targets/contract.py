"""What every target promises, as checks that are given one; and what a whole host does with one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.core.secrets import Secret
from backup import catalogue
from backup.errors import Absent, TargetFailed
from backup.manifest import Manifest
from backup.target import Target, Upload
from backup.verify import verify
from tests.backup.hosts import HOST, BackedUp, built_source, tree
from tests.backup.made import archive, manifest

RUN = "web1/job/20260101T000000Z-aaaaaa"
NAME = f"{RUN}/files.tar"
MIB = 1 << 20
KEY = Secret("a key that seals")


def send(target: Target, name: str, content: bytes) -> None:
    upload = target.begin(name)
    for at in range(0, len(content), MIB):
        upload.write(content[at : at + MIB])
    upload.finish()
    upload.commit()


def write_on(upload: Upload, mebibytes: int) -> None:
    """Write much more and commit, for those that should fail before that."""
    for _ in range(mebibytes):
        upload.write(os.urandom(MIB))
    upload.commit()


def content_of(target: Target, name: str) -> bytes:
    with target.open(name) as file:
        return file.read()


def an_object_is_not_seen_before_it_is_committed(target: Target) -> None:
    content = os.urandom(12 * MIB + 17)
    upload = target.begin(NAME)
    for at in range(0, len(content), MIB):
        upload.write(content[at : at + MIB])
    upload.finish()
    assert list(target.names("web1/job")) == []
    upload.commit()
    assert list(target.names("web1/job")) == [NAME]
    upload.abort()  # does nothing any more
    assert content_of(target, NAME) == content


def it_is_read_as_a_file_is(target: Target) -> None:
    content = os.urandom(2 * MIB + 5)
    send(target, NAME, content)
    with target.open(NAME) as file:
        pieces = [file.read(10), file.read(MIB), file.read(3 * MIB), file.read(1)]
    assert [len(piece) for piece in pieces] == [10, MIB, MIB - 5, 0]
    assert b"".join(pieces) == content
    with target.open(NAME) as file:
        assert file.read(1) == content[:1]  # and is closed before its end


def an_aborted_one_leaves_nothing(target: Target) -> None:
    for size in (3, 12 * MIB):
        upload = target.begin(NAME)
        for _ in range(0, size, MIB):
            upload.write(b"x" * min(size, MIB))
        upload.abort()
        upload.abort()
    assert list(target.names("")) == []
    assert target.sweep("web1/job") == []


def nothing_is_overwritten_but_what_is_put(target: Target) -> None:
    send(target, NAME, b"old")
    with pytest.raises(TargetFailed, match="is there already"):
        send(target, NAME, b"new")
    assert content_of(target, NAME) == b"old"
    assert target.sweep("web1/job") in ([], [f"{RUN}/.part/files.tar"])
    for content in (b"one", b"two"):  # of the same size, within a second
        target.put(f"{RUN}/manifest.json", content)
        assert content_of(target, f"{RUN}/manifest.json") == content
    assert sorted(target.names(RUN)) == [NAME, f"{RUN}/manifest.json"]


def names_are_those_below_a_directory(target: Target) -> None:
    names = ["web1/job/a", "web1/job/b=c,d@e%20+f", "web1/job2/a", "web10/job/a"]
    for name in names:
        target.put(name, name.encode())
    assert sorted(target.names("web1/job")) == names[:2]
    assert sorted(target.names("web1")) == names[:3]
    assert sorted(target.names("")) == names
    assert list(target.names("web2/job")) == []
    assert [content_of(target, name).decode() for name in names] == names


def only_what_is_named_is_deleted(target: Target) -> None:
    names = [NAME, f"{NAME}2", f"{RUN}/files", f"{RUN}2/files.tar", "web1/other/files.tar"]
    for name in names:
        target.put(name, b"x")
    target.delete(NAME)
    target.delete(NAME)  # no error
    target.delete("web3/never/was")
    assert sorted(target.names("")) == sorted(names[1:])
    for name in names[1:3]:
        target.delete(name)
    assert sorted(target.names("")) == sorted(names[3:])


def what_is_not_there_cannot_be_opened(target: Target) -> None:
    target.put(f"{RUN}/manifest.json", b"x")
    for name in (NAME, f"{RUN}2/manifest.json"):
        with pytest.raises(Absent):
            content_of(target, name)


def names_that_lead_elsewhere_are_refused(target: Target) -> None:
    for name in ("", "/etc/passwd", "../x", "a/../../x", "a//b", ".hidden", "a/.part", "a\0b", "-rf", "a b", "a;b"):
        for call in (target.begin, target.open, target.delete, lambda name: target.put(name, b"")):
            with pytest.raises(ValueError, match="no name of a stored object"):
                call(name)


def a_catalogue_is_kept_and_only_the_deleted_backup_goes(target: Target) -> None:
    made = [manifest(number, 1_700_000_000.0 + number) for number in range(1, 4)]
    made = [replace(one, archives=(archive(prefix=one.prefix),)) for one in made]
    for one in made:
        send(target, one.archives[0].stored, one.id.encode())
        catalogue.write(target, one, KEY)
    pinned = replace(made[1], pinned=True)
    catalogue.write(target, pinned, KEY)
    found = catalogue.read(target, "web1/job", KEY)
    assert (found.manifests, found.damaged) == ((made[0], pinned, made[2]), ())
    catalogue.delete(target, made[0])
    assert catalogue.sweep(target, "web1/job") == []
    assert catalogue.read(target, "web1/job", KEY).manifests == (pinned, made[2])
    for one in made[1:]:
        assert content_of(target, one.archives[0].stored).decode() == one.id
    assert len(list(target.names(""))) == 4


CONTRACT: list[Callable[[Target], None]] = [
    an_object_is_not_seen_before_it_is_committed,
    it_is_read_as_a_file_is,
    an_aborted_one_leaves_nothing,
    nothing_is_overwritten_but_what_is_put,
    names_are_those_below_a_directory,
    only_what_is_named_is_deleted,
    what_is_not_there_cannot_be_opened,
    names_that_lead_elsewhere_are_refused,
    a_catalogue_is_kept_and_only_the_deleted_backup_goes,
]
each_promise = pytest.mark.parametrize("holds", CONTRACT, ids=lambda check: check.__name__)


# A whole host.


def far(host: BackedUp, name: str = "far") -> Target:
    """A target of the job that was written last, as a worker would have it."""
    target: Target = host.job_now.targets[name].build(job="job", host=HOST)
    return target


def job_to(host: BackedUp, options: dict[str, Any], **more: Any) -> None:
    """Write a job with a target `far` of these options."""
    host.job_now = host.job(targets={"far": options}, **more)


def backups(host: BackedUp, name: str = "far") -> list[Manifest]:
    found = catalogue.read(far(host, name), f"{HOST}/job", None)
    assert found.damaged == ()
    return list(found.manifests)


def fill(host: BackedUp, size: int = 3 * MIB) -> None:
    (host.source / "random").write_bytes(os.urandom(size))
    (host.source / "plain").write_text("some words\n" * 1000)


def comes_back(host: BackedUp, one: Manifest, to: Path, name: str = "far") -> None:
    """Verify a backup at level 3, restore it, and compare it with the source."""
    from backup.restore import parts, restore

    source, work = built_source(host.job_now), host.work()
    verified = verify(one, far(host, name), source, work, level=3, now=1.0)
    assert (verified.problems, verified.manifest.level) == ((), 3)
    restore(parts(one, str(to)), far(host, name), source, work)
    assert tree(to / str(host.source).lstrip("/")) == tree(host.source)


def keeps_two_and_restores(host: BackedUp, options: dict[str, Any], to: Path, **more: Any) -> None:
    """Three backups under a rule that keeps two, of sources that change."""
    job_to(host, options, retention={"keep_last": 2}, verification={"level": 3}, **more)
    made = []
    for _ in range(3):
        fill(host)
        ran = host.run()
        assert (ran.code, ran.result["status"], ran.result["level"]) == (0, "ok", 3), ran.result
        made.append(ran.result["backup"])
    kept = backups(host)
    assert [one.id for one in kept] == made[1:]
    stored = {one.stored_name for one in kept} | {one.archives[0].stored for one in kept}
    assert set(far(host).names("")) == stored
    comes_back(host, kept[-1], to)
