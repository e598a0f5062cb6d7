"""Root file systems of small Debians 12 that boot systemd: each made once, kept outside of the checkout.

mmdebstrap makes one in 20 s where debootstrap needs two minutes, from the mirrors of this machine's own apt.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.servers.process import ServerError
from tests.servers.programs import program

SUITE = "bookworm"
_MAKE_DEADLINE_S = 1800.0  # a root whose kernel modules are compiled needs minutes


@dataclass(frozen=True)
class Recipe:
    """What a root is made of beside Debian's essential packages.

    `before`, `after`: shell commands around the installation of the packages; `$1` is the root. `area`: of Debian,
    beside main.
    """

    packages: tuple[str, ...]
    before: str = ""
    after: str = ""
    area: str = ""

    @property
    def key(self) -> str:
        """Of the cached root; another one where something else is made."""
        said = "\n".join((SUITE, *sorted(self.packages), self.before, self.after, self.area))
        return hashlib.sha256(said.encode()).hexdigest()[:12]


# The machines reach no mirror: what the package depends on has to be here.
CONTAINER = Recipe((
    "systemd", "systemd-sysv", "dbus", "python3",
    "zstd",  # archives of backups
))  # fmt: skip


def debian_root(recipe: Recipe = CONTAINER) -> Path:
    """The directory, which no one writes to. Raise ServerError when it cannot be made, OSError where we may not."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "/var/cache") / "vigilhost-tests"
    cache.mkdir(parents=True, exist_ok=True)
    root = cache / f"{SUITE}-{recipe.key}"
    with (cache / f"lock-{recipe.key}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # workers that come at once wait for the first
        if not root.exists():
            _make(root, recipe)
    return root


def _make(root: Path, recipe: Recipe) -> None:
    unfinished = root.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    argv = [program("mmdebstrap"), "--quiet", "--variant=minbase", f"--include={','.join(recipe.packages)}"]
    argv += [
        f"--{when}-hook={hook}" for when, hook in (("essential", recipe.before), ("customize", recipe.after)) if hook
    ]
    lines = [f"{line} {recipe.area}".rstrip() for line in mirrors()]
    done = subprocess.run(
        [*argv, SUITE, unfinished, *lines], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=_MAKE_DEADLINE_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise ServerError(f"mmdebstrap exited {done.returncode}: {done.stdout.strip()[-2000:]}")
    unfinished.rename(root)


def mirrors() -> list[str]:
    """Lines for sources.list: where this machine's apt has that suite from. Raise ServerError where it has not."""
    if not (found := _known_to_apt()):
        subprocess.run([program("apt-get"), "-qq", "update"], capture_output=True, timeout=300, check=False)
        found = _known_to_apt()
    if not found:
        raise ServerError(f"no Debian {SUITE} among the sources of this machine's apt")
    return found


def _known_to_apt() -> list[str]:
    line = "deb $(REPO_URI) $(CODENAME) $(COMPONENT)"
    asked = ["apt-get", "indextargets", "--format", line, "Created-By: Packages", "Origin: Debian"]
    lines = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    return sorted({line for line in lines if line.split()[2].partition("-")[0] == SUITE and line.endswith(" main")})
