"""The README's promises: its links exist, its commands are commands, its example configuration is right."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from agent.cli.group import COMMANDS
from agent.config import load

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)", page.read_text()) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_named_is_one(page: Path) -> None:
    named = set(re.findall(r"^(?:    |\$ )?vigilhost ([a-z-]+)", page.read_text(), re.MULTILINE))
    named |= set(re.findall(r"`vigilhost ([a-z-]+)[ `]", page.read_text()))
    assert named - set(COMMANDS) == set()


def test_the_example_configuration_is_right(tmp_path: Path) -> None:
    block = README[README.index("    # vigilhost.yaml") :]
    text = re.match(r"((?:    .*\n)+)", block)
    assert text
    (tmp_path / "token").write_text("secret")
    config = tmp_path / "vigilhost.yaml"
    config.write_text(re.sub(r"^    ", "", text[1], flags=re.MULTILINE).replace("/etc/vigilhost/influx.token", "token"))
    settings = load(str(config)).settings
    assert settings.tags == {"env": "prod"}
    assert list(settings.sinks) == ["influxdb"]


def test_make_lists_what_the_readme_names() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    targets = {line.split()[0] for line in done.stdout.splitlines()}
    assert {"run", "test", "env"} <= targets
