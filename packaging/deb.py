"""The Debian package: `python packaging/deb.py WHEEL DOWNLOADS DIST`, run by the build environment's Python.

Lays the tree as it will be on the host under `build/deb`, and has dpkg-deb pack it. Two builds of one commit give the
same bytes: nothing of the time, the directory or the umask of the build gets in.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import changelog
import copyright_file
import environment
import project
import sbom
import units

_BUILD = project.ROOT / "build/deb"
_DEBIAN = project.ROOT / "packaging/debian"
_DOC = "usr/share/doc/vigilhost"
_SCRIPTS = ("postinst", "prerm", "postrm")
_COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/vigilhost",
    "zsh": "usr/share/zsh/vendor-completions/_vigilhost",
    "fish": "usr/share/fish/vendor_completions.d/vigilhost.fish",
}
# Only root and the agent's group, which exists once postinst has run, may read what may hold secrets.
_PRIVATE = {"etc/vigilhost": 0o750, "etc/vigilhost/vigilhost.yaml": 0o640} | {
    f"etc/vigilhost/{name}": 0o750 for name in ("conf.d", "rules.d", "backup.d")
}


def build(wheel: Path, downloads: Path, dist: Path) -> Path:
    """Build the package from the wheel and the fetched dependencies. Return its path."""
    root, report = _BUILD / "root", _BUILD / "report.json"
    shutil.rmtree(_BUILD, ignore_errors=True)
    root.mkdir(parents=True)
    environment.build(root, wheel, project.ROOT / "requirements.lock", downloads, report)
    bill = json.dumps(sbom.bill(root / environment.SITE, report), indent=2) + "\n"
    (dist / f"vigilhost-{project.version()}.cdx.json").write_text(bill)
    _documents(root, bill)
    _commands(root)
    _configuration(root)
    installed = units.lay(project.ROOT / "systemd", root)
    _control(root, installed)
    _same_for_everyone(root)
    package = dist / f"vigilhost_{project.debian_version(project.version())}_{_architecture()}.deb"
    environ = {**os.environ, "SOURCE_DATE_EPOCH": str(project.epoch())}
    argv = ["dpkg-deb", "--root-owner-group", "--build", str(root), str(package)]
    subprocess.run(argv, check=True, env=environ, stdout=subprocess.DEVNULL)
    return package


def _documents(root: Path, bill: str) -> None:
    doc = root / _DOC
    (doc / "docs").mkdir(parents=True)
    for page in sorted(project.ROOT.glob("README*.md")):
        shutil.copy(page, doc)
    for page in sorted((project.ROOT / "docs").glob("*.md")):
        shutil.copy(page, doc / "docs")
    (doc / "copyright").write_text(copyright_file.text(root / environment.SITE))
    (doc / "sbom.cdx.json").write_text(bill)
    (doc / "examples").mkdir()
    sample = environment.run(root, "-m", "agent.cli.main", "config", "sample")
    (doc / "examples/vigilhost.yaml").write_text(sample)
    _gzip(doc / "changelog.gz", "\n".join(changelog.debian(changelog.read())) + "\n")


def _commands(root: Path) -> None:
    """The command itself, its page, and what shells know of it."""
    _put(root / "usr/bin/vigilhost", (_DEBIAN / "vigilhost").read_text())
    (root / "usr/bin/vigilhost").chmod(0o755)
    date = time.strftime("%Y-%m-%d", time.gmtime(project.epoch()))
    page = environment.run(root, str(project.ROOT / "packaging/manpage.py"), date)
    _gzip(root / "usr/share/man/man1/vigilhost.1.gz", page)
    for shell, path in _COMPLETIONS.items():
        _put(root / path, environment.run(root, "-m", "agent.cli.main", "completion", shell))


def _configuration(root: Path) -> None:
    _put(root / "etc/vigilhost/vigilhost.yaml", (_DEBIAN / "vigilhost.yaml").read_text())
    for path in _PRIVATE:
        if not (root / path).exists():
            (root / path).mkdir()


def _control(root: Path, installed: list[str]) -> None:
    """What dpkg asks: name, dependencies, configuration files, scripts, checksums, and lintian's overrides."""
    _put(root / "usr/share/lintian/overrides/vigilhost", (_DEBIAN / "lintian-overrides").read_text())
    control = root / "DEBIAN"
    control.mkdir()
    (control / "conffiles").write_text("/etc/vigilhost/vigilhost.yaml\n")
    for name in _SCRIPTS:
        script = (_DEBIAN / name).read_text().replace("@UNITS@", " ".join(installed))
        (control / name).write_text(script)
    files = sorted(path for path in root.rglob("*") if path.is_file() and control not in path.parents)
    values = {
        "VERSION": project.debian_version(project.version()),
        "ARCHITECTURE": _architecture(),
        "MAINTAINER": project.MAINTAINER,
        "HOMEPAGE": project.HOMEPAGE,
        "SIZE": str(sum(-(-path.lstat().st_size // 1024) for path in files)),
        "LIBRARIES": _library_packages(root),
    }
    template = (_DEBIAN / "control").read_text()
    (control / "control").write_text(re.sub(r"@([A-Z]+)@", lambda found: values[found[1]], template))
    sums = subprocess.run(
        ["md5sum", *(str(path.relative_to(root)) for path in files if not path.is_symlink())],
        cwd=root, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    (control / "md5sums").write_text(sums)


def _library_packages(root: Path) -> str:
    """The packages, with versions, that hold the shared libraries our compiled dependencies ask for."""
    (_BUILD / "debian").mkdir()
    (_BUILD / "debian/control").write_text(
        f"Source: vigilhost\n\nPackage: vigilhost\nArchitecture: {_architecture()}\n"
    )
    argv = ["dpkg-shlibdeps", "-O", *(f"-e{path}" for path in environment.libraries(root))]
    done = subprocess.run(argv, cwd=_BUILD, check=True, capture_output=True, text=True)
    return done.stdout.strip().removeprefix("shlibs:Depends=")


def _same_for_everyone(root: Path) -> None:
    """Modes and times that do not depend on who built it and when."""
    for path in [root, *root.rglob("*")]:
        name = str(path.relative_to(root))
        if not path.is_symlink():
            executable = path.is_dir() or name == "usr/bin/vigilhost" or name in {f"DEBIAN/{one}" for one in _SCRIPTS}
            path.chmod(_PRIVATE.get(name, 0o755 if executable else 0o644))
        os.utime(path, (project.epoch(), project.epoch()), follow_symlinks=False)


def _architecture() -> str:
    argv = ["dpkg", "--print-architecture"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def _gzip(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == "__main__":
    print(build(*(Path(argument).resolve() for argument in sys.argv[1:4])))
