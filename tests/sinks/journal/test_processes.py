"""The journal in processes of its own: killed, and on a full file system."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.servers.programs import lacking

ROOT = Path(__file__).parents[3]
ON_TINY_TMPFS = "mount -t tmpfs -o size=64k none {place} && exec {command}"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_twenty_kills_lose_nothing_that_was_written(tmp_path: Path) -> None:
    done = run(sys.executable, "-m", "tests.sinks.journal.killed", str(tmp_path), "20")
    assert done.returncode == 0, done.stderr
    did = re.match(r"20 kills, (\d+) records written, (\d+) delivered", done.stdout)
    assert did, done.stdout
    assert min(map(int, did.groups())) >= 10, "more than half of the lives wait for the first record written"


def test_files_that_may_not_grow_lose_nothing(tmp_path: Path) -> None:
    done = run(sys.executable, "-m", "tests.sinks.journal.filled", str(tmp_path), "limit")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("refused ")


def test_a_full_file_system_loses_nothing(tmp_path: Path) -> None:
    namespace = ("unshare", "-m") if os.geteuid() == 0 else ("unshare", "-rm")
    if run(*namespace, "true").returncode != 0:
        lacking("a file system of our own needs the right to make a mount namespace")
    command = shlex.join((sys.executable, "-m", "tests.sinks.journal.filled", str(tmp_path), "ballast"))
    done = run(*namespace, "sh", "-c", ON_TINY_TMPFS.format(place=shlex.quote(str(tmp_path)), command=command))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("refused ")
