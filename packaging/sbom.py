"""The bill of materials in CycloneDX's JSON: every dependency with version, hash, licence and what it needs itself.

Made from what is installed (`SITE`) and from pip's report of that installation, whose hashes are those of the lock
file. The same source gives the same bytes.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import project
from packaging.requirements import Requirement

# The words of classifiers in SPDX's, for packages that do not say it themselves.
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


def bill(site: Path, report: Path) -> dict[str, Any]:
    """The document for an installation under `site`."""
    hashes = _hashes(json.loads(report.read_text()))
    installed = {_normal(one.name): one for one in distributions(path=[str(site)])}
    product = installed.pop("vigilhost")
    components = [_component(one, hashes[name]) for name, one in sorted(installed.items())]
    every = {"vigilhost": product, **dict(sorted(installed.items()))}
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(project.epoch())),
            "component": {"type": "application", **_identity(product), "licenses": _licences(product)},
        },
        "components": components,
        "dependencies": [{"ref": _purl(one), "dependsOn": _needs(one, installed)} for one in every.values()],
    }
    name = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(document, sort_keys=True))
    return {**document, "serialNumber": f"urn:uuid:{name}"}


def licence(one: Distribution) -> str:
    """SPDX's expression for what a package says of its licence. Raise SystemExit when it says nothing we know."""
    if expression := _said(one, "License-Expression"):
        return expression
    classifiers = one.metadata.get_all("Classifier") or []
    words = [line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License")]
    if words and all(word in _CLASSIFIERS for word in words):
        return " OR ".join(_CLASSIFIERS[word] for word in words)
    if re.fullmatch(r"[A-Za-z0-9.+-]{2,40}", said := _said(one, "License")):
        return said
    raise SystemExit(f"{one.name} {one.version}: its licence is not known; see packaging/sbom.py")


def _component(one: Distribution, sha256: str) -> dict[str, Any]:
    return {
        "type": "library",
        **_identity(one),
        "hashes": [{"alg": "SHA-256", "content": sha256}],
        "licenses": _licences(one),
    }


def _identity(one: Distribution) -> dict[str, str]:
    return {
        "bom-ref": _purl(one), "name": _normal(one.name), "version": one.version,
        "description": _said(one, "Summary"), "purl": _purl(one),
    }  # fmt: skip


def _licences(one: Distribution) -> list[dict[str, Any]]:
    said = licence(one)
    return [{"expression": said}] if " " in said else [{"license": {"id": said}}]


def _said(one: Distribution, field: str) -> str:
    """A field of a package's metadata; "" where it has none."""
    values = one.metadata.get_all(field)
    return str(values[0]) if values else ""


def _needs(one: Distribution, installed: dict[str, Distribution]) -> list[str]:
    """What a package needs on this platform without extras."""
    found = set()
    for line in one.requires or []:
        requirement = Requirement(line)
        name = _normal(requirement.name)
        if name in installed and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            found.add(_purl(installed[name]))
    return sorted(found)


def _hashes(report: dict[str, Any]) -> dict[str, str]:
    return {
        _normal(entry["metadata"]["name"]): entry["download_info"]["archive_info"]["hash"].removeprefix("sha256=")
        for entry in report["install"]
    }


def _purl(one: Distribution) -> str:
    return f"pkg:pypi/{_normal(one.name)}@{one.version}"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
