"""The manual's pages about alerting: every file in them is right, every command works, and recipes do what they say."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from click.testing import CliRunner

from agent.cli.group import cli
from agent.config import load
from agent.core.labels import labels_of
from agent.promql_language import PromQL
from agent.rule_sets import load_rules
from agent.rules_lab import RulesLab
from alerting.muting import Muting
from alerting.notify.message import Alert
from alerting.options import RulesOptions
from alerting.policy import Policy
from alerting.unit_test_run import run_test_file
from tests.alerting.pictures import at
from tests.e2e.alert_site import Site, watched_queue
from tests.servers import programs, promtool
from tests.servers.scripted_http import Reply, ScriptedHttp

ROOT = Path(__file__).parents[2]
PAGES = ("alerting", "alerting-cookbook")
# They would call out; tests/alerting/notify/test_children.py has an apprise of its own.
NOT_RUN = {"python3 -m venv /opt/apprise", "/opt/apprise/bin/pip install apprise"}
ALERTING = """\
receivers:
  ops: {{type: webhook, url: {url}/ops}}
  chat: {{type: webhook, url: {url}/chat}}
  mail: {{type: webhook, url: {url}/mail}}
route: {{receiver: ops}}
"""


class Block(NamedTuple):
    """A fenced block of a page. `file`: what its first line says it is."""

    page: str
    section: str
    file: str
    text: str

    @property
    def kind(self) -> str:
        content = yaml.safe_load(self.text)
        return "rules" if "groups" in content else "tests" if "rule_files" in content else "configuration"


_PART = re.compile(r"^##+ ([^\n]*)$|^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> Iterator[Block]:
    for page in PAGES:
        section = ""
        for found in _PART.finditer((ROOT / f"docs/{page}.md").read_text()):
            if found[1]:
                section = found[1]
            elif found[2] == language:
                named = re.match(r"# (\S+)\n", found[3])
                yield Block(page, section, named[1] if named else "", found[3])


YAML = list(blocks("yaml"))
COMMANDS = [
    (block, line.partition("  #")[0].rstrip()) for block in blocks("") for line in block.text.splitlines() if line
]


def written(directory: Path, files: list[Block]) -> None:
    """The files, below this directory instead of /etc/vigilhost, with the secrets they name."""
    for one in files:
        text = one.text.replace("/etc/vigilhost", str(directory))
        (directory / one.file).parent.mkdir(parents=True, exist_ok=True)
        (directory / one.file).write_text(text)
        for secret in re.findall(r"\{file: ([^}]+)\}", text):
            Path(secret).write_text("https://hooks.example.com/secret\n")
            Path(secret).chmod(0o600)


def policy(directory: Path, block: Block) -> Policy:
    written(directory, [block])
    (directory / "vigilhost.yaml").write_text("hostname: db1\n")
    loaded = load(str(directory / "vigilhost.yaml"))
    assert loaded.warnings == []
    rules = load_rules(loaded.settings.alerting.rules, str(directory / "rules.d"))
    assert rules.errors == []
    assert [str(one) for one in rules.warnings if "PostgresqlTooManyConnections" not in str(one)] == []
    found: Policy = loaded.settings.alerting.policy()
    return found


def of_kind(kind: str) -> list[Any]:
    return [pytest.param(one, id=f"{one.page}: {one.section}: {one.file}") for one in YAML if one.kind == kind]


@pytest.mark.parametrize("block", of_kind("configuration"))
def test_a_configuration_in_the_manual_is_right(block: Block, tmp_path: Path) -> None:
    policy(tmp_path, block)


@pytest.mark.server("promtool")
@pytest.mark.parametrize("block", of_kind("rules"))
def test_a_rule_file_in_the_manual_is_right(block: Block, tmp_path: Path) -> None:
    written(tmp_path, [block])
    found = load_rules(RulesOptions(defaults=False), str(tmp_path / "rules.d"))
    assert (found.errors, found.warnings) == ([], [])
    programs.need("promtool")
    assert promtool.check_rules(block.text) == []


@pytest.mark.parametrize("block", of_kind("tests"))
def test_a_unit_test_in_the_manual_passes(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, [block, *(one for one in YAML if one.page == block.page and one.kind == "rules")])
    monkeypatch.chdir(tmp_path)
    report = run_test_file(block.file, PromQL(), RulesLab)
    assert (report.passed, report.failures, report.remarks) == (True, [], [])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    with ScriptedHttp(Reply(200)) as hook, watched_queue(directory, ALERTING.format(url=hook.url), hook=hook) as found:
        yield found


def test_there_are_commands_in_the_manual() -> None:
    assert len([line for _, line in COMMANDS if line.startswith("vigilhost ")]) > 30
    assert {line for _, line in COMMANDS if not line.startswith("vigilhost ")} == NOT_RUN


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_in_the_manual_work(
    page: str, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, [one for one in YAML if one.page == page and one.kind != "configuration"])
    monkeypatch.chdir(tmp_path)
    failed = []
    for block, line in COMMANDS:
        if block.page != page or line in NOT_RUN:
            continue
        words = shlex.split(line)[1:]
        if words[0] == "unsilence":
            words[1] = next(each["id"] for each in site.ask("silences") if each["state"] != "expired")
        where = (
            [] if words[:2] == ["rules", "test"] or words[0] == "check" else ["--state-dir", str(site.agent.state_dir)]
        )
        done = CliRunner().invoke(cli, [*words, *where])
        if done.exit_code != 0:
            failed.append(f"{line}: {done.exit_code}: {done.output}")
    assert failed == []


# recipe, labels of an alert, moment, who is told and how: `name` at once, `name later` in a digest, `name (mute)`
RECIPES = [
    ("Critical to Slack", {"severity": "critical"}, "2026-05-04 12:00", ["chat", "mail"]),
    ("Critical to Slack", {"severity": "warning"}, "2026-05-04 12:00", ["mail later"]),
    ("Critical to Slack", {}, "2026-05-04 12:00", ["mail later"]),
    ("Silence at night", {"severity": "critical"}, "2026-05-04 03:00", ["ops"]),
    ("Silence at night", {"severity": "warning"}, "2026-05-04 03:00", ["ops (time)"]),
    ("Silence at night", {"severity": "warning"}, "2026-05-04 23:00", ["ops (time)"]),
    ("Silence at night", {"severity": "warning"}, "2026-05-04 07:00", ["ops"]),
    ("A route for each service", {"service": "shop"}, "2026-05-04 12:00", ["shop"]),
    ("A route for each service", {"service": "billing"}, "2026-05-04 12:00", ["billing"]),
    ("A route for each service", {"service": "other"}, "2026-05-04 12:00", ["ops"]),
    ("Any other service", {"severity": "critical"}, "2026-05-04 12:00", ["matrix"]),
    ("One receiver for a fleet", {"severity": "critical"}, "2026-05-04 12:00", [""]),
]


@pytest.mark.parametrize(("recipe", "labels", "moment", "told"), RECIPES)
def test_a_recipe_tells_whom_it_says(
    recipe: str, labels: dict[str, str], moment: str, told: list[str], tmp_path: Path
) -> None:
    (block,) = (one for one in YAML if one.section.startswith(recipe) and one.kind == "configuration")
    found = policy(tmp_path, block)
    muting = Muting(intervals=found.intervals)
    alert = Alert(labels_of({"alertname": "X", **labels}))
    heard = []
    for route in found.root.matching(alert.labels):
        mute = muting.judge(alert, route, at(moment, "Europe/Berlin"))
        heard.append(route.receiver + (" later" if route.digest else f" ({mute.kind})" if mute else ""))
    assert heard == told


def test_the_fleet_is_forwarded_everything(tmp_path: Path) -> None:
    (block,) = (one for one in YAML if one.section.startswith("One receiver for a fleet"))
    assert policy(tmp_path, block).forwards == ("fleet",)
