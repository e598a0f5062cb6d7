"""Every command of the operating pages, typed beside a real agent; the tables of the migrating page against the code.

Commands of others (apt, systemctl, rsync) would change the machine; of those only the shell's syntax is looked at.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from agent.cli.group import cli
from agent.config import Settings
from agent.config.tables import COLLECTORS
from agent.influx.plan import groups_of
from tests.servers.influxdb2_stub import InfluxDB2Stub
from tests.servers.process import wait_until
from tests.servers.programs import need
from tests.servers.scripted_http import Reply, ScriptedHttp
from tests.servers.vigilhost import Vigilhost

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("operating.md", "dashboards.md", "migrating.md")
CONFIG = """\
hostname: web1
sinks: {influxdb: {url: %s, org: home, bucket: hosts, token: writer-token, flush_interval: 1s}}
alerting: {receivers: {ops: {type: webhook, url: %s/hook}}}
"""
JOB = """\
source: {files: {paths: [%s]}}
targets: {disk: {type: local, path: %s}}
schedule: never
drill: {schedule: never, assertions: [{file_exists: [%s/file]}]}
"""
RULE_TEST = """\
rule_files: []
tests:
  - interval: 1m
    input_series: [{series: x, values: "1 2"}]
    promql_expr_test: [{expr: x, eval_time: 1m, exp_samples: [{labels: x, value: 2}]}]
"""
# What may come out beside 0: the machine's clock, alerts that fire, names that stand for something else.
ALSO_RIGHT = {
    "doctor": {1},
    "alerts": {3},
    "unsilence": {1},
    "status": {3},  # a collector may fail on the machine that tests
}
# Named without what they need; the text says more of them elsewhere.
NAMES = {"vigilhost query", "vigilhost backup restore"}
FIRST = ("vigilhost backup run etc",)  # what others need


def commands(page: str) -> Iterator[str]:
    """Lines of blocks and texts in backticks that begin with `vigilhost` and say more than a command's name."""
    text = (DOCS / page).read_text()
    for line in re.findall(r"^ {4,}(vigilhost .*)$", text, re.MULTILINE):
        yield line.partition("  #")[0].strip()
    for line in re.findall(r"`(vigilhost [^`]+)`", text):
        yield line.replace("\\|", "|")


ALL = sorted({line for page in PAGES for line in commands(page)} - NAMES)


class Operator:
    """Types commands on a host with an agent, a sink, a receiver and a backup job."""

    def __init__(self, agent: Vigilhost) -> None:
        self.agent = agent
        self.directory = agent.data_dir

    def types(self, line: str) -> Result:
        line = line.replace("/etc/vigilhost", str(self.directory)).replace("FILE", str(self.directory / "test.yml"))
        words = shlex.split(line)[1:]
        before = os.umask(0o022)  # commands of backup make theirs strict
        try:
            with contextlib.chdir(self.directory):
                if words[0] == "run":
                    return self._runs([*words, *self._where(words)])
                return CliRunner(env={"COLUMNS": "200"}).invoke(cli, [*words, *self._where(words)])
        finally:
            os.umask(before)

    @staticmethod
    def _runs(words: list[str]) -> Result:
        """An agent of its own: it takes signals, the log and standard output for itself."""
        argv = [sys.executable, "-m", "agent.cli.main", *words]
        environment = {**os.environ, "PYTHONPATH": str(DOCS.parent)}
        done = subprocess.run(argv, capture_output=True, timeout=120, check=False, env=environment)
        return Result(CliRunner(), done.stdout, done.stderr, b"", None, done.returncode, None)

    def _where(self, words: list[str]) -> list[str]:
        """The options that lead the command to this agent, of those that it has."""
        config, state = str(self.agent.config_file), str(self.agent.state_dir)
        if words[0] == "run":  # another agent than the one that runs
            return ["--config", config, "--state-dir", str(self.directory / "other")]
        if words[0] == "check":
            return [config]
        command = _leaf(words)
        given = {"--config": config, "--state-dir": state, "--jobs": str(self.directory / "backup.d")}
        known = {name for param in command.params for name in param.opts}
        return [word for name, value in given.items() if name in known for word in (name, value)]


def _leaf(words: list[str]) -> click.Command:
    command: click.Command = cli
    context = click.Context(cli)
    for word in words:
        if not isinstance(command, click.Group):
            break
        found = command.get_command(context, word)
        if found is None:
            break
        command = found
    return command


@pytest.fixture(scope="module")
def operator() -> Iterator[Operator]:
    need("tar", "zstd", "setpriv")
    stub = InfluxDB2Stub()
    stub.add_bucket("hosts", 86_400)
    with stub.serve() as server, ScriptedHttp(Reply(200)) as hook, Vigilhost(CONFIG % (server.url, hook.url)) as agent:
        agent.config_file.chmod(0o600)
        (agent.data_dir / "influx-admin.token").write_text(stub.admin)
        (agent.data_dir / "test.yml").write_text(RULE_TEST)
        source, store = agent.data_dir / "source", agent.data_dir / "store"
        for directory in (source, store, agent.data_dir / "backup.d"):
            directory.mkdir(mode=0o700)
        (source / "file").write_text("hello\n")
        job = agent.data_dir / "backup.d" / "etc.yaml"
        job.write_text(JOB % (source, store, str(source).lstrip("/")))
        job.chmod(0o600)
        typed = Operator(agent)
        for line in (
            "vigilhost influx setup --token-file /etc/vigilhost/influx-admin.token",
            "vigilhost reload",
            *FIRST,
        ):
            done = typed.types(line)
            assert done.exit_code == 0, (line, done.output)
        wait_until(lambda: agent.health()["sinks"]["influxdb"]["state"] == "ok", "the sink wrote", 90.0)
        yield typed


@pytest.mark.parametrize("line", ALL)
def test_every_command_of_the_pages_does_what_it_says(operator: Operator, line: str) -> None:
    words = shlex.split(line)[1:]
    done = operator.types(line)
    right = {0} | ALSO_RIGHT.get(words[0], set()) | ALSO_RIGHT.get(" ".join(words[:2]), set())
    assert done.exit_code in right, (done.output[-2000:], done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit)


@pytest.mark.parametrize("line", sorted(NAMES))
def test_commands_that_are_only_named_are_there(line: str) -> None:
    assert _leaf(line.split()[1:]).name == line.split()[-1]


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_others_are_right_shell(page: str) -> None:
    lines = re.findall(r"^ {4,}(?!vigilhost )(\S.*)$", (DOCS / page).read_text(), re.MULTILINE)
    subprocess.run(["bash", "-n"], input="\n".join(lines), text=True, check=True, capture_output=True)


@pytest.mark.parametrize("page", PAGES)
def test_every_option_named_is_one(page: str) -> None:
    """`journal.max_bytes` and the like in backticks."""
    reference = (DOCS / "configuration.md").read_text()
    for name in set(re.findall(r"`((?:journal|history|alerting)\.[a-z_.]+)`", (DOCS / page).read_text())):
        rest = name.partition(".")[2].removesuffix(".ops")
        assert re.search(rf"\b{re.escape(rest)}\b", reference), name


def test_what_the_migrating_page_says_of_telegraf_is_so() -> None:
    text = (DOCS / "migrating.md").read_text()
    row = next(line for line in text.splitlines() if "inputs.cpu" in line)
    wanted = set(re.findall(r"`(?:\[\[inputs\.)?(\w+)(?:\]\])?`", row.split("|")[1]))
    measurements = {group.measurement for group in groups_of(Settings()) if group.in_influx}
    assert len(wanted) > 15
    assert wanted - measurements == set()


def test_what_the_migrating_page_says_of_collectors_is_so() -> None:
    text = (DOCS / "migrating.md").read_text()
    named = set(re.findall(r"`collectors\.([a-z_]+)", text))
    assert named - set(COLLECTORS.builtin) == set()
    row = next(line for line in text.splitlines() if line.startswith("| `--collector.systemd`"))
    assert {"systemd", "processes", "interrupts", "tcpstat"} <= set(COLLECTORS.on_by_default)
    assert "on by default" in row


def test_every_file_of_the_state_directory_is_in_the_manual(operator: Operator) -> None:
    named = set(re.findall(r"`([^`]+)`", (DOCS / "state.md").read_text()))
    patterns = {re.sub(r"[A-Z]{3,}", "*", name) for name in named}
    state = operator.agent.state_dir
    files = {str(path.relative_to(state)) for path in state.rglob("*") if not path.is_dir()}
    assert {"alerts.sqlite", "lock"} <= files
    unknown = {
        name
        for name in files
        if not any(fnmatch.fnmatch(re.sub(r"-(wal|shm)$", "", name), pattern) for pattern in patterns)
    }
    assert unknown == set()
