"""The units as systemd itself reads them: no word that it does not know, and no more rights than promised."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.backup.hosts import REPOSITORY
from tests.servers.programs import need

UNITS = REPOSITORY / "systemd"
DROP_INS = UNITS / "drop-ins"
# The most exposure that each may have, in tenths, as `systemd-analyze security` counts it.
EXPOSURE = {"vigilhost.service": 20, "vigilhost-backup@.service": 30, "vigilhost-drill@.service": 20}
# Which unit a drop-in is for.
DROP_IN_OF = {
    "process-io.conf": "vigilhost.service", "docker.conf": "vigilhost.service", "journal.conf": "vigilhost.service",
    "backup-snapshots.conf": "vigilhost-backup@.service",
}  # fmt: skip


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units as a host has them, but with a program and a manual that are there."""
    need("systemd-analyze")
    for unit in UNITS.iterdir():
        if unit.suffix in (".service", ".socket"):
            text = unit.read_text().replace("/usr/bin/vigilhost", "/bin/true")
            (tmp_path / unit.name).write_text(re.sub(r"^Documentation=.*$", "", text, flags=re.MULTILINE))
    return tmp_path


def verify(directory: Path) -> str:
    """All that systemd has to say of the units; it warns and exits 0 where a word is misspelt."""
    names = [name.replace("@.", "@1.") for name in sorted(path.name for path in directory.iterdir() if path.is_file())]
    done = subprocess.run(["systemd-analyze", "verify", *(f"./{name}" for name in names)], cwd=directory,
                          capture_output=True, text=True, check=False)  # fmt: skip
    return done.stdout + done.stderr


def test_systemd_has_nothing_to_say_against_the_units(installed: Path) -> None:
    assert verify(installed) == ""


def test_a_misspelt_word_would_be_noticed(installed: Path) -> None:
    unit = installed / "vigilhost-backup@.service"
    unit.write_text(unit.read_text().replace("PrivateTmp", "PrivatTmp"))
    assert "PrivatTmp" in verify(installed)


@pytest.mark.parametrize("drop_in", sorted(path.name for path in DROP_INS.iterdir()))
def test_systemd_has_nothing_to_say_against_a_drop_in(installed: Path, drop_in: str) -> None:
    directory = installed / f"{DROP_IN_OF[drop_in]}.d"
    directory.mkdir()
    shutil.copy(DROP_INS / drop_in, directory)
    assert verify(installed) == ""


@pytest.mark.parametrize(("unit", "most"), EXPOSURE.items())
def test_a_unit_is_no_more_exposed_than_promised(unit: str, most: int) -> None:
    need("systemd-analyze")
    done = subprocess.run(["systemd-analyze", "security", "--offline=yes", f"--threshold={most}", UNITS / unit],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout.splitlines()[-1:]


def test_the_agent_itself_gets_no_right_of_root() -> None:
    text = (UNITS / "vigilhost.service").read_text()
    assert "\nUser=vigilhost\n" in text
    assert "\nCapabilityBoundingSet=\n" in text
