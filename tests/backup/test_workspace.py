"""Where a run locks and works: as root only where nobody else can put something in the place of something."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from backup.errors import Refused
from backup.worker import lock
from backup.workspace import workspace
from tests.backup.helper_process import AGENT

USER = pwd.getpwnam(AGENT)
Place = Callable[[str], AbstractContextManager[Any]]
PLACES: tuple[Place, ...] = (lambda state: lock(state, "ssh"), lambda state: workspace(state, "ssh", None))

pytestmark = pytest.mark.root("only root works where others own")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    return made


@pytest.mark.parametrize("place", PLACES, ids=["lock", "workspace"])
def test_root_empties_nothing_that_the_agent_leads_it_to(state: Path, tmp_path: Path, place: Place) -> None:
    for name in ("scratch", "locks"):
        (tmp_path / name / "ssh").mkdir(parents=True)
        (tmp_path / name / "ssh" / "sshd_config").touch()
        (state / name).symlink_to(tmp_path / name)
    os.chown(state, USER.pw_uid, USER.pw_gid)
    with pytest.raises(Refused, match=r"owned by user 1; .*start vigilhost-backup\.socket, or .* with --state-dir"):
        place(str(state)).__enter__()
    for name in ("scratch", "locks"):
        assert [one.name for one in (tmp_path / name).rglob("*")] == ["ssh", "sshd_config"]


@pytest.mark.parametrize("place", PLACES, ids=["lock", "workspace"])
def test_a_directory_above_that_is_somebody_elses_is_no_better(state: Path, place: Place) -> None:
    os.chown(state.parent, USER.pw_uid, USER.pw_gid)
    with pytest.raises(Refused, match="owned by user 1"):
        place(str(state)).__enter__()
    assert list(state.iterdir()) == []


def test_a_directory_in_a_shared_place_is_swept_by_its_own_jobs_alone(state: Path, tmp_path: Path) -> None:
    """Another state directory has locks of its own: what lies there may be in use."""
    (tmp_path / "other").mkdir(mode=0o700)
    with workspace(str(state), "ssh", AGENT) as first:
        with workspace(str(tmp_path / "other"), "ssh", AGENT) as second:
            assert os.path.isdir(first)
            os.mkdir(f"{second}.killed", mode=0o700)
        with workspace(str(tmp_path / "other"), "ssh", AGENT):
            assert os.path.isdir(first)
            assert not os.path.exists(f"{second}.killed")


def test_a_directory_that_is_missing_is_made(state: Path) -> None:
    with lock(str(state / "new"), "ssh") as is_ours:
        assert is_ours
