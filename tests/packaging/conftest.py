from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import __version__
from tests.packaging.root import Root, need_root
from tests.servers.programs import need

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def dist() -> Path:
    """The directory of the built packages; `make` does nothing where they are there and newer than their sources."""
    need("dpkg-deb", "dpkg-shlibdeps", "strip")
    (ROOT / "dist").mkdir(exist_ok=True)
    with (ROOT / "dist/.lock").open("w") as lock:  # another worker may ask at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(["make", "-s", "deb"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / "dist"


@pytest.fixture(scope="session")
def deb(dist: Path) -> Path:
    (package,) = dist.glob(f"vigilhost_{__version__}_*.deb")
    return package


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    (package,) = dist.glob(f"vigilhost-{__version__}-*.whl")
    return package


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    """A machine without the package."""
    need_root()
    with Root(tmp_path / "root") as fresh:
        yield fresh


@pytest.fixture(scope="module")
def installed(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    """A machine with it, for tests that leave it as it is."""
    need_root()
    with Root(tmp_path_factory.mktemp("installed") / "root") as machine:
        machine.run("dpkg", "--install", machine.put(deb))
        yield machine
