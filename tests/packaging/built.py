"""The packages of this checkout, built once, and older ones to upgrade from."""

from __future__ import annotations

import fcntl
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from agent import __version__
from tests.servers.process import ServerError

ROOT = Path(__file__).parents[2]
_DEADLINE_S = 900.0


def built_deb() -> Path:
    """The .deb, built where it is missing or older than its sources. Raise ServerError."""
    (ROOT / "dist").mkdir(exist_ok=True)
    with (ROOT / "dist/.lock").open("w") as lock:  # workers that come at once wait for the first
        fcntl.flock(lock, fcntl.LOCK_EX)
        _run("make", "--silent", "-C", str(ROOT), "deb")
    (package,) = (ROOT / "dist").glob(f"vigilhost_{__version__}_*.deb")
    return package


def repacked(deb: Path, to: Path, version: str, extra: Sequence[str] = ()) -> Path:
    """The same package as one of another version, which its agent tells too; these files (absolute paths) added."""
    with tempfile.TemporaryDirectory(dir=to) as tree:
        _run("dpkg-deb", "--raw-extract", str(deb), tree)
        _replace_line(Path(tree, "DEBIAN/control"), "Version: ", f"Version: {version}")
        (module,) = Path(tree, "usr/lib/vigilhost").rglob("agent/__init__.py")
        _replace_line(module, "__version__ = ", f'__version__ = "{version}"')
        for path in extra:
            Path(tree, path.lstrip("/")).write_text("# of another version\n")
        package = to / f"vigilhost_{version}.deb"
        _run("dpkg-deb", "-z1", "--root-owner-group", "--build", tree, str(package))
    return package


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_DEADLINE_S, check=False)
    if done.returncode != 0:
        raise ServerError(f"{' '.join(argv)} exited {done.returncode}: {done.stdout}{done.stderr}")


def _replace_line(file: Path, start: str, line: str) -> None:
    lines = file.read_text().splitlines()
    (at,) = (number for number, one in enumerate(lines) if one.startswith(start))
    lines[at] = line
    file.write_text("\n".join(lines) + "\n")
