"""The rules of others in a real agent: all are evaluated, and no series is missing that node_exporter has here.

The rules stand in COMMUNITY_RULES_DIR; without it this test says that it is left out.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from agent.cli.group import cli
from agent.control import ask
from tests.servers import programs
from tests.servers.node_exporter import NodeExporter
from tests.servers.process import wait_until
from tests.servers.vigilhost import Vigilhost

pytestmark = pytest.mark.skipif(
    "COMMUNITY_RULES_DIR" not in os.environ, reason="COMMUNITY_RULES_DIR names no folder of rules"
)
CONFIG = "hostname: db1\nalerting: {rules: {interval: 2s}}\ncollectors: {textfile: {directory: DIRECTORY}}\n"


def test_an_agent_judges_by_the_rules_of_others(tmp_path: Path) -> None:
    root = Path(os.environ["COMMUNITY_RULES_DIR"])
    files = [*sorted(root.glob("host-and-hardware/*.yml")), *sorted(root.glob("node-mixin/*.yml"))]
    names = {
        rule.get("alert") or rule["record"]
        for file in files
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    }
    agent = Vigilhost(CONFIG.replace("DIRECTORY", str(tmp_path)))
    with agent:
        socket = str(agent.state_dir / "control.sock")
        (agent.data_dir / "rules.d").mkdir()
        for file in files:
            text = re.sub(r"^(\s*)interval: .*$", r"\1interval: 2s", file.read_text(), flags=re.MULTILINE)
            (agent.data_dir / "rules.d" / f"{file.parent.name}-{file.name}").write_text(text)
        ask(socket, "reload")

        def unknown() -> list[str]:
            return [each["name"] for each in ask(socket, "rules")["rules"] if each["health"] == "unknown"]

        wait_until(lambda: not unknown(), "every rule to be evaluated", 90.0, every=0.5)
        found = ask(socket, "rules")
        assert names <= {each["name"] for each in found["rules"]}
        assert [f"{each['name']}: {each['error']}" for each in found["rules"] if each["health"] != "ok"] == []
        assert found["left_out"] == []
        paths = [str(path) for path in sorted((agent.data_dir / "rules.d").iterdir())]
        checked = CliRunner().invoke(cli, ["rules", "check", *paths, "--state-dir", str(agent.state_dir)])
        assert checked.exit_code == 0, checked.output
        assert f"{sum(1 for each in found['rules'] if 'rules.d' in each['place'])} rules" in checked.output
        missing = set(re.findall(r"there is no (\S+) on this host", checked.output))
    programs.need("node_exporter")
    with NodeExporter(["--collector.processes", "--collector.systemd"]) as exporter:
        theirs = {re.split("[{ ]", line)[0] for line in exporter.metrics().splitlines()}
    assert missing & theirs == set()
