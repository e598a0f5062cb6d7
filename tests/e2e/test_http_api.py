"""The API of a running agent, asked over TCP and by the command, while it runs and after it has stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.servers.http_call import call
from tests.servers.process import ServerError, free_port, wait_until
from tests.servers.vigilhost import Vigilhost

CONFIG = "hostname: web1\nhistory: {flush: 10s}\n"


def vigilhost(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent.cli.main", *arguments], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "COLUMNS": "100", **environment},
    )  # fmt: skip


@pytest.fixture(scope="module")
def agent() -> Iterator[Vigilhost]:
    with Vigilhost(CONFIG) as running:
        wait_until(lambda: get(running, "query", query="count_over_time(node_load1[1m]) > 1")["result"], "two samples")
        yield running


def get(agent: Vigilhost, path: str, **params: Any) -> Any:
    answer = call(f"{agent.url}/api/v1/{path}", params=params)
    assert answer.status == 200, answer.text
    return answer.json()["data"]


def test_what_is_collected_is_found_by_queries_a_moment_later(agent: Vigilhost) -> None:
    assert get(agent, "query", query="min(up)")["result"][0]["value"][1] == "1"
    assert "node_load1" in get(agent, "label/__name__/values")
    assert get(agent, "metadata", metric="node_load1")["node_load1"][0]["type"] == "gauge"
    assert get(agent, "series", **{"match[]": "node_load1"}) == [
        {"__name__": "node_load1", "instance": "web1", "job": "node"}
    ]


def test_current_values_are_those_of_metrics(agent: Vigilhost) -> None:
    shown = {one["metric"]: one for one in get(agent, "metrics/current", metric="node_memory_MemTotal_bytes")["series"]}
    (line,) = (line for line in agent.metrics().splitlines() if line.startswith("node_memory_MemTotal_bytes "))
    assert shown["node_memory_MemTotal_bytes"]["value"] == float(line.split()[1])


def test_the_command_asks_the_running_agent(agent: Vigilhost) -> None:
    where = ("--config", str(agent.config_file), "--state-dir", str(agent.state_dir))
    done = vigilhost("query", "node_load1 >= 0", *where, "--format", "json")
    assert json.loads(done.stdout)["result"][0]["metric"]["instance"] == "web1", done.stderr
    wrong = vigilhost("query", "sum(node_load1", *where)
    assert wrong.returncode == 2
    assert wrong.stderr.splitlines()[:2] == ["  sum(node_load1", "                ^"]
    exported = vigilhost("export", *where, "--since", "1h", "--match", "node_load1", "--format", "line-protocol")
    assert exported.stdout.startswith("node_load1,instance=web1,job=node value=")


def test_nobody_can_write_or_ask_under_another_name(agent: Vigilhost) -> None:
    assert call(f"{agent.url}/api/v1/silences", "POST").status == 403
    assert call(f"{agent.url}/metrics", headers={"Host": "evil.example"}).status == 421


def test_history_is_read_where_the_agent_has_stopped() -> None:
    with Vigilhost(CONFIG) as agent:
        wait_until(lambda: get(agent, "query", query="node_load1")["result"], "a sample")
        where = ("--config", str(agent.config_file), "--state-dir", str(agent.state_dir))
        agent.stop()
        done = vigilhost("query", "count_over_time(node_load1[1h])", *where, "--format", "csv")
        assert "reading the history it left" in done.stderr
        assert done.stdout.splitlines()[0] == "time,metric,instance,job,value"
        assert float(done.stdout.splitlines()[1].rpartition(",")[2]) >= 1


TOKENS = """
http:
  tokens: [{name: grafana, token: a-token-of-grafana-0123}]
"""


def test_with_a_token_configured_only_its_holder_is_answered() -> None:
    with Vigilhost(CONFIG + TOKENS) as agent:
        assert call(f"{agent.url}/metrics").status == 401
        bearer = {"Authorization": "Bearer a-token-of-grafana-0123"}
        assert call(f"{agent.url}/metrics", headers=bearer).status == 200
        where = ("query", "1", "--config", str(agent.config_file), "--state-dir", str(agent.state_dir))
        assert "VIGILHOST_TOKEN" in vigilhost(*where).stderr
        assert vigilhost(*where, VIGILHOST_TOKEN="a-token-of-grafana-0123").stdout == "1\n"


class Open(Vigilhost):
    """An agent that listens on every interface."""

    def command(self) -> list[Any]:
        return [f"--listen=0.0.0.0:{self.port}" if str(word).startswith("--listen=") else word
                for word in super().command()]  # fmt: skip


def test_off_loopback_it_starts_only_with_protection_or_when_told_so() -> None:
    with pytest.raises(ServerError, match=r"configure http\.tokens"), Open(CONFIG):
        pass
    with Open(CONFIG, "--insecure") as agent:
        assert "--insecure" in agent.log
    with Open(CONFIG + TOKENS) as agent:
        assert call(f"{agent.url}/health").status == 401


def test_a_daemon_nobody_knows_is_said() -> None:
    done = vigilhost("query", "1", "--url", f"http://127.0.0.1:{free_port()}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: http://127.0.0.1:")


def test_once_it_is_ready_there_is_something_to_scrape() -> None:
    with Vigilhost("{}") as agent:  # returns with the first answer that says ready
        assert "node_memory_MemTotal_bytes" in agent.metrics()
        assert not [name for name, each in agent.health()["collectors"].items() if each["state"] == "starting"]
