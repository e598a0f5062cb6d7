"""What was backed up comes back, by us and by plain tools; what was tampered with does not."""

from __future__ import annotations

import os
import random
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from backup import catalogue
from backup.errors import BackupError, Damaged, Refused, TargetFailed
from backup.manifest import Manifest
from backup.restore import KEY_PLACE, parts, recipe, restore
from backup.targets.local import Local
from backup.verify import verify
from tests.backup.hosts import HOST, BackedUp, age_key, built_source, tree


@pytest.fixture(params=["plain", "encrypted"])
def kept(host: BackedUp, request: pytest.FixtureRequest) -> dict[str, Any]:
    """A backup of a small tree; how it was made, and with which key."""
    recipient, key = age_key(host) if request.param == "encrypted" else ("", None)
    (host.source / "etc").mkdir()
    (host.source / "etc" / "passwd").write_text("root:x:0:0\n")
    (host.source / "etc" / "alias").symlink_to("passwd")
    (host.source / "random").write_bytes(os.urandom(300_000))
    (host.source / "random").chmod(0o640)
    job = host.job(encryption={"recipients": [recipient]} if recipient else {})
    assert host.run().result["level"] == 2
    return {"host": host, "source": built_source(job), "identity": str(key) if key else None}


def restored(kept: dict[str, Any], to: Path, manifest: Manifest | None = None, allow: str = "") -> Path:
    host: BackedUp = kept["host"]
    made = manifest or host.manifests()[0]
    restore(parts(made, str(to)), host.target(), kept["source"], host.work(), identity=kept["identity"],
            allow=frozenset(allow.split()))  # fmt: skip
    return to / str(host.source).lstrip("/")


def test_what_was_backed_up_comes_back(kept: dict[str, Any], tmp_path: Path) -> None:
    host: BackedUp = kept["host"]
    assert tree(restored(kept, tmp_path / "to")) == tree(host.source)
    assert (tmp_path / "to").stat().st_mode & 0o777 == 0o700


def test_the_printed_commands_do_the_same_without_us(kept: dict[str, Any], tmp_path: Path) -> None:
    host: BackedUp = kept["host"]
    (made,) = host.manifests()
    text = recipe(made, host.target(), kept["source"])
    to = tmp_path / "by hand"
    to.mkdir()
    commands = text.replace(KEY_PLACE, str(kept["identity"])).replace("DIRECTORY", f"'{to}'")
    said = subprocess.run(["sh", "-ec", commands], capture_output=True, text=True, check=True).stdout
    assert made.archives[0].sha256 in said
    assert tree(to / str(host.source).lstrip("/")) == tree(host.source)


def test_one_flipped_bit_anywhere_in_an_archive_shows_and_is_not_restored(kept: dict[str, Any], tmp_path: Path) -> None:
    host: BackedUp = kept["host"]
    (made,) = host.manifests()
    file = host.store / made.archives[0].stored
    whole = file.read_bytes()
    work = host.work()
    for at in [0, 1, 5, *range(7, len(whole), len(whole) // 12), len(whole) - 1]:
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        file.write_bytes(flipped)
        found = verify(made, host.target(), kept["source"], work, level=2, now=1.0, identity=kept["identity"])
        assert "not those that were written" in found.problems[0]
        assert (found.manifest.level, found.manifest.is_verified) == (0, False)
        with pytest.raises(Damaged):
            restored(kept, tmp_path / "to")
        assert not (tmp_path / "to").exists()
    file.write_bytes(whole)
    assert verify(made, host.target(), kept["source"], work, level=2, now=1.0).problems == ()


def test_no_bit_no_cut_and_no_addition_goes_unseen(kept: dict[str, Any], tmp_path: Path) -> None:
    """Many places, the seed told on failure; each is refused before a single program is started."""
    host: BackedUp = kept["host"]
    (made,) = host.manifests()
    file = host.store / made.archives[0].stored
    whole, work, seed = file.read_bytes(), host.work(), random.randrange(1 << 32)
    chance = random.Random(seed)
    for _ in range(200):
        damaged = bytearray(whole)
        match chance.randrange(4):
            case 0:
                del damaged[chance.randrange(len(whole)) :]
            case 1:
                damaged += chance.randbytes(chance.randrange(1, 9))
            case _:
                damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        file.write_bytes(damaged)
        found = verify(made, host.target(), kept["source"], work, level=1, now=1.0)
        assert (len(found.problems), found.manifest.is_verified) == (1, False), seed
        with pytest.raises(Damaged):
            restored(kept, tmp_path / "to")
        assert not (tmp_path / "to").exists(), seed


@pytest.mark.parametrize("change", [b"", b"x" * 10, None], ids=["emptied", "replaced", "gone"])
def test_an_archive_that_is_not_there_any_more_shows(
    kept: dict[str, Any], tmp_path: Path, change: bytes | None
) -> None:
    host: BackedUp = kept["host"]
    (made,) = host.manifests()
    file = host.store / made.archives[0].stored
    file.unlink()
    if change is not None:
        file.write_bytes(change)
    assert len(verify(made, host.target(), kept["source"], host.work(), level=1, now=1.0).problems) == 1
    with pytest.raises(BackupError):
        restored(kept, tmp_path / "to")
    assert os.listdir(tmp_path).count("to") == 0


class Away(Local):
    """A directory from which archives cannot be read now, as by a mount whose server has gone."""

    def open(self, name: str) -> BinaryIO:
        if name.endswith("manifest.json"):
            return super().open(name)
        raise TargetFailed(f"{name}: connection timed out")


def test_a_target_that_cannot_be_read_now_says_nothing_against_its_copies(kept: dict[str, Any]) -> None:
    host: BackedUp = kept["host"]
    (made,) = host.manifests()
    found = verify(made, Away(str(host.store)), kept["source"], host.work(), level=2, now=1.0)
    assert "connection timed out" in found.problems[0]
    assert found.manifest == made
    host.store.rename(host.directory / "unplugged")
    host.store.mkdir()
    found = verify(made, host.target(), kept["source"], host.work(), level=2, now=1.0)
    assert "no such file" in found.problems[0]
    assert found.manifest == made


def test_an_archive_that_was_removed_is_no_copy_any_more(kept: dict[str, Any]) -> None:
    host: BackedUp = kept["host"]
    (made,) = host.manifests()
    (host.store / made.archives[0].stored).unlink()
    found = verify(made, host.target(), kept["source"], host.work(), level=2, now=1.0)
    assert (found.manifest.level, found.manifest.is_verified) == (0, False)


def test_without_the_key_an_encrypted_archive_is_hashed_but_not_restored(host: BackedUp, tmp_path: Path) -> None:
    job = host.job(encryption={"recipients": [age_key(host)[0]]})
    host.run()
    (made,) = host.manifests()
    found = verify(made, host.target(), built_source(job), host.work(), level=2, now=1.0)
    assert (found.problems, found.manifest.level) == ((), 2)  # decoded when it was made, and the same bytes now
    with pytest.raises(Refused, match="private key"):
        restored({"host": host, "source": built_source(job), "identity": None}, tmp_path / "to")
    wrong = str(age_key(host, "wrong.key")[1])
    with pytest.raises(Refused, match="is not a private key that it was encrypted for"):
        restored({"host": host, "source": built_source(job), "identity": wrong}, tmp_path / "to")
    # A key of somebody else says nothing against the backup.
    with pytest.raises(Refused, match="is not a private key that it was encrypted for"):
        verify(made, host.target(), built_source(job), host.work(), level=2, now=1.0, identity=wrong)
    assert not (tmp_path / "to").exists()


def test_a_right_hash_over_wrong_bytes_is_told_as_such(host: BackedUp) -> None:
    """A dump that was bad from the start, stored faithfully: the hash is no proof of the content."""
    import hashlib

    job = host.job()
    host.run()
    (made,) = host.manifests()
    content = b"not zstd at all"
    (host.store / made.archives[0].stored).write_bytes(content)
    forged = replace(made.archives[0], sha256=hashlib.sha256(content).hexdigest(), stored_bytes=len(content), level=0)
    found = verify(replace(made, archives=(forged,)), host.target(), built_source(job), host.work(), level=2, now=1.0)
    assert "zstd exited 1" in found.problems[0]
    assert verify(replace(made, archives=(forged,)), host.target(), built_source(job), host.work(), level=1,
                  now=1.0).problems == ()  # fmt: skip


def test_a_directory_with_things_in_it_is_not_restored_into(kept: dict[str, Any], tmp_path: Path) -> None:
    to = tmp_path / "to"
    to.mkdir()
    (to / "mine").touch()
    with pytest.raises(Refused, match="not empty"):
        restored(kept, to)
    assert os.listdir(to) == ["mine"]
    restored(kept, to, allow="force")
    assert "mine" not in os.listdir(to)
    assert [path.name for path in tmp_path.glob("to.before-*/*")] == ["mine"]


def test_an_archive_that_the_backup_does_not_have(kept: dict[str, Any], tmp_path: Path) -> None:
    (made,) = kept["host"].manifests()
    with pytest.raises(Damaged, match="no archive 'nope'; there are: files"):
        parts(made, str(tmp_path), ["nope"])


def test_several_archives_go_to_directories_of_their_names(kept: dict[str, Any], tmp_path: Path) -> None:
    (made,) = kept["host"].manifests()
    two = replace(made, archives=(made.archives[0], replace(made.archives[0], name="my db")))
    assert [part.to for part in parts(two, "/to")] == ["/to/files", "/to/my%20db"]
    assert [part.to for part in parts(two, "/to", ["my db"])] == ["/to"]
    with pytest.raises(Refused, match="write which, like --archive files"):
        parts(two, "a database", is_directory=False)


def test_finding_a_backup(host: BackedUp) -> None:
    host.job()
    for _ in range(3):
        host.run()
    known = catalogue.read(host.target(), f"{HOST}/job", None)
    first, second, third = known.manifests
    assert known.find("latest") == third
    assert known.find(second.id) == second
    assert known.find("latest", at=second.finished_at) == second
    assert known.newest_verified() == third
    for wanted in ("20", "nope"):
        with pytest.raises(TargetFailed):
            known.find(wanted)
    with pytest.raises(TargetFailed, match="of that time"):
        known.find("latest", at=first.finished_at - 1)


def test_the_catalogue_needs_nothing_but_the_target(host: BackedUp, tmp_path: Path) -> None:
    """The host is lost: a copy of the target, with other names' times, is enough."""
    import shutil

    host.job()
    host.run()
    host.run()
    copy = tmp_path / "copied by hand"
    shutil.copytree(host.store, copy)
    assert host.manifests(path=copy) == host.manifests()
