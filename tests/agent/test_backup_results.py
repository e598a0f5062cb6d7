"""What is known of jobs, as files in a directory that may be somebody else's than who writes them."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from agent import backup_results
from agent.backup_results import Result
from tests.backup.helper_process import AGENT

USER = pwd.getpwnam(AGENT)
as_root = pytest.mark.root("only root can give a file away")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    return made


@as_root
def test_what_root_writes_belongs_to_the_agent(state: Path) -> None:
    os.chown(state, USER.pw_uid, USER.pw_gid)
    backup_results.save(str(state), "job", Result(1.0))
    made = [state / "backup-results", state / "backup-results" / "job.json"]
    assert [(path.stat().st_uid, path.stat().st_gid) for path in made] == [(USER.pw_uid, USER.pw_gid)] * 2
    assert backup_results.load(str(state), "job") == Result(1.0)


@as_root
def test_a_link_put_in_the_place_of_the_new_directory_gives_nothing_away(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent's user, in the moment between root's mkdir and its chown."""
    os.chown(state, USER.pw_uid, USER.pw_gid)
    shadow = tmp_path / "shadow"
    shadow.mkdir()
    mkdir = os.mkdir

    def overtaken(path: str, mode: int) -> None:
        mkdir(path, mode)
        os.rename(path, f"{path}.away")
        os.symlink(shadow, path)

    monkeypatch.setattr(os, "mkdir", overtaken)
    with pytest.raises(OSError, match="Not a directory"):
        backup_results.save(str(state), "job", Result(1.0))
    assert (shadow.stat().st_uid, list(shadow.iterdir())) == (0, [])


@pytest.mark.parametrize("how", ["a link", "a pipe"])
def test_what_is_no_file_is_not_read(state: Path, tmp_path: Path, how: str) -> None:
    backup_results.save(str(state), "job", Result(1.0))
    file = state / "backup-results" / "job.json"
    file.rename(tmp_path / "elsewhere")
    if how == "a link":
        file.symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(file)
    assert backup_results.load(str(state), "job") is None
