"""The manual's example of a collector works as it stands, from a package of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

MANUAL = Path(__file__).parents[2] / "docs" / "writing-a-collector.md"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """An installed package with the manual's collector: the module and the metadata that names it."""
    blocks = dict(re.findall(r"```(\w+)\n(.*?)```", MANUAL.read_text(), re.DOTALL))
    module = tmp_path / "site" / "our_package"
    module.mkdir(parents=True)
    (module / "__init__.py").write_text("")
    (module / "mail_queue.py").write_text(blocks["python"])
    entry = re.search(r"^mail_queue = \"(.*)\"$", blocks["toml"], re.MULTILINE)
    assert entry
    info = tmp_path / "site" / "our_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: our-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[vigilhost.collectors]\nmail_queue = {entry[1]}\n")
    for queue, mails in (("active", 2), ("deferred", 5)):
        (tmp_path / "spool" / queue).mkdir(parents=True)
        for mail in range(mails):
            (tmp_path / "spool" / queue / str(mail)).write_text("")
    (tmp_path / "vigilhost.yaml").write_text(
        f"hostname: h\ncollectors: {{others: false, mail_queue: {{interval: 1m, spool: {tmp_path}/spool}}}}\n"
    )
    return tmp_path


def vigilhost(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent.cli.main", *arguments],
        env={**os.environ, "PYTHONPATH": str(package / "site")},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_it_is_collected_in_both_dialects(package: Path) -> None:
    config = str(package / "vigilhost.yaml")
    done = vigilhost(package, "collect", "mail_queue", "--format", "influx", "--config", config)
    assert [line.rsplit(" ", 1)[0] for line in done.stdout.splitlines()] == [
        "mail_queue,host=h,queue=active length=2i",
        "mail_queue,host=h,queue=deferred length=5i",
    ]
    done = vigilhost(package, "collect", "--format", "prometheus", "--config", config)
    assert 'mail_queue_length{queue="deferred"} 5\n' in done.stdout


def test_its_options_are_checked(package: Path) -> None:
    config = package / "vigilhost.yaml"
    config.write_text("collectors: {mail_queue: {spol: /x}}\n")
    done = vigilhost(package, "check", str(config))
    assert done.returncode == 2
    assert "collectors.mail_queue.spol: no such option; did you mean 'spool'?" in done.stderr


def test_a_host_without_the_source_says_so(package: Path) -> None:
    config = package / "vigilhost.yaml"
    config.write_text("collectors: {others: false, mail_queue: {spool: /nowhere}}\n")
    done = vigilhost(package, "collect", "mail_queue", "--config", str(config))
    assert done.returncode == 1
    assert done.stderr == "mail_queue: /nowhere: no postfix here\n"
