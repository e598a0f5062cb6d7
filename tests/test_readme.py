"""The README's promises: its links exist, its commands are commands, its example configuration is right."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from agent.cli.group import COMMANDS
from agent.config import load
from agent.config.backup_jobs import load_job

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted([ROOT / "README.md", ROOT / "README.ko.md", *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)", page.read_text()) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_named_is_one(page: Path) -> None:
    named = set(re.findall(r"^(?:    |\$ )?vigilhost ([a-z-]+)", page.read_text(), re.MULTILINE))
    named |= set(re.findall(r"`vigilhost ([a-z-]+)[ `]", page.read_text()))
    assert named - set(COMMANDS) == set()


def example(begins: str) -> str:
    """The indented block of the README that begins with this line."""
    block = re.match(r"((?:    .*\n)+)", README[README.index(f"    {begins}\n") :])
    assert block
    return re.sub(r"^    ", "", block[1], flags=re.MULTILINE)


def test_the_example_configuration_is_right(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    config = tmp_path / "vigilhost.yaml"
    config.write_text(example("# vigilhost.yaml").replace("/etc/vigilhost/influx.token", "token"))
    settings = load(str(config)).settings
    assert settings.tags == {"env": "prod"}
    assert list(settings.sinks) == ["influxdb"]


def test_the_example_job_is_right(tmp_path: Path) -> None:
    (tmp_path / "etc.yaml").write_text(example("# backup.d/etc.yaml"))
    job, doubts = load_job(str(tmp_path / "etc.yaml"))
    assert (job.name, list(job.targets), [str(doubt) for doubt in doubts]) == ("etc", ["disk"], [])


def test_the_korean_readme_has_the_same_examples_links_and_sections() -> None:
    def skeleton(text: str) -> list[str]:
        """Code without its comments, where links lead, and headings as such."""
        lines = [line.partition("#")[0].rstrip() for line in text.splitlines() if line.startswith("    ")]
        links = re.findall(r"\]\(([^)]+)\)", text.replace("README.ko.md", "README.md"))
        return [*filter(None, lines), *links, *re.findall(r"^#+", text, re.MULTILINE)]

    assert skeleton((ROOT / "README.ko.md").read_text()) == skeleton(README)


def test_make_lists_what_the_readme_names() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    targets = {line.split()[0] for line in done.stdout.splitlines()}
    assert {"run", "test", "env"} <= targets
