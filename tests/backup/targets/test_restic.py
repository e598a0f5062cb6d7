"""A restic repository: Debian's restic, each object a snapshot."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.core.secrets import Secret
from backup import catalogue
from backup.errors import TargetFailed
from backup.target import Target
from backup.targets import restic
from backup.targets.restic import Restic
from backup.verify import verify
from tests.agent.cli.test_backup_cmd import Operator
from tests.backup.hosts import HOST, BackedUp, built_source, ended, script
from tests.backup.made import manifest
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
    write_on,
)
from tests.backup.targets.restic_key import make_quick
from tests.servers.process import wait_until
from tests.servers.programs import need
from tests.servers.rclone_restic import RcloneRestic
from tests.servers.rclone_s3 import need_rclone

PASSWORD = "canary-password-of-the-repository"
NO_COMPRESSION = {"program": "none"}


class Repository:
    """A repository in a directory, and restic itself to look into it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def target(self, **more: Any) -> Restic:
        return Restic(**{"repository": str(self.path), "password": Secret(PASSWORD), "read_back": 0.0, **more})

    def entry(self, directory: Path, **more: Any) -> dict[str, Any]:
        key = directory / "restic.password"
        key.write_text(PASSWORD)
        key.chmod(0o600)
        return {"type": "restic", "repository": str(self.path), "password": {"file": str(key)}, **more}

    def restic(self, *words: str) -> str:
        return self.run(*words, check=True).stdout

    def run(self, *words: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "RESTIC_PASSWORD": PASSWORD, "RESTIC_REPOSITORY": str(self.path)}
        return subprocess.run(["restic", "--no-cache", *words], env=environment, capture_output=True, text=True,
                              check=check)  # fmt: skip

    def snapshots(self) -> list[str]:
        return [path for one in json.loads(self.restic("snapshots", "--json")) for path in one["paths"]]

    def size(self) -> int:
        return sum(path.stat().st_size for path in (self.path / "data").rglob("*") if path.is_file())


@pytest.fixture(scope="session")
def empty_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once, and opened quickly."""
    need("restic", "openssl")
    path = tmp_path_factory.mktemp("restic") / "repository"
    Repository(path).restic("init")
    make_quick(path, PASSWORD, Repository(path).restic("cat", "masterkey"))
    return path


@pytest.fixture
def repository(tmp_path: Path, empty_repository: Path) -> Repository:
    subprocess.run(["cp", "-r", empty_repository, tmp_path / "repository"], check=True)
    return Repository(tmp_path / "repository")


@each_promise
def test_it_keeps_what_a_target_promises(repository: Repository, holds: Callable[[Target], None]) -> None:
    holds(repository.target())


def test_backups_are_kept_by_the_rules_and_come_back(host: BackedUp, repository: Repository, tmp_path: Path) -> None:
    entry = repository.entry(tmp_path, read_back="100%")
    keeps_two_and_restores(host, entry, tmp_path / "to", compression=NO_COMPRESSION)
    assert len(repository.snapshots()) == 4
    assert repository.size() < 3 * 3 * MIB  # the data of the third have gone
    assert "no errors were found" in repository.restic("check", "--read-data")


def test_what_did_not_change_is_stored_once(host: BackedUp, repository: Repository, tmp_path: Path) -> None:
    job_to(host, repository.entry(tmp_path), compression=NO_COMPRESSION)
    fill(host, 32 * MIB)
    assert host.run().code == 0
    before = repository.size()
    (host.source / "new").write_text("a few words")
    assert host.run().code == 0
    assert repository.size() - before < 16 * MIB  # the piece that changed is stored anew; pieces have up to 8 MiB
    assert len(backups(host)) == 2


def test_a_list_of_manifests_is_one_look_into_the_repository(repository: Repository) -> None:
    target = repository.target()
    made = [manifest(number, 1_700_000_000.0 + number) for number in range(1, 4)]
    for one in made:
        catalogue.write(target, one, None)
    calls: list[tuple[str, ...]] = []
    step = Restic.step

    class Noting(Restic):
        def step(self, *words: str) -> Any:
            calls.append(words)
            return step(self, *words)

    noting = Noting(str(repository.path), Secret(PASSWORD))
    assert catalogue.read(noting, "web1/job", None).manifests == tuple(made)
    assert [words[0] for words in calls] == ["snapshots"]
    # Without us: restic gives it back, too.
    name = made[0].stored_name
    assert json.loads(repository.restic("dump", "--path", f"/{name}", "latest", f"/{name}"))["id"] == made[0].id


@pytest.mark.parametrize("tag", ["manifest=???", "manifest=AAAA", "manifest="])
def test_a_tag_that_is_no_manifest_is_not_believed(repository: Repository, tag: str) -> None:
    target = repository.target()
    target.put(f"{RUN}/manifest.json", b"the real one")
    repository.restic("tag", "--set", "vigilhost", "--set", tag)
    assert content_of(target, f"{RUN}/manifest.json") == b"the real one"


def test_the_printed_command_brings_it_back(repository: Repository) -> None:
    send(repository.target(), NAME, b"content")
    argv = repository.target().fetch_command(NAME)
    environment = {**os.environ, "RESTIC_PASSWORD": PASSWORD}
    assert subprocess.run(argv, env=environment, capture_output=True, check=True).stdout == b"content"


def test_snapshots_of_others_are_not_ours(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("theirs")
    repository.restic("backup", str(tmp_path / "file"))
    repository.restic("backup", "--tag", "vigilhost", str(tmp_path / "file"), str(repository.path / "config"))
    target = repository.target()
    send(target, NAME, b"ours")
    assert list(target.names("")) == [NAME]
    target.delete(NAME)
    assert len(json.loads(repository.restic("snapshots", "--json"))) == 2


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"password": Secret("canary-wrong-password")}, "wrong password"),
        ({"repository": "/nonexistent/repository"}, "run `restic init`, or set create: true"),
        ({"repository": "rest:http://me:canary-in-the-url@127.0.0.1:1/"}, "connection refused"),
    ],
)
def test_what_cannot_be_used_says_so_before_the_dump(repository: Repository, given: dict[str, Any], says: str) -> None:
    repository.target().check()
    with pytest.raises(TargetFailed, match=says) as failed:
        repository.target(**{"timeout": 10.0, **given}).check()
    assert "canary" not in str(failed.value)


def test_a_repository_is_made_where_that_is_asked(tmp_path: Path) -> None:
    need("restic")
    new = Repository(tmp_path / "new")
    new.target(create=True).check()
    new.target().check()


def test_another_restic_is_waited_for(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restic, "_ASK_AGAIN_S", 0.1)
    target = repository.target()
    send(target, NAME, b"x")
    with reading_its_data(repository) as lock:
        with pytest.raises(TargetFailed, match="already locked"):
            repository.target(lock_wait=0.0).delete(NAME)
        calls: list[str] = []
        monkeypatch.setattr(Restic, "step", unlocking(Restic.step, calls, lock))
        target.delete(NAME)
    assert calls.count("forget") > 1
    assert list(target.names("")) == []


class reading_its_data:  # noqa: N801 - reads as a statement
    """A lock of another, living restic."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository

    def __enter__(self) -> Callable[[], None]:
        self.feed, write = os.pipe()
        os.set_inheritable(self.feed, True)
        environment = {**os.environ, "RESTIC_PASSWORD": PASSWORD, "RESTIC_REPOSITORY": str(self.repository.path)}
        self.process = subprocess.Popen(["restic", "--no-cache", "backup", "--stdin", "--quiet"], stdin=self.feed,
                                        stdout=subprocess.DEVNULL, env=environment)  # fmt: skip
        os.close(self.feed)
        self.write = write
        wait_until(lambda: any((self.repository.path / "locks").iterdir()), "the lock")
        return self.end

    def end(self) -> None:
        if self.write >= 0:
            os.close(self.write)
            self.write = -1
        self.process.wait(30)

    def __exit__(self, *_: object) -> None:
        self.end()


def unlocking(step: Callable[..., Any], calls: list[str], unlock: Callable[[], None]) -> Callable[..., Any]:
    """The other restic ends when ours has tried once."""

    def noted(self: Restic, *words: str) -> Any:
        calls.append(words[0])
        if calls.count("forget") == 2:
            unlock()
        return step(self, *words)

    return noted


def test_a_dead_ones_lock_is_removed(repository: Repository) -> None:
    upload = repository.target().begin(NAME)
    upload.write(b"x")
    locks = repository.path / "locks"
    # restic writes it under another name first, which is no lock yet.
    wait_until(lambda: any("-tmp-" not in one.name for one in locks.iterdir()), "the lock")
    upload.abort()  # kills it
    assert list((repository.path / "locks").iterdir()) != []
    target = repository.target(lock_wait=0.0)
    target.sweep("web1/job")
    assert list((repository.path / "locks").iterdir()) == []
    assert repository.snapshots() == []


def test_a_manifest_that_was_replaced_but_not_forgotten_is_swept(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, name = repository.target(), f"{RUN}/manifest.json"
    target.put(name, b"old")
    with monkeypatch.context() as killed:
        killed.setattr(Restic, "_forget", lambda *_: None)
        target.put(name, b"new")
    assert len(repository.snapshots()) == 2
    assert content_of(repository.target(), name) == b"new"
    assert repository.target().sweep("web1/job") == [name]
    assert (len(repository.snapshots()), content_of(repository.target(), name)) == (1, b"new")


def test_a_restic_that_fails_in_the_middle_is_a_failure_with_its_words(repository: Repository) -> None:
    upload = repository.target().begin(NAME)
    upload.write(b"x" * MIB)
    (running,) = [one for one in psutil.Process().children() if one.name() == "restic"]
    running.kill()
    with pytest.raises(TargetFailed, match="restic was ended by SIGKILL"):
        write_on(upload, 40)
    upload.abort()
    assert repository.snapshots() == []


def test_damage_in_the_repository_shows_before_a_backup_counts(host: BackedUp, repository: Repository, tmp_path: Path
                                                               ) -> None:  # fmt: skip
    job_to(host, repository.entry(tmp_path, read_back="100%"), compression=NO_COMPRESSION)
    fill(host)
    assert host.run().code == 0
    largest = max((path for path in (repository.path / "data").rglob("*") if path.is_file()), key=os.path.getsize)
    content = bytearray(largest.read_bytes())
    content[1000] ^= 1
    largest.chmod(0o600)
    largest.write_bytes(content)
    (good,) = backups(host)
    found = verify(good, far(host), built_source(host.job_now), host.work(), level=1, now=1.0)
    assert "ciphertext verification failed" in found.problems[0]
    assert (found.manifest.level, found.manifest.is_verified) == (0, False)
    ran = host.run()
    assert (ran.code, ran.result["status"], ran.result["is_slot_done"]) == (1, "fail", False)
    assert "restic exited 1" in ran.result["error"]
    assert ran.result["targets"]["far"]["last_success_at"] == good.finished_at
    assert backups(host) == [good]
    assert len(repository.snapshots()) == 2  # the archive without a manifest has gone


def test_killed_while_it_sends_nothing_counts_and_the_next_run_sweeps(
    host: BackedUp, repository: Repository, tmp_path: Path
) -> None:
    job_to(host, repository.entry(tmp_path), compression=NO_COMPRESSION, limits={"rate": "4MB"})
    fill(host, MIB)
    assert host.run().code == 0
    (good,) = backups(host)
    fill(host, 24 * MIB)
    worker = host.start()
    before = repository.size()
    wait_until(lambda: repository.size() > before + 4 * MIB, "restic to store something", 60)
    os.kill(worker.pid, signal.SIGKILL)
    assert ended(worker).code == -signal.SIGKILL
    assert backups(host) == [good]
    fill(host, MIB)
    ran = host.run()
    assert ran.result["status"] == "ok", ran.result
    assert backups(host)[0] == good
    assert set(far(host).names("")) == {name for one in backups(host) for name in
                                        (one.stored_name, one.archives[0].stored)}  # fmt: skip
    comes_back(host, backups(host)[-1], tmp_path / "to")


def test_a_full_disk_fails_and_leaves_the_backup_before(
    host: BackedUp, small_disk: Path, empty_repository: Path, tmp_path: Path
) -> None:
    subprocess.run(["cp", "-r", empty_repository, small_disk / "repository"], check=True)
    repository = Repository(small_disk / "repository")
    job_to(host, repository.entry(tmp_path), compression=NO_COMPRESSION)
    fill(host)
    assert host.run().code == 0
    (good,) = backups(host)
    fill(host, 20 * MIB)
    ran = host.run()
    assert (ran.code, ran.result["status"]) == (1, "fail")
    assert "no space left" in ran.result["error"]
    assert backups(host) == [good]
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert host.run().code == 0
    comes_back(host, backups(host)[-1], tmp_path / "to")


def test_a_server_that_lets_nothing_be_removed_gets_good_backups_and_is_told_of(
    host: BackedUp, repository: Repository, tmp_path: Path
) -> None:
    need_rclone()
    with RcloneRestic() as server:
        subprocess.run(["cp", "-r", repository.path, server.data_dir / "repository"], check=True)
        entry = repository.entry(tmp_path, repository=f"rest:{server.url}/")
        job_to(host, entry, compression=NO_COMPRESSION, retention={"keep_last": 2})
        for number in range(4):
            fill(host)
            ran = host.run()
            assert (ran.code, ran.result["status"]) == (0, "ok" if number < 2 else "warn"), ran.result
        (warning,) = ran.result["warnings"]
        assert "retention: 2 backups that no rule keeps stay: restic rest:" in warning
        assert "snapshots may not be removed: blob not removed, server response: 403 Forbidden (403); let it" in warning
        assert os.listdir(server.data_dir / "repository" / "locks") == []

        Operator(host).types("pin", "job", backups(host)[0].id)  # a second manifest, beside the first
        assert [one.pinned for one in backups(host)] == [True, False, False, False]
        (warning,) = host.run().result["warnings"]
        assert "2 backups that no rule keeps stay" in warning
        newest = backups(host)[-1]
        comes_back(host, newest, tmp_path / "to")
        # As the cookbook has its owner tidy up; the two are an archive and its manifest.
        only = ("--tag", "vigilhost", "--group-by", "host")
        Repository(server.data_dir / "repository").restic("forget", *only, "--keep-last", "2", "--prune")
        assert [one.id for one in backups(host)] == [newest.id]
        comes_back(host, newest, tmp_path / "again")


def test_a_bucket_that_lets_nothing_be_removed_says_it_in_words_of_its_own() -> None:
    """Of Ceph's gateway, with a policy that lets a key delete below `locks/` only."""
    said = (
        "Remove(<snapshot/dadd2a0ba3>) returned error, retrying after 552.330144ms: client.RemoveObject: Access Denied."
    )
    found = restic._FORBIDDEN.search(said)
    assert found is not None
    assert found[1] == "client.RemoveObject: Access Denied."


def test_one_that_is_too_slow_fails_at_its_deadline(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = repository.target(deadline=1.0).begin(NAME)
    with pytest.raises(TargetFailed, match="did not end within 1 s"):
        write_on(upload, 1000)
    upload.abort()
    assert repository.snapshots() == []


def test_one_that_fails_does_not_spoil_the_others(host: BackedUp, repository: Repository, tmp_path: Path) -> None:
    away = Repository(tmp_path / "missing")
    targets = {
        "far": repository.entry(tmp_path), "away": away.entry(tmp_path),
        "store": {"type": "local", "path": str(host.store)},
    }  # fmt: skip
    host.job_now = host.job(targets=targets)
    fill(host)
    ran = host.run()
    assert (ran.code, ran.result["status"], ran.result["is_slot_done"]) == (1, "fail", True)
    assert [name for name, one in ran.result["targets"].items() if one["status"] == "ok"] == ["far", "store"]
    comes_back(host, backups(host)[0], tmp_path / "to")


def test_a_run_whose_restic_hangs_ends_when_it_is_asked_to_and_its_hooks_run(
    host: BackedUp, repository: Repository, tmp_path: Path
) -> None:
    after = script(host, f'echo "$VIGILHOST_STATUS" > {tmp_path}/said')
    job_to(host, repository.entry(tmp_path), compression=NO_COMPRESSION, hooks={"after": [after]})
    fill(host, 64 * MIB)
    worker = host.start()
    sending = psutil.Process(worker.pid)

    def suspended() -> bool:
        for one in sending.children():
            with contextlib.suppress(psutil.Error):  # it has just ended
                if one.name() == "restic" and "--stdin" in one.cmdline():
                    one.suspend()
                    return True
        return False

    wait_until(suspended, "restic to be sent something", 60)
    worker.send_signal(signal.SIGTERM)
    ran = ended(worker)
    assert (ran.code, ran.result["error"]) == (1, "ended by SIGTERM")
    assert (tmp_path / "said").read_text() == "fail\n"
    assert repository.snapshots() == []


# A line so slow that sending would take more than the whole run; more of the time than usual is left to the others.
CRAWLING = """
import threading
from backup import place
from backup.targets.restic import _ResticUpload
_ResticUpload.commit = lambda self: threading.Event().wait()
place._RESERVE = 0.7
"""


def test_one_whose_sending_would_take_all_the_time_does_not_spoil_the_others(
    host: BackedUp, repository: Repository, tmp_path: Path
) -> None:
    targets = {"far": repository.entry(tmp_path), "store": {"type": "local", "path": str(host.store)}}
    host.job_now = host.job(targets=targets, limits={"deadline": "30s"})
    fill(host)
    ran = ended(host.start(prelude=CRAWLING))
    assert (ran.code, ran.result["is_slot_done"]) == (1, True), ran.result
    assert "did not answer within" in ran.result["targets"]["far"]["error"]
    assert len(host.manifests()) == 1
    assert repository.snapshots() == []


def test_the_password_is_in_no_argument_and_no_word(host: BackedUp, repository: Repository, tmp_path: Path) -> None:
    job_to(host, repository.entry(tmp_path), compression=NO_COMPRESSION)
    fill(host)
    worker = host.start()
    seen: set[bytes] = set()
    while worker.poll() is None:
        seen |= set(command_lines())
    ran = ended(worker)
    assert ran.code == 0
    assert any(b"restic" in line and b"--stdin" in line for line in seen)
    assert not any(PASSWORD.encode() in line for line in seen)
    assert PASSWORD not in repr(ran)
    assert PASSWORD not in repr((backups(host), far(host), far(host).fetch_command(NAME)))
    assert catalogue.read(far(host), HOST, None).damaged == ()
    assert not re.search(PASSWORD, "".join(repository.restic("snapshots", "--json")))


def command_lines() -> Iterator[bytes]:
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            try:
                yield (directory / "cmdline").read_bytes()
            except OSError:
                continue  # it has ended
