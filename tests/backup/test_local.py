"""A directory as a target: nothing half done is ever seen, and nobody leads it elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from backup.errors import TargetFailed
from backup.target import check_name, safe_word
from backup.targets.local import PART, Local
from tests.servers.disk import disk
from tests.servers.process import run
from tests.servers.programs import need

NAME = "web1/job/20260101T000000Z-aaaaaa/files.tar"


@pytest.fixture
def store(tmp_path: Path) -> Local:
    return Local(str(tmp_path))


def test_an_object_is_not_seen_before_it_is_committed(store: Local) -> None:
    upload = store.begin(NAME)
    upload.write(b"some ")
    upload.write(b"bytes")
    upload.finish()
    assert list(store.names("web1/job")) == []
    with upload.reread() as file:
        assert file.read() == b"some bytes"
    upload.commit()
    assert list(store.names("web1/job")) == [NAME]
    with store.open(NAME) as file:
        assert file.read() == b"some bytes"
    upload.abort()  # does nothing any more
    assert list(store.names("")) == [NAME]


def test_a_large_one_leaves_the_page_cache_while_it_is_written(tmp_path: Path) -> None:
    """On a disk of its own, because a file system in memory has nowhere else to keep it."""
    need("fincore")
    (tmp_path / "disk").mkdir()
    with disk(tmp_path / "image", 160 << 20, tmp_path / "disk") as directory:
        upload = Local(str(directory)).begin(NAME)
        (part,) = directory.rglob(f".*{PART}")
        most = 0
        for _ in range(8):
            upload.write(os.urandom(16 << 20))
            most = max(most, cached_bytes(part))
            fsync(part)  # the disk has caught up, as a slow one may not have
        assert part.stat().st_size == 128 << 20
        assert most <= 32 << 20
        upload.finish()
        assert cached_bytes(part) == 0
        upload.abort()


def cached_bytes(path: Path) -> int:
    return int(run("fincore", "--bytes", "--noheadings", "--output=RES", path))


def fsync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def test_an_aborted_one_leaves_nothing(store: Local) -> None:
    upload = store.begin(NAME)
    upload.write(b"x")
    upload.abort()
    upload.abort()
    assert not any(path.is_file() for path in Path(store.path).rglob("*"))


def test_nothing_is_overwritten_but_a_manifest(store: Local) -> None:
    store.put(NAME, b"old")
    upload = store.begin(NAME)
    with pytest.raises(TargetFailed, match="is there already"):
        upload.commit()
    upload.abort()
    store.put(NAME, b"new")
    with store.open(NAME) as file:
        assert file.read() == b"new"


def test_a_sweep_removes_what_is_unfinished_and_nothing_else(store: Local) -> None:
    store.put(NAME, b"whole")
    upload = store.begin(NAME + "2")
    upload.write(b"half")
    (swept,) = store.sweep("web1/job")
    assert ".files.tar2." in swept
    assert list(store.names("")) == [NAME]
    upload.abort()


def test_deleting_the_last_object_removes_its_directory(store: Local) -> None:
    store.put(NAME, b"x")
    store.delete(NAME)
    store.delete(NAME)  # no error
    assert os.listdir(f"{store.path}/web1/job") == []
    assert list(store.names("web1/nothing")) == []


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../x", "a/../../x", "a//b", ".hidden", "a/.part", "x" * 1000, "a\0b", "-rf"]
)
def test_names_that_lead_elsewhere_are_refused(store: Local, name: str) -> None:
    for call in (check_name, store.begin, store.open, store.delete):
        with pytest.raises(ValueError, match="no name of a stored object"):
            call(name)


def test_a_link_in_the_way_is_not_followed(store: Local, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    (tmp_path / "web1").symlink_to(outside)
    for call in (lambda: store.begin("web1/x"), lambda: store.open("web1/file"), lambda: store.delete("web1/file"),
                 lambda: store.put("web1/file", b"x")):  # fmt: skip
        with pytest.raises(TargetFailed):
            call()
    (tmp_path / "link").symlink_to(outside / "file")
    with pytest.raises(TargetFailed):
        store.open("link")
    assert list(store.names("")) == []
    assert (outside / "file").read_text() == "precious"


def test_what_cannot_be_used_says_so_before_the_dump(tmp_path: Path) -> None:
    with pytest.raises(TargetFailed, match="no such file"):
        Local(str(tmp_path / "gone")).check()
    with pytest.raises(TargetFailed, match="nothing is mounted there"):
        Local(str(tmp_path), mounted=True).check()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(TargetFailed, match="link"):
        Local(str(tmp_path / "link")).check()
    Local(str(tmp_path)).check()


def test_any_text_is_one_plain_word_and_different_ones_differ() -> None:
    texts = ["orders", "my db", "a/b", "a%2fb", "..", ".hidden", "-x", "", "ü" * 200, "ü" * 201, "x" * 119, "*"]
    words = [safe_word(text) for text in texts]
    for word in words:
        check_name(word)
        assert "/" not in word
    assert len(set(words)) == len(texts)
    assert words[0] == "orders"


@pytest.mark.root("only root writes where others own")
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda store: os.chown(store, 1, 1), "owned by user 1"),
        (lambda store: store.chmod(0o777), "others can write to it"),
        (lambda store: os.chown(store.parent, 1, 1), "owned by user 1"),
    ],
    ids=["somebody else's", "anybody's", "in a directory of somebody else's"],
)
def test_root_keeps_copies_only_where_nobody_else_can_put_something_in_the_way(
    tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    store = tmp_path / "above" / "store"
    store.mkdir(parents=True, mode=0o700)
    Local(str(store)).check()
    spoil(store)
    with pytest.raises(TargetFailed, match=said):
        Local(str(store)).check()
