from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from agent.statedir import StateDirError, claim


def test_it_is_made_private_and_held_by_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state"
    held = claim(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    with pytest.raises(
        StateDirError, match=rf"in use by another agent \(pid {os.getpid()}\); stop it, or choose another"
    ):
        claim(str(path))
    os.close(held)
    os.close(claim(str(path)))


def test_what_cannot_be_a_directory_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        StateDirError, match=r"state_dir: .*/file/state: not a directory; choose another with --state-dir"
    ):
        claim(str(tmp_path / "file" / "state"))


def test_a_full_state_directory_is_held_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()  # as on a full disk, the file with the process id cannot be written
    held = claim(str(tmp_path))
    with pytest.raises(StateDirError, match=r"in use by another agent \(pid unknown\)"):
        claim(str(tmp_path))
    os.close(held)
