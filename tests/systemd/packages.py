"""The package of this checkout, and an older one to upgrade from."""

from __future__ import annotations

import fcntl
import subprocess
import tempfile
from pathlib import Path

from agent import __version__

ROOT = Path(__file__).parents[2]
_BUILD_DEADLINE_S = 900.0


def built() -> Path:
    """What `make deb` leaves in dist/; workers that come at once wait for the first. Raise CalledProcessError."""
    (ROOT / "dist").mkdir(exist_ok=True)
    with (ROOT / "dist/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _run("make", "--silent", "-C", str(ROOT), "deb")
    (package,) = (ROOT / "dist").glob(f"vigilhost_{__version__}_*.deb")
    return package


def relabelled(package: Path, version: str, directory: Path) -> Path:
    """The same package as one of another version: control data and the version that the agent tells."""
    with tempfile.TemporaryDirectory(dir=directory) as tree:
        _run("dpkg-deb", "--raw-extract", str(package), tree)
        _replace_line(Path(tree, "DEBIAN/control"), "Version: ", f"Version: {version}")
        (module,) = Path(tree, "usr/lib/vigilhost").rglob("agent/__init__.py")
        _replace_line(module, "__version__ = ", f'__version__ = "{version}"')
        other = directory / f"vigilhost_{version}.deb"
        _run("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, str(other))
    return other


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, timeout=_BUILD_DEADLINE_S, stdout=subprocess.DEVNULL)


def _replace_line(file: Path, start: str, line: str) -> None:
    lines = file.read_text().splitlines()
    (at,) = (number for number, one in enumerate(lines) if one.startswith(start))
    lines[at] = line
    file.write_text("\n".join(lines) + "\n")
