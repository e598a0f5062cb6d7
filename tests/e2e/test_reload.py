from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial

import pytest

from agent.control import ControlError
from tests.proof import reloads
from tests.proof.agents import Agent
from tests.proof.samples import missed, printed_points, slots
from tests.servers.process import free_port, listens, wait_until
from tests.servers.scripted_http import ScriptedHttp

CONFIG = """\
hostname: reload
collectors:
  others: false
  agent: {interval: 1s}
  cpu: {interval: 1s}
  memory: {interval: 1s}
  net: {interval: 1s}
sinks:
  stdout: {flush_interval: 1s}
"""


@pytest.fixture
def agent() -> Iterator[Agent]:
    with Agent(CONFIG) as agent:
        agent.settled("cpu", "memory", "net")
        yield agent
        assert not agent.complaints()


def seen(agent: Agent, measurement: str) -> list[int]:
    return slots(printed_points(agent.log.rpartition("\n")[0]), measurement)


def has_reloaded(agent: Agent, times: int) -> bool:
    return agent.log.count("agent.reloaded") == times


def has_more_than(agent: Agent, slots_seen: int) -> bool:
    return len(seen(agent, "mem")) > slots_seen


def metric(agent: Agent, name: str) -> float:
    (line,) = [line for line in agent.metrics().splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


def test_fifty_mutated_configurations_are_survived_with_an_answer_to_every_question() -> None:
    reloads.run(count=50, seed=1)


@pytest.mark.parametrize("how", ["SIGHUP", "vigilhost reload"])
def test_what_did_not_change_misses_no_slot_and_what_did_changes(agent: Agent, how: str) -> None:
    for turn in range(4):
        interval = "2s" if turn % 2 == 0 else "1s"
        agent.write_config(CONFIG.replace("net: {interval: 1s}", f"net: {{interval: {interval}}}"))
        if how == "SIGHUP":
            agent.signal(signal.SIGHUP)
            wait_until(partial(has_reloaded, agent, turn + 1), "the reload")
        else:
            assert agent.ask("reload")["unchanged"] == 3
        wait_until(partial(has_more_than, agent, len(seen(agent, "mem"))), "the next slot")
    agent.write_config(CONFIG.replace("net: {interval: 1s}", "net: {interval: 2s}"))
    done = agent.cli("reload", "--state-dir", str(agent.state_dir))
    assert done.returncode == 0, done.stderr
    last = seen(agent, "mem")[-1]
    wait_until(lambda: len([second for second in seen(agent, "net") if second > last + 1]) >= 3, "slots of two seconds")
    assert all(second % 2 == 0 for second in seen(agent, "net") if second > last + 1)
    assert missed(seen(agent, "mem"), agent.skipped("memory")) == 0
    assert missed(seen(agent, "cpu"), agent.skipped("cpu")) == 0


def test_a_wrong_file_keeps_the_old_configuration_and_says_so_everywhere(agent: Agent) -> None:
    wait_until(lambda: metric(agent, "vigilhost_config_last_reload_successful") == 1, "the metric")
    taken_over_at = metric(agent, "vigilhost_config_last_reload_success_timestamp_seconds")
    agent.write_config(CONFIG.replace("memory: {interval: 1s}", "memry: {interval: soon}"))
    with pytest.raises(ControlError, match="memry"):
        agent.ask("reload")
    told = agent.health()
    assert told["status"] == "degraded"
    assert told["failing"] == ["reload"]
    assert "memry" in told["reload_error"]
    assert "memory" in told["collectors"]
    assert "agent.reload_failed" in agent.log
    wait_until(lambda: metric(agent, "vigilhost_config_last_reload_successful") == 0, "the metric")
    assert metric(agent, "vigilhost_config_last_reload_success_timestamp_seconds") == taken_over_at
    done = agent.cli("reload", "--state-dir", str(agent.state_dir))
    assert done.returncode != 0
    assert "memry" in done.stderr
    agent.write_config(CONFIG)
    agent.signal(signal.SIGHUP)
    wait_until(lambda: metric(agent, "vigilhost_config_last_reload_successful") == 1, "the metric")
    assert metric(agent, "vigilhost_config_last_reload_success_timestamp_seconds") > taken_over_at
    assert agent.health()["status"] == "ok"
    assert missed(seen(agent, "mem"), agent.skipped("memory")) == 0


def test_the_address_can_change_and_an_impossible_one_changes_nothing() -> None:
    with Agent(f"listen: 127.0.0.1:PORT\n{CONFIG}", fixes_address=False) as agent, ScriptedHttp() as other:
        first, second = agent.port, free_port()
        agent.write_config(agent.config.replace("PORT", str(second)))
        agent.ask("reload")
        agent.port = second
        assert agent.health()["status"] == "ok"
        wait_until(lambda: not listens(first), "the old address to be free again")
        agent.write_config(agent.config.replace("PORT", str(other.port)).replace("cpu: {interval: 1s}", "cpu: {}"))
        with pytest.raises(ControlError, match=r"listen: .*address already in use"):
            agent.ask("reload")
        told = agent.health()
        assert told["collectors"]["cpu"]["interval_s"] == 1
        assert told["failing"] == ["reload"]
        assert not agent.complaints()


def test_a_sink_can_be_added_changed_and_taken_away(agent: Agent) -> None:
    with ScriptedHttp() as first, ScriptedHttp() as second:
        one = f'{CONFIG}  store: {{type: influxdb, url: "{first.url}", bucket: b, flush_interval: 1s}}\n'
        agent.write_config(one)
        agent.ask("reload")
        first.wait_for(2)
        agent.write_config(one.replace(first.url, second.url))
        agent.ask("reload")
        count = len(first.requests)
        second.wait_for(2)
        assert len(first.requests) <= count + 1, "one write may have been on its way"
        times = [slots(printed_points(r.text), "mem") for r in [*first.requests, *second.requests]]
        delivered = sorted({second for each in times for second in each})
        assert missed(delivered, agent.skipped("memory")) == 0, "the new one goes on where the old one was"
        agent.write_config(CONFIG)
        agent.ask("reload")
        assert sorted(agent.health()["sinks"]) == ["stdout"]
        readers = agent.health()["journal"]["readers"]
        assert sorted(readers) == ["stdout", "store"], "its place is kept: taking it away may have been a mistake"
        agent.ask("purge", reader="store")
        assert sorted(agent.health()["journal"]["readers"]) == ["stdout"]


def test_the_log_level_changes_at_a_reload(agent: Agent) -> None:
    agent.write_config(f"log: {{level: error}}\n{CONFIG}")
    agent.ask("reload")
    silent_from = len(agent.log)
    agent.ask("reload")
    assert "agent.reloaded" not in agent.log[silent_from:]
    agent.write_config(f"log: {{level: info}}\n{CONFIG}")
    agent.ask("reload")
    assert "agent.reloaded" in agent.log[silent_from:]
