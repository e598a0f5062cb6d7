"""A drill as the agent has it done: what its worker says, and what it leaves behind."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from click.testing import CliRunner

from agent.backup_keeper import worker_argv
from agent.cli import backup_drill
from agent.cli.group import cli
from backup import catalogue
from backup.errors import TargetFailed
from tests.backup.hosts import HOST, REPOSITORY, BackedUp, age_key


def drilled(host: BackedUp) -> dict[str, Any]:
    """The result that the worker tells."""
    argv = worker_argv(host=HOST, config=str(host.directory / "vigilhost.yaml"),
                       jobs_dir=str(host.directory / "backup.d"), state_dir=str(host.directory / "state"))  # fmt: skip
    done = subprocess.run([*argv, "--drill", "job"], capture_output=True, text=True, check=False,
                          env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(REPOSITORY)})  # fmt: skip
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode == 0) is (result["status"] == "ok"), (result, done.stderr)
    assert result["is_slot_done"] is (result["status"] == "ok")
    return result


def has_no_backup(host: BackedUp) -> None:
    host.job()


def has_no_key(host: BackedUp) -> None:
    recipient, _ = age_key(host)
    host.job(encryption={"recipients": [recipient]})
    host.run()


def has_another_key(host: BackedUp) -> None:
    recipient, _ = age_key(host)
    _, other = age_key(host, "other.key")
    host.job(encryption={"recipients": [recipient], "identity": str(other)})
    host.run()


def has_a_key_that_is_gone(host: BackedUp) -> None:
    recipient, key = age_key(host)
    host.job(encryption={"recipients": [recipient], "identity": str(key)})
    host.run()
    key.unlink()


def has_a_target_that_is_away(host: BackedUp) -> None:
    host.job()
    host.run()
    host.store.rename(host.directory / "unplugged")


def cannot_keep_its_report(host: BackedUp) -> None:
    host.job()
    host.run()
    (host.directory / "state" / "backup-drills").touch()


@pytest.mark.parametrize(
    ("happens", "said"),
    [
        (has_no_backup, "there is no complete backup"),
        (has_no_key, "is encrypted; name a file with a private key"),
        (has_another_key, "is not a private key that it was encrypted for"),
        (has_a_key_that_is_gone, "cannot be read"),
        (has_a_target_that_is_away, "there is no complete backup"),
        (cannot_keep_its_report, "passed its drill, which cannot be noted: "),
    ],
)
def test_what_could_not_be_drilled_is_not_failed(host: BackedUp, happens: Any, said: str) -> None:
    happens(host)
    result = drilled(host)
    assert result["status"] == "not_done"
    assert said in result["error"]


def test_a_backup_that_is_wanting_fails_also_where_that_cannot_be_kept(host: BackedUp) -> None:
    host.job(drill={"assertions": [{"file_exists": ["nowhere"]}]})
    host.run()
    (host.directory / "state" / "backup-drills").touch()
    result = drilled(host)
    assert (result["status"], result["passed"]) == ("fail", False)
    assert "nowhere exists: not there" in result["error"]
    assert "the report is not kept" in result["error"]


def by_hand(host: BackedUp) -> Any:
    where = ["--config", str(host.directory / "vigilhost.yaml"), "--jobs", str(host.directory / "backup.d"),
             "--state-dir", str(host.directory / "state")]  # fmt: skip
    return CliRunner().invoke(cli, ["backup", "drill", "job", *where])


def test_a_drill_whose_backup_cannot_be_marked_leaves_its_report(
    host: BackedUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> None:
        raise TargetFailed("store: read-only file system")

    host.job()
    host.run()
    monkeypatch.setattr(catalogue, "write", refuses)
    done = by_hand(host)
    assert done.exit_code == 1
    assert "passed its drill, which cannot be noted: store: read-only file system" in done.stderr
    (report,) = (host.directory / "state" / backup_drill.EVIDENCE).iterdir()
    assert json.loads(report.read_text())["passed"]
