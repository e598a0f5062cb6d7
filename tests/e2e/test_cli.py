"""The command as people type it, beside a running agent."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from collectors.influx_line import parse_influx_lines
from tests.servers.process import LOOPBACK, free_port
from tests.servers.vigilhost import Vigilhost


def vigilhost(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent.cli.main", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(scope="module")
def agent() -> Iterator[Vigilhost]:
    with Vigilhost("sinks: {stdout: {flush_interval: 1s}}") as running:
        yield running


def test_status_shows_every_collector_and_sink(agent: Vigilhost) -> None:
    done = vigilhost("status", "--state-dir", str(agent.state_dir))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("vigilhost 0.1.0, pid ")
    assert "memory" in done.stdout
    assert "stdout" in done.stdout


def test_status_as_json_is_what_health_says(agent: Vigilhost) -> None:
    said = json.loads(vigilhost("status", "--state-dir", str(agent.state_dir), "--json").stdout)
    assert said.keys() == agent.health().keys() | {"url", "configured_at"}
    assert said["url"] == agent.url
    assert said["collectors"].keys() == agent.health()["collectors"].keys()


def test_status_without_an_agent_says_where_it_looked(tmp_path: object) -> None:
    done = vigilhost("status", "--state-dir", str(tmp_path))
    assert done.returncode == 1
    assert "no agent answers here; is it running?" in done.stderr
    assert f"{tmp_path}/control.sock: no such file or directory" in done.stderr


def test_a_second_agent_does_not_share_a_state_directory(agent: Vigilhost) -> None:
    listen = f"{LOOPBACK}:{free_port()}"
    done = vigilhost("run", "--config", "/dev/null", "--state-dir", str(agent.state_dir), "--listen", listen)
    assert done.returncode == 1
    assert f"in use by another agent (pid {agent.health()['pid']})" in done.stderr


def test_a_port_that_is_taken_is_one_clear_line(agent: Vigilhost, tmp_path: object) -> None:
    done = vigilhost(
        "run", "--config", "/dev/null", "--state-dir", str(tmp_path), "--listen", f"{LOOPBACK}:{agent.port}"
    )
    assert done.returncode == 1
    assert done.stderr == f"vigilhost: listen: {LOOPBACK}:{agent.port}: address already in use\n"


def test_run_once_dry_prints_line_protocol_of_every_collector_that_works(tmp_path: object) -> None:
    done = vigilhost("run", "--config", "/dev/null", "--state-dir", str(tmp_path), "--once", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert {"mem", "disk", "system", "kernel"} <= {
        point.measurement for point in parse_influx_lines(done.stdout.encode())
    }


def test_a_wrong_configuration_is_refused_with_every_mistake(agent: Vigilhost, tmp_path: object) -> None:
    path = f"{tmp_path}/bad.yaml"
    with open(path, "w", encoding="utf-8") as file:
        file.write("listn: x\ncollectors:\n  cpu: {interval: five}\n  dsk: {}\n")
    done = vigilhost("run", "--config", path)
    assert done.returncode == 2
    said = done.stderr.splitlines()
    assert len(said) == 3
    assert said[0].startswith(f"{path}:1: listn: no such option; did you mean 'listen'?")
    assert said[1].startswith(f"{path}:3: collectors.cpu.interval: 'five' is not a duration")
    assert "did you mean 'disk'?" in said[2]


def test_collectors_tells_what_works_here_and_why_not() -> None:
    done = vigilhost("collectors", "--config", "/dev/null")
    assert done.returncode == 0
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert "works" in lines["memory"]
    assert " off" in lines["exec"]


@pytest.mark.parametrize(("form", "expected"), [("influx", "mem,host="), ("prometheus", "node_memory_MemTotal_bytes "),
                                                ("table", "MemTotal_bytes")])  # fmt: skip
def test_collect_shows_one_look(form: str, expected: str) -> None:
    done = vigilhost("collect", "memory", "--format", form, "--config", "/dev/null")
    assert done.returncode == 0
    assert expected in done.stdout


def test_collect_of_an_unknown_name_lists_those_there_are() -> None:
    done = vigilhost("collect", "memry", "--config", "/dev/null")
    assert done.returncode == 2
    assert "no such collector is turned on: memry; there are agent, arp" in done.stderr


def test_journal_status_and_drain(agent: Vigilhost) -> None:
    done = vigilhost("journal", "status", "--state-dir", str(agent.state_dir))
    assert done.returncode == 0
    assert "stdout" in done.stdout
    assert vigilhost("journal", "drain", "--state-dir", str(agent.state_dir)).returncode == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_that_names_the_command(shell: str) -> None:
    done = vigilhost("completion", shell)
    assert done.returncode == 0
    assert "_VIGILHOST_COMPLETE" in done.stdout


def test_help_and_version_name_every_command() -> None:
    said = vigilhost("--help").stdout
    assert all(
        f"\n  {name} " in said for name in ("run", "check", "config", "collect", "collectors", "status", "journal")
    )
    assert vigilhost("--version").stdout == "vigilhost, version 0.1.0\n"
    assert "--dry-run" in vigilhost("run", "--help").stdout
