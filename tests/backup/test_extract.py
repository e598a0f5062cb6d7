"""Archives of an enemy: refused member by member, and nothing outside the directory."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backup.children import Guard
from backup.errors import Damaged, Refused, Stopped, reason
from backup.extract import copy, extract, fresh, leads_out
from backup.source import Restored
from tests.backup.hosts import tree
from tests.backup.sources.round import as_pipe
from tests.servers.programs import need


def member(name: str, content: bytes = b"", **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = 0o644
    info.uid, info.gid = os.geteuid(), os.getegid()
    for key, value in more.items():
        setattr(info, key, value)
    return info, content


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=kind, linkname=to)


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def through_pipe(archive: bytes, read: Callable[[int], Restored]) -> Restored:
    """Feed an archive as the decoder does."""
    out, into = os.pipe()

    def feed() -> None:
        try:
            with open(into, "wb") as pipe:
                pipe.write(archive)
        except BrokenPipeError:
            pass  # refused half-way

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        return read(out)
    finally:
        os.close(out)
        feeder.join()


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Path]:
    """The directory to extract into; afterwards nothing beside it may have changed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("untouched")
    directory = outside / "a" / "b"
    directory.mkdir(parents=True)
    yield directory
    assert sorted(os.listdir(outside)) == ["a", "precious"]
    assert os.listdir(outside / "a") == ["b"]
    assert (outside / "precious").read_text() == "untouched"


def unpacked(directory: Path, *members: tuple[tarfile.TarInfo, bytes], allow: str = "", **more: Any) -> Restored:
    return through_pipe(packed(*members), lambda plain: extract(
        plain, str(directory), guard=Guard(), allow=frozenset(allow.split()), **more))  # fmt: skip


GOOD = member("good", b"kept")
DIRECTORY = member("x/", type=tarfile.DIRTYPE)


@pytest.mark.parametrize(
    ("members", "said"),
    [
        pytest.param([member("/etc/evil", b"x")], "absolute path", id="an absolute path"),
        pytest.param([member("../evil", b"x")], "has ..", id="dots at the beginning"),
        pytest.param([member("x/../../../evil", b"x")], "has ..", id="dots in the middle"),
        pytest.param([link("out", "../..")], "links outside", id="a link out"),
        pytest.param([link("out", "/")], "links outside", id="an absolute link"),
        pytest.param([link("here", "."), link("out", "here/..")], "links outside", id="a link out by way of another"),
        pytest.param([link("out", "..", tarfile.LNKTYPE)], "has ..", id="a hard link out"),
        pytest.param([link("out", "/etc/passwd", tarfile.LNKTYPE)], "absolute path", id="an absolute hard link"),
        pytest.param([link("out", "nothing", tarfile.LNKTYPE)], "not there", id="a hard link to nothing"),
        pytest.param([DIRECTORY, link("h", "x", tarfile.LNKTYPE)], "no file", id="to a directory"),
        pytest.param([link("s", "good"), link("h", "s", tarfile.LNKTYPE)], "no file", id="a hard link to a link"),
        pytest.param([member("sda", type=tarfile.BLKTYPE)], "is a device", id="a block device"),
        pytest.param([member("null", type=tarfile.CHRTYPE)], "is a device", id="a character device"),
        pytest.param([member("fifo", type=tarfile.FIFOTYPE)], "named pipe", id="a named pipe"),
        pytest.param([member("sh", b"#!", mode=0o4755)], "setuid", id="setuid"),
        pytest.param([member("sh", b"#!", mode=0o2755)], "setuid", id="setgid"),
        pytest.param([member("/".join("x" * 200), b"x")], "directories deep", id="a path without end"),
        pytest.param([member("n" * 300, b"x")], "file name too long", id="a name that no file can have"),
        pytest.param([member("d/x"), member("d", b"x")], "where a directory is", id="a file over a directory"),
        pytest.param([member("f", b"x"), member("f/x", b"x")], "link or a file", id="a directory over a file"),
    ],
)  # fmt: skip
def test_a_malicious_member_is_refused_and_the_rest_restored(
    inside: Path, members: list[tuple[tarfile.TarInfo, bytes]], said: str
) -> None:
    done = unpacked(inside, GOOD, *members, member("later", b"too"))
    assert len(done.refused) == 1
    assert said in done.refused[0]
    assert (inside / "good").read_bytes() == b"kept"
    assert (inside / "later").read_bytes() == b"too"


def test_a_link_that_was_allowed_is_never_followed(inside: Path) -> None:
    """The classic: a link to somewhere, then a member through it."""
    done = unpacked(inside, link("out", "/"), member("out/evil", b"x"), link("up", ".."), member("up/evil", b"x"),
                    allow="links")  # fmt: skip
    assert [sentence.partition(":")[0] for sentence in done.refused] == ["out/evil", "up/evil"]
    assert os.readlink(inside / "out") == "/"


def test_a_file_over_an_allowed_link_replaces_the_link(inside: Path) -> None:
    unpacked(inside, link("x", "../../precious"), member("x", b"mine"), allow="links")
    assert not (inside / "x").is_symlink()
    assert (inside / "x").read_bytes() == b"mine"


def test_what_is_trusted_keeps_its_setuid_bits(inside: Path) -> None:
    assert not unpacked(inside, member("sh", b"#!", mode=0o4755), allow="setuid").refused
    assert (inside / "sh").stat().st_mode & 0o7777 == 0o4755


@pytest.mark.parametrize(
    ("target", "depth", "expected"),
    [
        ("x", 0, False), ("./x/y", 0, False), ("..", 0, True), ("..", 1, False), ("../../x", 2, False),
        ("../../../x", 2, True), ("/x", 5, True), ("x/..", 3, True), ("../x/../y", 3, True), (".", 0, False),
    ],
)  # fmt: skip
def test_links_that_may_lead_out(target: str, depth: int, expected: bool) -> None:
    assert leads_out(target, depth) is expected


def test_a_bomb_of_data_is_stopped(inside: Path) -> None:
    with pytest.raises(Damaged, match="more than the 1000 bytes"):
        unpacked(inside, member("a", b"x" * 900), member("b", b"x" * 900), most_bytes=1000)


def test_a_bomb_in_a_header_is_not_read_into_memory(inside: Path) -> None:
    with pytest.raises(Damaged, match="header is larger"):
        unpacked(inside, member("a", pax_headers={"SCHILY.xattr.user.x": "x" * (2 << 20)}))


def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the kernel refuses the write in the same way."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with as_pipe(bytes(2 << 20)) as plain, pytest.raises(OSError, match="File too large") as raised:
            copy(plain, str(tmp_path / "to"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert reason(raised.value) == f"{tmp_path}/to: file too large"


def test_a_file_of_nothing_but_a_huge_hole_is_refused(inside: Path) -> None:
    headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.map": "0,0",
        "GNU.sparse.size": str(1 << 60),
    }
    done = unpacked(inside, member("huge", pax_headers=headers), GOOD)
    assert "claims to be" in done.refused[0]
    assert (inside / "good").exists()


@pytest.mark.parametrize("pieces", ["0,10,5,99999999", "-5,3", "0,x"])
def test_a_map_of_holes_that_lies_is_an_error(inside: Path, pieces: str) -> None:
    headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": pieces, "GNU.sparse.size": "100"}
    with pytest.raises(Damaged):
        unpacked(inside, member("x", b"y" * 50, pax_headers=headers))


def test_an_archive_cut_off_is_damaged_wherever_it_is_cut(inside: Path) -> None:
    whole = packed(member("a", b"x" * 3000))
    for size in (1, 511, 513, 2000, 3000):
        with pytest.raises(Damaged):
            through_pipe(whole[:size], lambda plain: extract(plain, str(inside), guard=Guard()))


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_archive_writes_nothing_outside_and_raises_nothing_else(inside: Path, data: st.DataObject) -> None:
    archive = bytearray(
        packed(GOOD, link("l", "good"), member("d/e/f", b"y" * 600), link("h", "good", tarfile.LNKTYPE))
    )
    for _ in range(data.draw(st.integers(1, 8))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    try:
        through_pipe(bytes(archive), lambda plain: extract(plain, str(inside), guard=Guard(), most_bytes=1 << 20))
    except (Damaged, Refused):
        pass


def test_extraction_ends_when_it_is_stopped(inside: Path) -> None:
    guard = Guard()
    guard.stop("enough")
    with pytest.raises(Stopped, match="enough"):
        through_pipe(packed(GOOD), lambda plain: extract(plain, str(inside), guard=guard))


def test_everything_that_tar_keeps_comes_back(tmp_path: Path) -> None:
    need("tar", "setfacl", "setfattr")
    source, restored = tmp_path / "source", tmp_path / "restored"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "file").write_bytes(b"\0\xff" * 1000)
    (source / "empty").touch()
    (source / "link").symlink_to("deep/er")
    os.link(source / "file", source / "deep" / "hard")
    with open(source / "holes", "wb") as file:
        file.truncate(50 << 20)
        file.seek(20 << 20)
        file.write(b"island" * 1000)
    (source / ("ü" * 100 + "\n")).write_text("a long and ugly name")
    os.setxattr(source / "file", "user.note", b"\0binary\xff\n")
    subprocess.run(["setfacl", "-m", "u:65534:r--,g:4242:rwx", source / "file"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:65534:r-x", source / "deep"], check=True)
    (source / "deep").chmod(0o2750)
    os.utime(source / "deep", ns=(10**18, 10**18 + 123_456_789))
    os.chown(source / "file", 4321, 1234)
    archive = subprocess.run(
        ["tar", "-c", "--format=posix", "--acls", "--xattrs", "--xattrs-include=*", "-S", "-C", str(source), "."],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    with fresh(str(restored), force=False) as staging:
        done = through_pipe(archive, lambda plain: extract(plain, staging, guard=Guard()))
    assert (done.refused, done.warnings) == ((), ())
    assert tree(restored) == tree(source)
    assert (restored / "file").stat().st_ino == (restored / "deep" / "hard").stat().st_ino
    assert (restored / "holes").stat().st_blocks * 512 < 1 << 20


class Breaks(Exception):
    pass


def test_a_restore_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def break_off() -> None:
        with fresh(str(tmp_path / "to"), force=False) as staging:
            Path(staging, "half").touch()
            raise Breaks

    with pytest.raises(Breaks):
        break_off()
    assert os.listdir(tmp_path) == []


def test_a_restore_goes_to_a_private_directory(tmp_path: Path) -> None:
    with fresh(str(tmp_path / "to"), force=False) as staging:
        assert Path(staging).stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "to").is_dir()


def test_what_is_there_is_not_overwritten_but_moved_aside_when_told(tmp_path: Path) -> None:
    to = tmp_path / "to"
    to.mkdir()
    (to / "old").touch()
    with pytest.raises(Refused, match="not empty"), fresh(str(to), force=False):
        pass
    with fresh(str(to), force=True) as staging:
        Path(staging, "new").touch()
    assert os.listdir(to) == ["new"]
    (aside,) = tmp_path.glob("to.before-*")
    assert os.listdir(aside) == ["old"]
