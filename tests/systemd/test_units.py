"""The units as systemd 252 judges them, without starting anything."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.servers.programs import program

UNITS = Path(__file__).parents[2] / "systemd"
ALL = sorted(path.name for path in UNITS.iterdir() if path.suffix in (".service", ".socket", ".timer"))
# The most a unit may expose, in tenths; 100 is a program that may do everything.
MOST_EXPOSED = {
    "vigilhost.service": 20,
    "vigilhost-backup@.service": 30,
    "vigilhost-drill@.service": 20,
}
# Drop-ins that an operator may copy, and the service each is for.
DROP_INS = {
    "backup-snapshots.conf": "vigilhost-backup@.service",
    "docker.conf": "vigilhost.service",
    "journal.conf": "vigilhost.service",
    "process-io.conf": "vigilhost.service",
}
_EXEC = re.compile(r"^Exec\w+=[-@:+!]*(/\S+)", re.MULTILINE)


@pytest.mark.server("systemd-analyze")
@pytest.mark.parametrize("name", [name for name in ALL if name.endswith(".service")])
def test_no_service_exposes_more_than_it_may(name: str) -> None:
    argv = [program("systemd-analyze"), "security", "--no-pager", "--offline=yes", f"--threshold={MOST_EXPOSED[name]}"]
    done = subprocess.run([*argv, UNITS / name], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


@pytest.mark.server("systemd-analyze")
def test_the_threshold_is_one_that_a_laxer_service_exceeds(tmp_path: Path) -> None:
    text = (UNITS / "vigilhost.service").read_text()
    lax = tmp_path / "vigilhost.service"
    lax.write_text(text.replace("CapabilityBoundingSet=\n", "").replace("NoNewPrivileges=yes\n", ""))
    assert lax.read_text() != text
    argv = [program("systemd-analyze"), "security", "--no-pager", "--offline=yes", "--threshold=20", lax]
    assert subprocess.run(argv, capture_output=True, timeout=60).returncode != 0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root file system as far as systemd-analyze looks: Debian's units, ours, and the programs they start."""
    theirs, ours = tmp_path / "usr/lib/systemd/system", tmp_path / "etc/systemd/system"
    shutil.copytree("/usr/lib/systemd/system", theirs, symlinks=True)
    ours.mkdir(parents=True)
    for name in ALL:
        shutil.copy(UNITS / name, ours)
        for path in _EXEC.findall((UNITS / name).read_text()):
            (tmp_path / path[1:]).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path[1:]).write_text("#!/bin/sh\n")
            (tmp_path / path[1:]).chmod(0o755)
    return tmp_path


def verified(root: Path, name: str) -> str:
    """What systemd has to say about a unit; a misspelt setting is no error to it, so all it says counts."""
    argv = [program("systemd-analyze"), "verify", "--man=no", f"--root={root}", name]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60).stderr


@pytest.mark.server("systemd-analyze")
@pytest.mark.parametrize("name", ALL)
def test_systemd_has_nothing_to_say_about_a_unit(root: Path, name: str) -> None:
    assert verified(root, name.replace("@.", "@1.")) == ""


@pytest.mark.server("systemd-analyze")
def test_systemd_says_so_where_a_setting_is_misspelt(root: Path) -> None:
    unit = root / "etc/systemd/system/vigilhost.service"
    unit.write_text(unit.read_text().replace("ProtectHostname=", "ProtectHostName="))
    assert "Unknown key 'ProtectHostName'" in verified(root, "vigilhost.service")


@pytest.mark.server("systemd-analyze")
@pytest.mark.parametrize("name", sorted(path.name for path in (UNITS / "drop-ins").iterdir()))
def test_systemd_has_nothing_to_say_about_a_drop_in(root: Path, name: str) -> None:
    directory = root / "etc/systemd/system" / f"{DROP_INS[name]}.d"
    directory.mkdir()
    drop_in = directory / name
    shutil.copy(UNITS / "drop-ins" / name, drop_in)
    unit = DROP_INS[name].replace("@.", "@1.")
    assert verified(root, unit) == ""
    drop_in.write_text(drop_in.read_text() + "Nonsens=yes\n")  # or else systemd would not have read it
    assert "Unknown key 'Nonsens'" in verified(root, unit)
