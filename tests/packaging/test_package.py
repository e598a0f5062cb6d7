"""The package as a file: lintian's word, its dependencies, its bill of materials, the same bytes anywhere."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from packaging.requirements import Requirement

from agent import __version__
from tests.packaging.built import ROOT
from tests.servers.programs import need


def field(deb: Path, name: str) -> str:
    return subprocess.run(["dpkg-deb", "--field", str(deb), name], check=True, capture_output=True, text=True).stdout


def test_lintian_finds_nothing(deb: Path) -> None:
    need("lintian")
    argv = ["lintian", "--allow-root", "--fail-on", "error,warning", str(deb)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_override_has_its_reason() -> None:
    lines = (ROOT / "packaging/debian/lintian-overrides").read_text().splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if line and not line.startswith("#"):
            assert before.startswith(("#", "vigilhost: non-standard-")), line


def test_it_is_for_debian_12s_python_and_no_other(deb: Path) -> None:
    assert field(deb, "Version").strip() == __version__
    depends = field(deb, "Depends")
    assert "python3 (>= 3.11), python3 (<< 3.12)" in depends
    assert re.search(r"\blibc6 \(>= ", depends), "what compiled dependencies ask for"


def test_nothing_is_fetched_or_built_when_it_is_installed() -> None:
    for script in ("postinst", "prerm", "postrm"):
        text = (ROOT / "packaging/debian" / script).read_text()
        assert not re.search(r"\b(pip|curl|wget|apt|apt-get)\b", text)
        assert "set -e\n" in text


@pytest.fixture(scope="module")
def bill(dist: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((dist / f"vigilhost-{__version__}.cdx.json").read_text())
    return document


def pinned() -> dict[str, set[str]]:
    """The lock file: `name==version`, and the hashes it allows."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / "requirements.lock").read_text().replace("\\\n", " ").splitlines():
        requirement, *hashes = line.split(" --hash=sha256:")
        one = Requirement(requirement.strip())
        if one.marker is None or one.marker.evaluate():
            found[f"{one.name}{one.specifier}"] = {digest.strip() for digest in hashes}
    return found


def test_the_bill_names_what_the_lock_file_names_and_one_of_its_hashes(bill: Mapping[str, Any]) -> None:
    lock = pinned()
    components = {f"{one['name']}=={one['version']}": one["hashes"][0]["content"] for one in bill["components"]}
    assert components.keys() == lock.keys()
    assert [name for name, digest in components.items() if digest not in lock[name]] == []


def test_everything_in_the_bill_is_needed_by_something_in_it(bill: Mapping[str, Any]) -> None:
    needs = {one["ref"]: one["dependsOn"] for one in bill["dependencies"]}
    reached, waiting = set(), [f"pkg:pypi/vigilhost@{__version__}"]
    while waiting:
        ref = waiting.pop()
        if ref not in reached:
            reached.add(ref)
            waiting += needs[ref]
    assert reached == needs.keys()


def published(name: str) -> Any:
    """A schema as CycloneDX publishes it, from their own library."""
    return json.loads((importlib.resources.files("cyclonedx.schema._res") / f"{name}.SNAPSHOT.schema.json").read_text())


def test_the_bill_is_as_cyclonedx_describes_it(bill: Mapping[str, Any]) -> None:
    schema = published("bom-1.6")
    base = schema["$id"].rpartition("/")[0]
    others = [(f"{base}/{name}.SNAPSHOT.schema.json", published(name)) for name in ("spdx", "jsf-0.82")]
    registry = jsonschema_rs.Registry(others)
    validator = jsonschema_rs.Draft7Validator(schema, registry=registry)
    assert [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(bill)] == []
    wrong = {**bill, "components": [{**bill["components"][0], "licenses": [{"license": {"id": "No-Such-Licence"}}]}]}
    assert not validator.is_valid(wrong), "a schema that takes everything proves nothing"


def copy_of_the_source(to: Path) -> None:
    """All files that belong to this source, those included that are not committed yet; no `.git`."""
    argv = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if os.path.lexists(ROOT / name):
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name, follow_symlinks=False)


def test_two_builds_in_different_places_are_the_same_bytes(dist: Path, tmp_path: Path) -> None:
    """Another directory, umask, time zone and locale. What was fetched is copied, so nothing is fetched again."""
    other = tmp_path / "somewhere else"
    copy_of_the_source(other)
    for name in ("env", "downloads"):
        shutil.copytree(ROOT / "build" / name, other / "build" / name, symlinks=True)
        (other / f"build/.{name}").touch()
    moment = (ROOT / "build/.moment").read_text().strip()  # the copy has no commits
    environ = {"SOURCE_DATE_EPOCH": moment, "TZ": "Pacific/Kiritimati", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        ["sh", "-c", "umask 077; exec make -s deb"], cwd=other, env={**os.environ, **environ}, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    built = sorted(path.name for path in (other / "dist").iterdir() if not path.name.startswith("."))
    assert len(built) == 3, "wheel, package and bill"
    assert sums(dist, built) == sums(other / "dist", built)


def sums(directory: Path, names: list[str]) -> dict[str, str]:
    return {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in names}
