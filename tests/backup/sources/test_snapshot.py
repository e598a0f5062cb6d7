"""Files from snapshots: real btrfs on a loop device, and scripted stand-ins for commands that fail.

test_lvm.py has LVM, which needs a kernel of its own.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from backup import children
from backup.errors import BackupError
from backup.source import Work
from backup.sources.scratch import owner_tag
from backup.sources.snapshot import Mount, Snapshot, mount_of, read_mounts
from tests.backup.hosts import HOST, BackedUp, ended, tree
from tests.backup.sources.round import Round, outcomes, unmet
from tests.servers.process import run, wait_until
from tests.servers.programs import need

TAG = owner_tag(HOST, "job")


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A btrfs file system, mounted, with a subvolume `mail` in it."""
    need("mkfs.btrfs", "btrfs", "losetup", "mount")
    image, directory = tmp_path / "image", tmp_path / "volume"
    with open(image, "wb") as file:
        file.truncate(128 << 20)
    run("mkfs.btrfs", "--quiet", "--mixed", image)
    directory.mkdir()
    run("mount", "-o", "loop", image, directory)
    try:
        run("btrfs", "subvolume", "create", directory / "mail")
        (directory / "mail" / "box").mkdir()
        (directory / "mail" / "box" / "letter").write_text("dear reader")
        yield directory
    finally:
        for mount in reversed(read_mounts()):
            if mount.directory.startswith(str(tmp_path)):
                run("umount", "--lazy", mount.directory)


def mounts_below(directory: Path) -> list[str]:
    return [mount.directory for mount in read_mounts() if mount.directory.startswith(str(directory))]


def test_files_come_back_as_they_were_when_the_backup_began(host: BackedUp, tmp_path: Path, volume: Path) -> None:
    mail = volume / "mail"
    before = tree(mail)
    round_ = Round(host, host.job(source={"snapshot": {"paths": [str(mail)], "kind": "btrfs"}}))
    manifest = round_.back_up()
    assert [(one.name, one.level) for one in manifest.archives] == [("files", 2)]
    assert host.run().result["warnings"] == []
    assert [name for name in os.listdir(mail) if name.startswith(".")] == []
    assert mounts_below(tmp_path) == [str(volume)]
    shutil.rmtree(mail / "box")
    round_.restore(str(tmp_path / "again"))
    assert tree(tmp_path / "again" / str(mail).lstrip("/")) == before
    assert (evidence := round_.drill({"file_exists": [f"{mail}/box/letter"]})).is_passed, unmet(evidence)
    assert not outcomes(round_.drill({"file_exists": ["etc"]}), "files").get("etc exists")


def test_what_is_written_meanwhile_is_not_in_the_backup(host: BackedUp, volume: Path) -> None:
    letter = volume / "mail" / "box" / "letter"
    source = Snapshot([str(letter.parent)], "btrfs", job="job", host=HOST)
    work = host.work()
    streams = source.streams(work)
    stream = next(streams)
    letter.write_text("changed")
    (step,) = stream.steps
    content = children.run(step, work.guard, work.redact)
    assert stream.after() == ()
    streams.close()  # type: ignore[attr-defined]
    assert b"dear reader" in content
    assert b"changed" not in content
    assert mounts_below(host.directory) == [str(volume)]
    assert sorted(os.listdir(volume / "mail")) == ["box"]


def test_a_snapshot_is_read_only_where_it_is_mounted(host: BackedUp, volume: Path) -> None:
    streams = Snapshot([str(volume / "mail")], "btrfs", job="job", host=HOST).streams(host.work())
    next(streams)
    (place,) = [mount for mount in mounts_below(host.directory) if mount != str(volume)]
    with pytest.raises(OSError, match="Read-only"):
        Path(place, "x").write_text("x")
    streams.close()  # type: ignore[attr-defined]


def test_subvolumes_inside_are_a_warning(host: BackedUp, volume: Path) -> None:
    run("btrfs", "subvolume", "create", volume / "mail" / "archive")
    run("btrfs", "subvolume", "create", volume / "other")
    job = host.job(source={"snapshot": {"paths": [str(volume / "mail")], "kind": "btrfs"}})
    Round(host, job).back_up()
    assert host.run().result["warnings"] == [
        f"{volume}/mail/archive: is a subvolume and not in the snapshot; name a path in it, too"
    ]
    both = [str(volume / "mail" / "box"), str(volume / "mail" / "archive"), str(volume / "other")]
    host.job(source={"snapshot": {"paths": both, "kind": "btrfs"}})
    done = host.run()
    assert (done.code, done.result["warnings"]) == (0, [])
    assert mounts_below(host.directory) == [str(volume)]


def test_a_volume_inside_another_is_in_the_backup_once(host: BackedUp, tmp_path: Path, volume: Path) -> None:
    mail = volume / "mail"
    run("btrfs", "subvolume", "create", mail / "archive")
    (mail / "archive" / "old").write_text("letter")
    before = tree(mail)
    round_ = Round(host, host.job(source={"snapshot": {"paths": [str(mail), f"{mail}/archive"], "kind": "btrfs"}}))
    round_.back_up()
    (restored,) = round_.restore(str(tmp_path / "again"))
    assert not restored.refused
    assert tree(tmp_path / "again" / str(mail).lstrip("/")) == before


def test_after_a_kill_the_next_run_unmounts_and_destroys_what_was_left(host: BackedUp, volume: Path) -> None:
    mail = volume / "mail"
    (mail / "large").write_bytes(os.urandom(4 << 20))
    source = {"snapshot": {"paths": [str(mail)], "kind": "btrfs"}}
    host.job(source=source, limits={"rate": "1KiB"})
    worker = host.start()
    wait_until(lambda: len(mounts_below(host.directory)) > 1, "the snapshot")
    worker.send_signal(signal.SIGKILL)
    ended(worker)
    assert len(mounts_below(host.directory)) > 1
    assert any(name.startswith(f".vigilhost-{TAG}-") for name in os.listdir(mail))

    host.job(source=source)
    done = host.run()

    assert done.code == 0, done.result
    assert {event["what"].split()[0] for event in done.events if event["event"] == "swept"} >= {"mount", "snapshot"}
    assert mounts_below(host.directory) == [str(volume)]
    assert sorted(os.listdir(mail)) == ["box", "large"]
    assert os.listdir(host.directory / "state" / "scratch") == []


@pytest.mark.parametrize(("path", "sentence"), [
    ("source", "and not on btrfs"),
    ("volume/nosuch", "no such file or directory"),
    ("volume/link", "leads over a link"),
])  # fmt: skip
def test_a_path_of_which_there_can_be_no_snapshot_is_an_error(
    host: BackedUp, volume: Path, path: str, sentence: str
) -> None:
    (volume / "link").symlink_to("mail")
    host.job(source={"snapshot": {"paths": [str(host.directory / path)], "kind": "btrfs"}})
    done = host.run()
    assert done.code == 1
    assert sentence in done.result["error"]


# The stand-ins write down how they were called; `lvs` answers from a file; `mount` shows a copy of the origin.
STAND_IN = """#!/bin/sh
echo "$(basename "$0") $*" >> {calls}
[ -e {fails}/$(basename "$0") ] && {{ echo "$(basename "$0"): no" >&2; exit 5; }}
case "$(basename "$0")" in
  lvs) cat {answers}/lvs ;;
  zfs) [ "$1" = list ] && cat {answers}/zfs; exit 0 ;;
  mount) for place; do :; done; cp -a {origin}/. "$place" ;;
  umount) find "$1" -mindepth 1 -delete ;;
esac
"""


class StandIns:
    """Scripts in place of lvcreate, lvremove, lvs, zfs, mount and umount."""

    def __init__(self, directory: Path, origin: Path) -> None:
        self.directory = directory / "stand-ins"
        self.calls_file = directory / "calls"
        self.fails = directory / "fails"
        self.answers = directory / "answers"
        for made in (self.directory, self.fails, self.answers):
            made.mkdir()
        self.calls_file.touch()
        script = STAND_IN.format(calls=self.calls_file, fails=self.fails, answers=self.answers, origin=origin)
        for name in ("lvcreate", "lvremove", "lvs", "zfs", "mount", "umount"):
            (self.directory / name).write_text(script)
            (self.directory / name).chmod(0o755)
        (self.answers / "zfs").touch()
        self.lvs("owi-aos---", "0.1")

    def lvs(self, attributes: str, percent: str, name: str = "home") -> None:
        (self.answers / "lvs").write_text(
            f'{{"report":[{{"lv":[{{"vg_name":"vg0","lv_name":"{name}","lv_attr":"{attributes}",'
            f'"snap_percent":"{percent}"}}]}}]}}'
        )

    @property
    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines()


@pytest.fixture
def stand_ins(host: BackedUp, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    (host.source / "letter").write_text("dear reader")
    found = StandIns(host.directory, host.source)
    monkeypatch.setattr(children, "PATH", f"{found.directory}:{children.PATH}")
    return found


def backed_up(source: Snapshot, work: Work) -> bytes:
    """The archive, as a run would take it."""
    streams = source.streams(work)
    try:
        (step,) = (stream := next(streams)).steps
        content = children.run(step, work.guard, work.redact)
        stream.after()
        return content
    finally:
        streams.close()  # type: ignore[attr-defined]


def as_if_on(monkeypatch: pytest.MonkeyPatch, device: str, directory: Path, kind: str) -> None:
    monkeypatch.setattr("backup.sources.snapshot.read_mounts", lambda: [Mount(device, str(directory), kind)])


def test_zfs_by_stand_ins_makes_mounts_reads_and_removes(
    host: BackedUp, stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_if_on(monkeypatch, "tank/home", host.source, "zfs")
    content = backed_up(Snapshot([str(host.source)], "zfs", job="job", host=HOST), host.work())
    assert b"dear reader" in content
    made, place = stand_ins.calls[1].split()[-2:]
    assert made.startswith(f"tank/home@vigilhost-{TAG}-")
    assert stand_ins.calls == [
        f"zfs snapshot {made}", f"mount --types=zfs --options=ro {made} {place}", f"umount {place}",
        f"zfs destroy {made}",
    ]  # fmt: skip


@pytest.mark.parametrize(("failing", "undone"), [
    ("mount", ["lvremove"]),
    ("lvcreate", ["lvremove"]),
    ("umount", ["umount", "lvremove"]),
])  # fmt: skip
def test_whatever_fails_the_snapshot_is_removed(
    host: BackedUp, stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch, failing: str, undone: list[str]
) -> None:
    as_if_on(monkeypatch, "/dev/mapper/vg0-home", host.source, "ext4")
    (stand_ins.fails / failing).touch()
    warnings: list[str] = []
    work = replace(host.work(), warn=warnings.append)
    source = Snapshot([str(host.source)], "lvm", job="job", host=HOST)
    if failing == "umount":
        with pytest.raises(OSError, match="not empty"):  # the stand-in's copy is in the way of rmdir
            backed_up(source, work)
        assert any("left behind until the next run" in text for text in warnings)
    else:
        with pytest.raises(BackupError, match=f"{failing}: no"):
            backed_up(source, work)
    called = [call.split()[0] for call in stand_ins.calls]
    assert called[-len(undone) :] == undone


def test_sweeping_by_stand_ins_removes_this_jobs_snapshots_alone(host: BackedUp, stand_ins: StandIns) -> None:
    (stand_ins.answers / "zfs").write_text(f"tank/home@daily\ntank/home@vigilhost-{TAG}-0a1b2c3d\n")
    assert Snapshot(["/home"], "zfs", job="job", host=HOST).sweep(host.work()) == [
        f"snapshot tank/home@vigilhost-{TAG}-0a1b2c3d"
    ]


@pytest.mark.parametrize(("path", "directory"), [
    ("/srv/mail/box", "/srv"), ("/srv", "/srv"), ("/srvmail", "/"), ("/home/a b/x", "/home/a b"), ("/", "/"),
])  # fmt: skip
def test_a_path_is_in_the_deepest_mount_around_it(path: str, directory: str, tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(
        "22 1 254:0 / / rw - ext4 /dev/root rw\n"
        "30 22 254:1 / /srv rw shared:1 - ext4 /dev/mapper/vg0-srv rw\n"
        "31 22 254:2 / /home/a\\040b rw shared:2 master:1 - btrfs /dev/sdb rw\n"
    )
    assert mount_of(path, read_mounts(str(tmp_path / "mountinfo"))).directory == directory
