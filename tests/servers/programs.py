"""Where the servers' programs are, and what a test does without one, or without root."""

from __future__ import annotations

import glob
import os
import shutil
from functools import cache
from typing import NoReturn

import pytest

# Names by which a test may ask for a server, and the program that stands for it.
SERVERS = {
    "victoriametrics": "victoria-metrics",
    "influxdb": "influxd",
    "alertmanager": "prometheus-alertmanager",
    "node_exporter": "prometheus-node-exporter",
    "postgresql": "postgres",
    "redis": "redis-server",
    "mariadb": "mariadbd",
}


@cache
def find(name: str) -> str | None:
    """Absolute path of a program; None when it is not installed.

    Looks beyond PATH: Debian keeps daemons in /usr/sbin and PostgreSQL's programs in a directory a version.
    """
    # "15" before "9.6": the newest version, not the last in the alphabet
    versions = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: float(path.split("/")[4]), reverse=True)
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin", *versions])
    return shutil.which(name, path=path)


def need(*names: str) -> None:
    """Skip the running test when one of these servers or programs is not installed; with CI=true, fail it."""
    for name in names:
        if find(SERVERS.get(name, name)) is None:
            lacking(f"{name} is not installed; `make test` installs it")


def need_root(reason: str) -> None:
    """Skip the running test when it does not run as root; with CI=true, fail it. `reason`: what only root may do."""
    if os.geteuid() != 0:
        lacking(f"{reason}; run the tests as root")


def lacking(sentence: str) -> NoReturn:
    """Skip the running test for what this machine does not have or allow; with CI=true, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)


def program(name: str) -> str:
    """The path of an installed program. Raise FileNotFoundError where it is not."""
    path = find(name)
    if path is None:
        raise FileNotFoundError(f"{name}: no such program on PATH or in the usual places; `make test` installs it")
    return path
