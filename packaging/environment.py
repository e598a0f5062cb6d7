"""The private environment of the package: the agent and its dependencies for Debian's own python3, and nothing else.

It is a virtual environment without pip, so `sys.executable` finds the same modules in every process the agent starts.
Dependencies come from `requirements.lock` by hash, as wheels that were fetched before; nothing is fetched here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HOME = "usr/lib/vigilhost"
PYTHON = "python3.11"  # Debian 12's; compiled dependencies are for this one only
SITE = f"{HOME}/lib/{PYTHON}/site-packages"

# Collectors of other people's live where dpkg does not: `pip install --target` this.
LOCAL = "/usr/local/lib/vigilhost"

# What no process of the agent ever opens: tests, sources of compiled modules, and what pip writes for itself.
# CPython uses zstandard's C backend; the second one, for PyPy, is as large as the rest of the environment.
_DEAD = (
    "*/tests", "reactivex/testing", "**/*.pyi", "**/*.pyx", "**/*.pxd", "**/*.[ch]", "**/py.typed",
    "*.dist-info/RECORD", "*.dist-info/INSTALLER", "*.dist-info/REQUESTED", "*.dist-info/direct_url.json",
    "zstandard/_cffi.*", "zstandard/backend_cffi.py",
)  # fmt: skip


def build(root: Path, wheel: Path, lock: Path, downloads: Path, report: Path) -> None:
    """Lay the environment under `root`. `report` tells afterwards what pip installed, and the hash of each file."""
    site = root / SITE
    _install(site, downloads, "--require-hashes", "--report", str(report), "--requirement", str(lock))
    _install(site, wheel.parent, f"vigilhost=={wheel.name.split('-')[1]}")
    for pattern in _DEAD:
        for found in list(site.glob(pattern)):
            shutil.rmtree(found) if found.is_dir() else found.unlink()
    for library in libraries(root):
        subprocess.run(["strip", "--strip-unneeded", str(library)], check=True)
    (site / "vigilhost-local.pth").write_text(f"{LOCAL}\n")
    (root / HOME / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    (root / HOME / "bin").mkdir()
    (root / HOME / "bin/python3").symlink_to(f"../../../bin/{PYTHON}")


def libraries(root: Path) -> list[Path]:
    """Everything the dynamic linker loads, in one order."""
    return sorted(path for path in (root / HOME).rglob("*.so*") if path.is_file())


def run(root: Path, *argv: str) -> str:
    """Output of Python with the modules of the environment below `root`, and no others."""
    environ = {"PATH": os.defpath, "PYTHONPATH": str(root / SITE), "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [f"/usr/bin/{PYTHON}", "-S", "-P", *argv], env=environ, cwd="/", check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def _install(site: Path, source: Path, *what: str) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    only = ["--only-binary", ":all:", "--no-compile", "--find-links", str(source), "--target", str(site)]
    environ = {name: text for name, text in os.environ.items() if not name.startswith("PIP_")}
    subprocess.run([*pip, *only, *what], check=True, env=environ)
    shutil.rmtree(site / "bin")  # the programs of dependencies, and ours, which has the wrong first line
