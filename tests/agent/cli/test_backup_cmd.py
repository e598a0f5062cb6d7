"""`vigilhost backup` with real jobs: what it prints, what it changes, and its exit status."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from agent import backup_results
from agent.cli.group import cli
from agent.control import ControlSocket
from backup import catalogue
from backup import verify as verifying
from backup.manifest import Manifest
from backup.worker import lock
from tests.backup.hosts import HOST, BackedUp, age_key, command_job, tree
from tests.servers.process import wait_until
from tests.servers.programs import need


class Operator:
    """Types commands; `host` is the one that is backed up."""

    def __init__(self, host: BackedUp) -> None:
        self.host = host
        self.config = host.directory / "vigilhost.yaml"
        self.config.write_text(f"hostname: {HOST}\n")

    def types(self, *words: str, code: int = 0) -> Result:
        where = ["--config", str(self.config), "--jobs", str(self.host.directory / "backup.d"), "--state-dir",
                 str(self.host.directory / "state")]  # fmt: skip
        done = CliRunner(env={"COLUMNS": "200"}).invoke(cli, ["backup", words[0], *where, *words[1:]])
        assert done.exit_code == code, (done.stdout, done.stderr, done.exception)
        return done

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads(self.types(*words, "--json", code=code).stdout)

    def known(self, job: str = "job") -> backup_results.Result:
        found = backup_results.load(str(self.host.directory / "state"), job)
        assert found is not None
        return found


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    need("tar", "zstd", "age", "setpriv")
    host = BackedUp(tmp_path)
    (host.source / "file").write_text("hello\n")
    (host.source / "more").mkdir()
    (host.source / "more" / "link").symlink_to("../file")
    host.job()
    return Operator(host)


def everything(host: BackedUp) -> dict[str, Any]:
    return {"store": tree(host.store), "source": tree(host.source)}


def stored_archive(host: BackedUp) -> Path:
    (found,) = host.store.rglob("files.tar.zst")
    return found


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_run_says_where_the_backup_is_and_is_remembered_for_the_agent(operator: Operator) -> None:
    done = operator.types("run", "job")
    (made,) = operator.host.manifests()
    assert done.stdout.startswith(f"store: {made.id}, ")
    known = operator.known()
    assert (known.status, known.backup, known.targets["store"].last_success_at) == ("ok", made.id, made.finished_at)


def test_a_run_that_fails_says_why_and_ends_with_1(operator: Operator) -> None:
    operator.host.job(source={"files": {"paths": ["/nowhere"]}})
    done = operator.types("run", "job", code=1)
    assert "/nowhere: no such file or directory" in done.stderr
    assert operator.known().status == "fail"
    assert operator.host.stored() == []
    listed = operator.types("list").stderr
    assert "job: the last run, " in listed
    assert "ago, failed: " in listed
    assert "/nowhere: no such file or directory" in listed


def test_a_run_while_the_job_runs_ends_with_75_and_changes_nothing(operator: Operator) -> None:
    with lock(str(operator.host.directory / "state"), "job"):
        assert operator.json("run", "job", code=75)["status"] == "busy"
        assert "runs now" in operator.types("prune", "job", code=75).stderr
    assert operator.known().status == "never"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "nope"), "nope: no such job in"),
        (("list", "nope"), "nope: no such job in"),
        (("list", "job", "--target", "nope"), "there are: store"),
        (("restore", "job"), "--to: is missing"),
        (("verify", "job", "--at", "yesterday"), "'yesterday' is no time"),
        (("verify", "job", "2023", "more"), "write a job, a backup's id"),
        (("show", "job", "20", "--target", "nope"), "nope: no such target"),
        (("prune", "--target", "nope"), "nope: no such target"),
    ],
)
def test_what_was_asked_wrongly_ends_with_2(operator: Operator, words: tuple[str, ...], said: str) -> None:
    assert said in operator.types(*words, code=2).stderr


def test_a_job_that_is_written_wrongly_ends_with_2_and_says_where(operator: Operator) -> None:
    (operator.host.directory / "backup.d" / "job.yaml").write_text("sourse: {}\n")
    assert "did you mean 'source'" in operator.types("list", code=2).stderr


def test_list_and_show_tell_what_is_kept(operator: Operator) -> None:
    operator.types("run", "job")
    (made,) = operator.host.manifests()
    (listed,) = operator.json("list")["backups"]
    assert (listed["id"], listed["level"], listed["pinned"], listed["target"]) == (made.id, 2, False, "store")
    assert made.id in operator.types("list").stdout
    shown = operator.types("show", made.id[:18]).stdout
    assert made.archives[0].sha256 in shown
    assert "tar --extract" in shown
    assert operator.json("show", "job")["id"] == made.id


def test_a_manifest_that_was_changed_is_said_and_the_others_are_listed(operator: Operator) -> None:
    operator.types("run", "job")
    operator.types("run", "job")
    first = operator.host.manifests()[0]
    flip(operator.host.store / first.stored_name)
    done = operator.types("list", code=1)
    assert first.stored_name in done.stderr
    assert operator.host.manifests()[0].id in done.stdout


def test_verify_finds_a_flipped_bit_and_restore_refuses_it(operator: Operator, tmp_path: Path) -> None:
    operator.types("run", "job")
    assert "is right, proved at level 2" in operator.types("verify").stdout
    flip(stored_archive(operator.host))
    refused = operator.types("restore", "job", "--to", str(tmp_path / "to"), code=1)
    assert "not those that were written" in refused.stderr
    assert not (tmp_path / "to").exists()
    (found,) = operator.json("verify", code=1)["verified"]
    assert "not those that were written" in found["problems"][0]
    assert not operator.host.manifests()[0].is_verified


def test_a_copy_that_is_found_damaged_is_no_longer_verified_for_the_agent(operator: Operator) -> None:
    operator.types("run", "job")
    (kept,) = operator.known().targets["store"].kept
    assert (kept.verified, kept.level) == (True, 2)
    flip(stored_archive(operator.host))
    operator.types("verify", code=1)
    (kept,) = operator.known().targets["store"].kept
    assert (kept.verified, kept.level) == (False, 0)


def test_what_happened_to_a_backup_while_others_were_verified_stays(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of four takes its time; meanwhile another is pinned, and one deleted."""
    for _ in range(4):
        operator.types("run", "job")
    first, pinned, doomed, last = operator.host.manifests()
    verify = verifying.verify

    def meanwhile(manifest: Manifest, *given: Any, **more: Any) -> verifying.Verified:
        if manifest.id == first.id:
            target = operator.host.target()
            catalogue.write(target, replace(pinned, pinned=True, drilled_at=5.0), None)
            catalogue.delete(target, doomed)
        return verify(manifest, *given, **more)

    monkeypatch.setattr(verifying, "verify", meanwhile)
    done = operator.types("verify", "job", "--all")
    assert f"store: {doomed.id} is gone; it was deleted meanwhile" in done.stderr
    assert doomed.id not in done.stdout
    left = {one.id: one for one in operator.host.manifests()}
    assert list(left) == [first.id, pinned.id, last.id]
    assert (left[pinned.id].pinned, left[pinned.id].drilled_at) == (True, 5.0)
    assert (left[pinned.id].verified_at or 0.0) > (pinned.verified_at or 0.0)


def test_verify_of_a_copy_that_cannot_be_read_now_changes_nothing(operator: Operator) -> None:
    operator.types("run", "job")
    archive = stored_archive(operator.host)
    archive.rename(operator.host.directory / "kept")
    archive.mkdir()
    assert "is not a regular file" in operator.types("verify", code=1).stderr
    archive.rmdir()
    (operator.host.directory / "kept").rename(archive)
    assert operator.host.manifests()[0].is_verified


def test_a_restore_equals_the_original_and_its_commands_do_the_same(operator: Operator, tmp_path: Path) -> None:
    operator.types("run", "job")
    told = operator.json("restore", "job", "latest", "--to", str(tmp_path / "to"))
    below = str(operator.host.source).lstrip("/")
    assert tree(tmp_path / "to" / below) == tree(operator.host.source)
    (tmp_path / "by hand").mkdir()
    commands = told["recipe"].replace("DIRECTORY", f"'{tmp_path / 'by hand'}'")
    subprocess.run(["sh", "-ec", commands], check=True, capture_output=True)
    assert tree(tmp_path / "by hand" / below) == tree(operator.host.source)


def test_a_restore_of_a_time_takes_the_newest_that_was_finished_by_then(operator: Operator, tmp_path: Path) -> None:
    operator.types("run", "job")
    (operator.host.source / "file").write_text("changed\n")
    operator.types("run", "job")
    first = operator.host.manifests()[0]
    told = operator.json("restore", "--at", str(first.finished_at), "--to", str(tmp_path / "to"))
    assert told["id"] == first.id
    restored = tmp_path / "to" / str(operator.host.source).lstrip("/") / "file"
    assert restored.read_text() == "hello\n"
    refused = operator.types("restore", "--at", "2001-01-01", "--to", "/x", code=1).stderr
    assert f"of that time or before; the oldest is {first.id}, of " in refused
    assert "no job is called so; jobs: job" in operator.types("restore", "nope", "--to", "/x", code=1).stderr


def test_what_the_system_refuses_is_one_sentence_with_its_path(operator: Operator, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "app.db")) as database:
        database.execute("CREATE TABLE users (name)")
    operator.host.job("app", source={"sqlite": {"paths": [str(tmp_path / "app.db")]}})
    operator.types("run", "app")
    said = operator.types("restore", "app", "--to", str(tmp_path / "missing" / "app.db"), code=1).stderr
    assert said.startswith(f"{tmp_path}/missing/app.db")
    assert said.endswith(": no such file or directory\n")
    assert len(said.splitlines()) == 1


def test_a_restore_over_something_needs_force_and_moves_it_aside(operator: Operator, tmp_path: Path) -> None:
    operator.types("run", "job")
    to = tmp_path / "to"
    to.mkdir()
    (to / "mine").write_text("mine")
    assert "not empty" in operator.types("restore", "--to", str(to), code=1).stderr
    operator.types("restore", "--to", str(to), "--force")
    (aside,) = tmp_path.glob("to.before-*")
    assert (aside / "mine").read_text() == "mine"
    assert not (to / "mine").exists()


def test_dry_runs_change_nothing(operator: Operator, tmp_path: Path) -> None:
    for _ in range(4):
        operator.types("run", "job")
    operator.host.job(retention={"keep_last": 2})
    before = everything(operator.host)
    said = operator.types("restore", "--to", str(tmp_path / "to"), "--dry-run").stdout
    assert "would go to" in said
    assert "tar --extract" in said
    operator.types("prune", "--dry-run")
    assert everything(operator.host) == before
    assert not (tmp_path / "to").exists()


def test_prune_deletes_what_its_dry_run_named_with_the_reasons(operator: Operator) -> None:
    for _ in range(4):
        operator.types("run", "job")
    oldest = operator.host.manifests()[0].id
    assert operator.types("pin", oldest).stdout == f"store: {oldest} is pinned\n"
    operator.host.job(retention={"keep_last": 2})
    (planned,) = operator.json("prune", "--dry-run")["plans"]
    actions = [(one["action"], one["reasons"][0]) for one in planned["decisions"]]
    assert actions == [("keep", "pinned"), ("delete", "no rule keeps it"),
                       ("keep", "among the 2 that stay in any case"), ("keep", "newest verified")]  # fmt: skip
    kept = [one["id"] for one in planned["decisions"] if one["action"] == "keep"]
    operator.types("prune")
    assert [one.id for one in operator.host.manifests()] == kept
    operator.types("unpin", oldest)
    operator.types("prune")
    assert [one.id for one in operator.host.manifests()] == kept[1:]


def test_a_backup_is_pinned_by_its_time_as_a_restore_finds_it(operator: Operator) -> None:
    for _ in range(2):
        operator.types("run", "job")
    first, last = operator.host.manifests()
    when = str(first.finished_at)
    assert operator.types("pin", "job", "--at", when).stdout == f"store: {first.id} is pinned\n"
    assert [one.pinned for one in operator.host.manifests()] == [True, False]
    operator.types("unpin", "job", "latest", "--at", when)
    assert [one.pinned for one in operator.host.manifests()] == [False, False]
    assert "leave out the id" in operator.types("pin", last.id, "--at", when, code=2).stderr
    assert "'yesterday' is no time" in operator.types("pin", "job", "--at", "yesterday", code=2).stderr


def test_prune_that_would_delete_most_is_refused_until_it_is_allowed(operator: Operator) -> None:
    for _ in range(5):
        operator.types("run", "job")
    operator.host.job(retention={"keep_last": 2})
    assert "more than half" in operator.types("prune", code=1).stderr
    assert len(operator.host.manifests()) == 5
    operator.types("prune", "--allow-most")
    assert len(operator.host.manifests()) == 2


def test_a_drill_leaves_evidence_and_a_measured_restore_time(operator: Operator) -> None:
    path = str(operator.host.source / "file").lstrip("/")
    operator.host.job(drill={"assertions": [{"file_exists": [path]}]})
    operator.types("run", "job")
    report = operator.json("drill", "job")
    assert report["passed"]
    (made,) = operator.host.manifests()
    assert made.drilled_at is not None
    assert operator.known().rto_s == made.rto_s == report["rto_s"]
    (evidence,) = (operator.host.directory / "state" / "backup-drills").iterdir()
    assert json.loads(evidence.read_text()) == report


def test_a_drill_whose_assertion_is_not_met_fails(operator: Operator) -> None:
    operator.host.job(drill={"assertions": [{"file_exists": ["nowhere"]}]})
    operator.types("run", "job")
    assert "FAIL files: nowhere exists: not there" in operator.types("drill", code=1).stdout
    assert operator.host.manifests()[0].drilled_at is None
    assert operator.known().drill_status == "fail"


def test_a_drill_that_the_agent_could_not_have_done_is_said_in_the_list(operator: Operator) -> None:
    operator.types("run", "job")
    known = operator.known()
    known.was_drilled({}, "not_done", "its key cannot be read")
    backup_results.save(str(operator.host.directory / "state"), "job", known)
    assert "job: the last drill could not be done: its key cannot be read\n" in operator.types("list").stderr
    operator.types("drill")
    assert "drill" not in operator.types("list").stderr


def test_an_encrypted_backup_is_restored_with_its_key_only(
    operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipient, key = age_key(operator.host)
    operator.host.job(encryption={"recipients": [recipient]})
    operator.types("run", "job")
    assert "private key" in operator.types("restore", "--to", str(tmp_path / "to"), code=1).stderr
    monkeypatch.chdir(key.parent)
    operator.types("restore", "--to", "to", "--identity", key.name)
    assert tree(tmp_path / "to" / str(operator.host.source).lstrip("/")) == tree(operator.host.source)


def test_a_database_and_a_command_come_back(operator: Operator, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "app.db")) as database, database:
        database.execute("CREATE TABLE users (name)")
        database.execute("INSERT INTO users VALUES ('ada')")
    operator.host.job("app", source={"sqlite": {"paths": [str(tmp_path / "app.db")]}})
    operator.host.job("words", source={"command": {"argv": ["/bin/echo", "two words"]}})
    operator.types("run", "app")
    operator.types("run", "words")
    operator.types("restore", "app", "--to", str(tmp_path / "back.db"))
    with closing(sqlite3.connect(tmp_path / "back.db")) as database:
        assert database.execute("SELECT name FROM users").fetchall() == [("ada",)]
    operator.types("restore", "words", "--to", str(tmp_path / "words"))
    restored = tmp_path / "words"
    file = restored if restored.is_file() else next(restored.iterdir())
    assert file.read_text() == "two words\n"
    assert "which job?" in operator.types("verify", "latest", code=2).stderr


def test_the_backups_of_another_host_are_restored_but_not_written_to(operator: Operator, tmp_path: Path) -> None:
    operator.types("run", "job")
    operator.config.write_text("hostname: new-host\n")
    assert "no complete backup" in operator.types("verify", "job", code=1).stderr
    before = everything(operator.host)
    operator.types("verify", "job", "--host", HOST)
    operator.types("restore", "job", "--host", HOST, "--to", str(tmp_path / "to"))
    assert tree(tmp_path / "to" / str(operator.host.source).lstrip("/")) == tree(operator.host.source)
    assert everything(operator.host) == before


def test_doctor_says_what_would_fail_and_what_no_job_covers(operator: Operator, tmp_path: Path) -> None:
    (tmp_path / "root" / "var/lib/docker/volumes/shop/_data").mkdir(parents=True)
    said = operator.types("doctor", "--root", str(tmp_path / "root")).stdout
    assert "docker volumes found" in said
    assert "no job backs it up" in said
    operator.host.job(source={"files": {"paths": ["/nowhere"]}})
    assert "FAIL job: source: /nowhere" in operator.types("doctor", "job", code=1).stdout
    with lock(str(operator.host.directory / "state"), "job"):
        assert "ok   job: runs now; its source was not asked" in operator.types("doctor", "job").stdout


def test_a_run_that_is_interrupted_ends_in_good_order(operator: Operator) -> None:
    host = operator.host
    begun = host.directory / "begun"
    command_job(host, f"touch {begun}; exec sleep 60")
    argv = [sys.executable, "-m", "agent.cli.main", "backup", "run", "job", "--config", str(operator.config), "--jobs",
            str(host.directory / "backup.d"), "--state-dir", str(host.directory / "state")]  # fmt: skip
    running = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_until(begun.exists, "the program of the job")
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to the command and its worker
    _, said = running.communicate(timeout=30)
    assert (running.returncode, "ended by SIGINT" in said) == (1, True), said
    assert (operator.known().status, host.stored()) == ("fail", [])


def test_the_running_agent_is_asked_over_its_socket(operator: Operator) -> None:
    state = operator.host.directory / "state"
    asked = []

    async def act() -> Result:
        async def answer(request: Mapping[str, Any]) -> str:
            asked.append(request["job"])
            return "job: runs as soon as no other job runs"

        socket = ControlSocket(str(state), {"backup_run": answer})
        await socket.start()
        try:
            return await asyncio.to_thread(operator.types, "run", "job", "--agent")
        finally:
            await socket.stop()

    assert asyncio.run(act()).stdout == "job: runs as soon as no other job runs\n"
    assert (asked, operator.host.stored()) == (["job"], [])


@pytest.mark.root("only root works where others own")
def test_root_does_not_work_in_the_agents_directory(operator: Operator, tmp_path: Path) -> None:
    operator.types("run", "job")
    state = operator.host.directory / "state"
    (tmp_path / "etc" / "job").mkdir(parents=True)
    (tmp_path / "etc" / "job" / "precious").touch()
    (state / "scratch").rmdir()
    (state / "scratch").symlink_to(tmp_path / "etc")
    os.chown(state, 1, 1)
    for words in (("run",), ("verify",), ("restore", "--to", str(tmp_path / "to")), ("drill",), ("prune",)):
        said = operator.types(words[0], "job", *words[1:], code=1).stderr
        assert f"{state}: owned by user 1; it must belong to root" in said
        assert "start vigilhost-backup.socket, or name a directory of root's with --state-dir" in said
    assert (tmp_path / "etc" / "job" / "precious").exists()
    assert len(operator.json("list")["backups"]) == 1
    assert operator.known().status == "ok"


def test_what_systemd_must_let_jobs_write_to_is_printed_and_installed(operator: Operator) -> None:
    operator.host.job("other", targets={
        "odd": {"type": "local", "path": '/srv/100% "odd" place'},
        "far": {"type": "rsync", "server": "backup.example.org", "path": "/srv"},
        "dedup": {"type": "restic", "repository": "/srv/restic", "password": "secret"},
        "same": {"type": "local", "path": "/srv/backup"},
    })  # fmt: skip
    operator.host.job("job", targets={"same": {"type": "local", "path": "/srv/backup"}})
    printed = operator.types("destinations").stdout
    assert printed.splitlines()[1:] == [
        "[Service]",
        "# other", 'ReadWritePaths="-/srv/100%% \\"odd\\" place"',
        "# job, other", 'ReadWritePaths="-/srv/backup"',
        "# other", 'ReadWritePaths="-/srv/restic"',
    ]  # fmt: skip
    into = operator.host.directory / "units" / "vigilhost-backup@.service.d"
    for _ in range(2):
        assert "written: " in operator.types("destinations", "--install", "--into", str(into)).stdout
    assert (into / "destinations.conf").read_text() == printed
    assert [file.name for file in into.iterdir()] == ["destinations.conf"]
    into.parent.joinpath("vigilhost-backup@.service").write_text("[Service]\nExecStart=/bin/true\n")
    need("systemd-analyze")
    done = subprocess.run(["systemd-analyze", "verify", "./vigilhost-backup@1.service"], cwd=into.parent,
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout + done.stderr == ""
