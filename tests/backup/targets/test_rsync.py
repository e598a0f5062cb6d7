"""Another host by rsync over ssh: a real sshd, and an account that can do nothing but rrsync."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backup.errors import TargetFailed
from backup.target import Target
from backup.targets import rsync
from backup.targets.rsync import Rsync
from tests.backup.hosts import BackedUp, ended
from tests.backup.targets.contract import (
    MIB,
    NAME,
    RUN,
    backups,
    comes_back,
    content_of,
    each_promise,
    far,
    fill,
    job_to,
    keeps_two_and_restores,
    send,
)
from tests.servers.process import LOOPBACK, wait_until
from tests.servers.programs import need
from tests.servers.sshd import Sshd
from tests.servers.tcp_proxy import TcpProxy


class Far:
    """The other host: `store` is the directory that its account may use."""

    def __init__(self, server: Sshd, store: Path, spool: Path) -> None:
        self.server, self.store, self.spool = server, store, spool

    def options(self, **more: Any) -> dict[str, Any]:
        server = self.server
        return {"server": LOOPBACK, "port": server.port, "path": "/", "user": server.login, "identity": str(server.key),
                "known_hosts": str(server.known_hosts), "spool": str(self.spool), **more}  # fmt: skip

    def target(self, **more: Any) -> Rsync:
        return Rsync(**self.options(**more))

    def entry(self, **more: Any) -> dict[str, Any]:
        """The same as a job's file has it."""
        return {"type": "rsync", **self.options(**more)}

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.store)) for path in self.store.rglob("*") if path.is_file())


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Far]:
    need("sshd", "ssh", "ssh-keygen", "rsync", "rrsync")
    store, spool = tmp_path / "far", tmp_path / "spool"
    store.mkdir()
    spool.mkdir()
    with Sshd(f"ForceCommand rrsync {store}") as server:
        yield Far(server, store, spool)


@pytest.fixture
def through(other: Far, tmp_path: Path) -> Iterator[tuple[TcpProxy, dict[str, Any]]]:
    """A proxy in front of the other host, and the options that go through it."""
    with TcpProxy(other.server.port) as proxy:
        yield proxy, way_through(proxy, other.server, tmp_path)


def way_through(proxy: TcpProxy, server: Sshd, directory: Path) -> dict[str, Any]:
    known = directory / "known_hosts"
    key = (server.data_dir / "host_key.pub").read_text()
    known.write_text(f"[{LOOPBACK}]:{proxy.port} {key}")
    return {"port": proxy.port, "known_hosts": str(known)}


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rsync, "_WAIT_S", 0.05)


@each_promise
def test_it_keeps_what_a_target_promises(other: Far, holds: Callable[[Target], None]) -> None:
    holds(other.target())
    assert os.listdir(other.spool) == []


def test_backups_are_kept_by_the_rules_and_come_back(host: BackedUp, other: Far, tmp_path: Path) -> None:
    keeps_two_and_restores(host, other.entry(), tmp_path / "to")
    assert not any(".part" in name for name in other.files())
    assert os.listdir(other.spool) == []


def test_what_is_free_where_archives_wait_is_known(other: Far) -> None:
    found = os.statvfs(other.spool)
    free = other.target().free_bytes()
    assert free is not None
    assert abs(free - found.f_bavail * found.f_frsize) < 1 << 30  # others write to that disk too


def test_a_host_that_is_silent_does_not_keep_a_run_from_ending(host: BackedUp, other: Far) -> None:
    with socket.create_server((LOOPBACK, 0)) as silent:
        job_to(host, other.entry(port=silent.getsockname()[1], connect_timeout="1h", timeout="1h"))
        worker = host.start()
        silent.settimeout(60)
        connection, _ = silent.accept()
        with connection:
            worker.send_signal(signal.SIGTERM)
            ran = ended(worker)
    assert (ran.code, ran.result["error"]) == (1, "ended by SIGTERM")


def test_an_ordinary_account_with_an_absolute_path_will_do_too(other: Far, tmp_path: Path) -> None:
    path = tmp_path / "else"
    path.mkdir()
    with Sshd() as server:
        target = Far(server, path, other.spool).target(path=str(path))
        target.check()
        send(target, NAME, b"content")
        assert (path / NAME).read_bytes() == b"content"
        assert (path / NAME).stat().st_mode & 0o777 == 0o600
        fetched = subprocess.run(target.fetch_command(NAME), capture_output=True, check=False)
        assert (fetched.returncode, fetched.stdout) == (0, b"content"), fetched.stderr


def test_what_differs_over_there_is_not_given_its_name(other: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    target, upload = other.target(), None
    once = Rsync._once

    def spoiling(self: Rsync, words: Any, guard: Any, timeout: float) -> Any:
        if "--checksum" in words:
            with open(other.store / RUN / ".part/files.tar", "r+b") as file:
                file.write(b"?")
        return once(self, words, guard, timeout)

    monkeypatch.setattr(Rsync, "_once", spoiling)
    upload = target.begin(NAME)
    upload.write(os.urandom(MIB))
    upload.finish()
    with pytest.raises(TargetFailed, match="not what was sent"):
        upload.commit()
    upload.abort()
    assert other.files() == []


@pytest.mark.parametrize("is_restricted", [True, False], ids=["rrsync", "an ordinary account"])
def test_a_broken_connection_is_taken_up(other: Far, tmp_path: Path, is_restricted: bool) -> None:
    content = os.urandom(16 * MIB)
    with Sshd(f"ForceCommand rrsync {other.store}" if is_restricted else "") as server, TcpProxy(server.port) as proxy:
        path = "/" if is_restricted else str(other.store)
        target = Far(server, other.store, other.spool).target(path=path, **way_through(proxy, server, tmp_path))
        proxy.cut(request_after=12 * MIB)
        sending = threading.Thread(target=send, args=(target, NAME, content))
        sending.start()
        wait_until(lambda: proxy.to_server >= 12 * MIB, "the connection to break")
        if not is_restricted:
            kept = other.store / RUN / ".part/.partial/files.tar"
            wait_until(kept.exists, "the other side to keep what came")
        proxy.pass_through()
        sending.join(60)
        assert (other.store / NAME).read_bytes() == content
        if not is_restricted:
            assert proxy.to_server < 24 * MIB  # where it broke, not from its beginning


def test_when_the_connection_breaks_each_time_it_fails_and_leaves_what_a_sweep_removes(
    other: Far, through: Any
) -> None:
    proxy, way = through
    proxy.cut(request_after=2 * MIB)
    upload = other.target(**way).begin(NAME)
    upload.write(os.urandom(16 * MIB))
    with pytest.raises(TargetFailed, match="rsync exited"):
        upload.commit()
    proxy.refuse()
    upload.abort()
    assert os.listdir(other.spool) == []
    assert list(other.target().names("")) == []
    other.target().sweep("web1/job")
    assert other.files() == []


def test_a_sweep_removes_what_is_unfinished_and_nothing_else(other: Far) -> None:
    target = other.target()
    left = [".part/files.tar", ".part/.partial/big.tar", ".part/.x.tar.AbCdEf", ".manifest.json.a1B2c3"]
    for name in [*left, "files.tar", ".keep"]:
        path = other.store / RUN / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (other.store / "web1/else/.part").mkdir(parents=True)
    (other.store / "web1/else/.part/theirs").write_bytes(b"x")
    assert sorted(target.sweep("web1/job")) == sorted(f"{RUN}/{name}" for name in left)
    assert other.files() == ["web1/else/.part/theirs", f"{RUN}/.keep", f"{RUN}/files.tar"]


def test_every_deletion_names_its_files_and_how_many_may_go(other: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    once = Rsync._once

    def noting(self: Rsync, words: Any, guard: Any, timeout: float) -> Any:
        said.append(list(words))
        return once(self, words, guard, timeout)

    monkeypatch.setattr(Rsync, "_once", noting)
    target = other.target()
    send(target, NAME, b"x")
    target.delete(NAME)
    deleting = [words for words in said if any(word.startswith("--delete") for word in words)]
    assert len(deleting) == 2
    for words in deleting:
        assert any(word.startswith("--max-delete=") for word in words)
        assert words.index("--filter=P *") == max(at for at, word in enumerate(words) if word.startswith("--filter"))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"path": "/missing"}, "No such file"),
        ({"sentinel": "DISK"}, "has no file DISK; mount the disk"),
        ({"known_hosts": "/dev/null"}, "Host key verification failed"),
        ({"identity": "/dev/null"}, "Permission denied"),
        ({"spool": "/nonexistent"}, "/nonexistent: no such file"),
        ({"port": 1, "connect_timeout": 1.0}, "Connection refused"),
    ],
)
def test_what_cannot_be_used_says_so_before_the_dump(other: Far, given: dict[str, Any], says: str) -> None:
    other.target().check()
    with pytest.raises(TargetFailed, match=says):
        other.target(**given).check()


def test_the_sentinel_shows_that_the_disk_is_there(other: Far) -> None:
    (other.store / "DISK").touch()
    other.target(sentinel="DISK").check()


def test_a_host_that_does_not_answer_fails_within_its_time(other: Far, through: Any) -> None:
    proxy, way = through
    proxy.hang()
    with pytest.raises(TargetFailed, match="timed out"):
        other.target(**way, connect_timeout=1.0).check()


def test_one_that_is_too_slow_fails_at_the_deadline(other: Far, through: Any) -> None:
    proxy, way = through
    upload = other.target(**way, deadline=3.0).begin(NAME)
    upload.write(os.urandom(4 * MIB))
    proxy.slow(64 << 10)
    with pytest.raises(TargetFailed, match="did not end within 3 s"):
        upload.commit()
    proxy.pass_through()
    upload.abort()


def test_a_full_disk_over_there_fails_and_leaves_the_backup_before(
    host: BackedUp, other: Far, small_disk: Path, tmp_path: Path
) -> None:
    with Sshd(f"ForceCommand rrsync {small_disk}") as server:
        full = Far(server, small_disk, other.spool)
        job_to(host, full.entry())
        fill(host)
        assert host.run().code == 0
        fill(host, 16 * MIB)
        ran = host.run()
        assert (ran.code, ran.result["status"]) == (1, "fail")
        assert "No space left" in ran.result["error"]
        fill(host, MIB)
        ran = host.run()
        assert ran.code == 0, ran.result
        assert len(backups(host)) == 2
        comes_back(host, backups(host)[-1], tmp_path / "to")


def test_killed_while_it_sends_nothing_counts_and_the_next_run_sweeps(
    host: BackedUp, other: Far, tmp_path: Path
) -> None:
    with Sshd() as server, TcpProxy(server.port) as proxy:
        ordinary = Far(server, other.store, other.spool)
        job_to(host, ordinary.entry(path=str(other.store), **way_through(proxy, server, tmp_path)))
        fill(host)
        assert host.run().code == 0
        (good,) = backups(host)
        fill(host, 8 * MIB)
        proxy.slow(300_000)
        worker = host.start()
        wait_until(lambda: any("/.part/" in name for name in other.files()), "a part over there", 60)
        before = proxy.to_server
        wait_until(lambda: proxy.to_server > before + MIB, "more to arrive", 60)
        os.kill(worker.pid, signal.SIGKILL)
        assert ended(worker).code == -signal.SIGKILL
        proxy.pass_through()
        wait_until(lambda: any("/.partial/" in name for name in other.files()), "what came to be kept")
        assert backups(host) == [good]
        ran = host.run()
        assert ran.result["status"] == "ok", ran.result
        assert [event for event in ran.events if event["event"] == "swept"] != []
        assert os.listdir(other.spool) == []
        assert backups(host)[0] == good
        expected = {name for one in backups(host) for name in (one.stored_name, one.archives[0].stored)}
        assert set(other.files()) == expected
        comes_back(host, backups(host)[-1], tmp_path / "to")


def test_one_that_fails_does_not_spoil_the_others(host: BackedUp, other: Far, tmp_path: Path) -> None:
    targets = {
        "far": other.entry(), "away": other.entry(port=1),
        "store": {"type": "local", "path": str(host.store)},
    }  # fmt: skip
    host.job_now = host.job(targets=targets)
    fill(host)
    ran = host.run()
    assert (ran.code, ran.result["status"], ran.result["is_slot_done"]) == (1, "fail", True)
    assert [name for name, one in ran.result["targets"].items() if one["status"] == "ok"] == ["far", "store"]
    assert "Connection refused" in ran.result["targets"]["away"]["error"]
    comes_back(host, backups(host)[0], tmp_path / "to")
    stored = backups(host)[0].archives[0].stored
    assert content_of(far(host, "store"), stored) == content_of(far(host), stored)
