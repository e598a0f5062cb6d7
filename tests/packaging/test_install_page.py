"""docs/install.md, followed as it stands: its configuration, its commands, the paths that it names."""

from __future__ import annotations

import re

from tests.packaging.built import ROOT
from tests.packaging.root import Root

PAGE = (ROOT / "docs/install.md").read_text()


def blocks(language: str) -> list[str]:
    every = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [text for name, text in every if name == language]


def test_the_configuration_and_the_secret_can_be_read_by_the_agent_and_by_nobody_else(installed: Root) -> None:
    (config,) = blocks("yaml")
    (commands,) = [block for block in blocks("") if "token.txt" in block]
    installed.path("/etc/vigilhost/vigilhost.yaml").write_text(config)
    installed.path("/token.txt").write_text("s3cret\n")
    for line in commands.splitlines():
        if line.startswith("install "):
            installed.run("sh", "-c", line)
    done = installed.run("vigilhost", "check", user="vigilhost")
    assert ("1 sink" in done.stdout, done.stderr) == (True, ""), done.stdout
    assert "s3cret" not in installed.run("vigilhost", "config", "show", user="vigilhost").stdout
    refused = installed.run("cat", "/etc/vigilhost/secrets/influxdb-token", user="daemon", code=1)
    assert "Permission denied" in refused.stderr


def test_every_path_of_the_package_that_it_names_is_there(installed: Root) -> None:
    named = set(re.findall(r"`(/(?:usr|etc)/[^`*]+)`", PAGE))
    assert len(named) >= 5
    assert [path for path in named if not installed.path(path).exists()] == []


def test_its_container_is_started_as_the_dockerfile_says() -> None:
    commented = re.sub(r"^# ?", "", (ROOT / "packaging/Dockerfile").read_text(), flags=re.MULTILINE)
    for command in ("docker build", "docker run"):
        (line,) = {
            re.sub(r"\s+", " ", found)
            for found in re.findall(rf"{command} (?:.*\\\n)*.*", PAGE)
            if "vigilhost" in found
        }
        assert line in re.sub(r"\s+", " ", commented)
