"""The wheel, installed as people do on other distributions: with pipx, with uv, with nothing but what was fetched."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent import __version__
from tests.packaging.built import ROOT
from tests.servers.http_call import call, must
from tests.servers.process import wait_until
from tests.servers.vigilhost import Vigilhost

BIN = Path(sys.executable).parent
DOWNLOADS = ROOT / "build/downloads"


def run(*argv: str | Path, environ: Mapping[str, str]) -> str:
    """A tool with nothing of this user's settings, so that it asks no index."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("PIP_", "UV_", "PIPX_", "XDG_"))}
    done = subprocess.run(
        list(map(str, argv)), env={**kept, **environ}, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def with_pipx(home: Path, wheel: Path) -> Path:
    environ = {"HOME": str(home), "PIPX_HOME": str(home / "pipx"), "PIPX_BIN_DIR": str(home / "bin"),
               "PIPX_MAN_DIR": str(home / "man"), "PIPX_DEFAULT_PYTHON": sys.executable,
               "PIPX_DISABLE_SHARED_LIBS_AUTO_UPGRADE": "1"}  # fmt: skip
    offline = f"--no-index --find-links {DOWNLOADS}"
    run(BIN / "pipx", "install", "--backend", "pip", f"--pip-args={offline}", wheel, environ=environ)
    return home / "bin/vigilhost"


def with_uv(home: Path, wheel: Path) -> Path:
    environ = {"HOME": str(home), "UV_TOOL_DIR": str(home / "tools"), "UV_TOOL_BIN_DIR": str(home / "bin"),
               "UV_CACHE_DIR": str(home / "cache"), "UV_PYTHON_DOWNLOADS": "never"}  # fmt: skip
    offline = ["--offline", "--no-index", "--find-links", str(DOWNLOADS), "--python", sys.executable]
    run(BIN / "uv", "tool", "install", *offline, wheel, environ=environ)
    return home / "bin/vigilhost"


class Installed(Vigilhost):
    """The agent by an installed command."""

    def __init__(self, command: Path) -> None:
        super().__init__("collectors: {others: false, cpu: {interval: 100ms}, memory: {interval: 100ms}}\n")
        self._command = command

    def command(self) -> list[str | Path]:
        return [self._command, *super().command()[3:]]


@pytest.mark.parametrize("install", [with_pipx, with_uv])
def test_the_installed_command_is_a_whole_agent(install: object, wheel: Path, tmp_path: Path) -> None:
    assert callable(install)
    command = install(tmp_path, wheel)
    assert run(command, "--version", environ={}).strip() == f"vigilhost, version {__version__}"
    assert "cpu" in run(command, "collectors", environ={"COLUMNS": "200"})
    with Installed(command) as agent:
        assert "node_memory_MemTotal_bytes" in agent.metrics()
        rules = lambda: must(call(f"{agent.url}/api/v1/rules")).json()["data"]["groups"]  # noqa: E731
        wait_until(rules, "the rules that come with it", deadline=60)


def test_it_holds_the_product_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {
        "agent", "collectors", "sinks", "alerting", "backup", f"vigilhost-{__version__}.dist-info",
    }  # fmt: skip
    assert [name for name in names if name.endswith((".pyc", "~"))] == []
