"""Targets that are far: what is sent is decoded on the way, and samples come back."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, ClassVar

import pytest

from agent.core.clock import SystemClock
from backup import catalogue
from backup.children import Guard
from backup.errors import TargetFailed
from backup.job import Job
from backup.restore import parts, restore
from backup.run import Run
from backup.target import Upload
from tests.backup.hosts import HOST, BackedUp, built_source, tree

SPOILED = "spoiled"  # what a target does to a byte of everything


@dataclass
class FarAway:
    """A target that keeps objects in memory, and may spoil them."""

    path: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    opened: list[str] = field(default_factory=list)
    is_near: ClassVar[bool] = False

    def check(self) -> None:
        pass

    def begin(self, name: str) -> Upload:
        return Sending(self, name)

    def put(self, name: str, content: bytes) -> None:
        self.objects[name] = content

    def names(self, prefix: str) -> Iterator[str]:
        return iter([name for name in self.objects if name.startswith(prefix)])

    def open(self, name: str) -> BinaryIO:
        self.opened.append(name)
        return io.BytesIO(self.objects[name])

    def delete(self, name: str) -> None:
        self.objects.pop(name, None)

    def sweep(self, prefix: str) -> list[str]:
        return []

    def free_bytes(self) -> int | None:
        return None

    def fetch_command(self, name: str) -> list[str]:
        return ["fetch", name]


class Sending:
    def __init__(self, to: FarAway, name: str) -> None:
        self.to, self.name, self.content = to, name, b""

    def write(self, chunk: bytes) -> None:
        self.content += chunk

    def finish(self) -> None:
        if self.to.path == SPOILED:
            self.content = b"?" + self.content[1:]

    def reread(self) -> BinaryIO:
        raise TargetFailed("is far away")

    def commit(self) -> None:
        self.to.objects[self.name] = self.content

    def abort(self) -> None:
        pass


@dataclass
class Given:
    """A target's entry that has its object already."""

    target: FarAway
    name: str = "far"
    type: str = "far"
    options: dict[str, Any] = field(default_factory=dict)
    common: Any = None

    def build(self, **_: Any) -> FarAway:
        return self.target


def run_with(host: BackedUp, job: Job, target: FarAway) -> dict[str, Any]:
    """A run in this process that sends to the target alone."""
    far = replace(job, targets={"far": Given(target)})
    events: list[Any] = []
    run = Run(far, host=HOST, scratch=host.work().scratch, clock=SystemClock(), tell=events.append, guard=Guard(60))
    return run.execute()


@pytest.mark.parametrize("level", [0, 1, 2])
def test_what_is_far_is_not_downloaded_again_below_level_3(host: BackedUp, level: int) -> None:
    target = FarAway()
    result = run_with(host, host.job(verification={"level": level}), target)
    assert (result["status"], result["level"]) == ("ok", level)
    assert target.opened == []


def test_level_3_downloads_a_sample(host: BackedUp) -> None:
    target = FarAway()
    result = run_with(host, host.job(verification={"level": 3}), target)
    assert (result["status"], result["level"]) == ("ok", 3)
    assert [name.rpartition("/")[2] for name in target.opened] == ["files.tar.zst"]


def test_level_3_notices_what_the_target_spoiled(host: BackedUp) -> None:
    target = FarAway(SPOILED)
    result = run_with(host, host.job(verification={"level": 3}), target)
    assert result["status"] == "fail"
    assert "not those that were written" in result["error"]
    assert target.objects == {}


def test_what_cannot_be_decoded_on_the_way_is_not_sent(host: BackedUp) -> None:
    source = {"command": {"argv": ["/bin/echo", "no tar"], "check_argv": ["/usr/bin/tar", "-t"]}}
    target = FarAway()
    result = run_with(host, host.job(source=source), target)
    assert "does not look like a tar archive" in result["error"]
    assert target.objects == {}


def test_what_is_far_is_proved_while_it_is_fetched_and_restored_from_the_copy(host: BackedUp, tmp_path: Any) -> None:
    (host.source / "file").write_bytes(b"kept" * 10_000)
    job, target = host.job(), FarAway()
    run_with(host, job, target)
    (made,) = catalogue.read(target, f"{HOST}/job", None).manifests
    target.opened.clear()
    restore(parts(made, str(tmp_path / "to")), target, built_source(job), host.work())
    assert tree(tmp_path / "to" / str(host.source).lstrip("/")) == tree(host.source)
    assert target.opened == [made.archives[0].stored]
