"""Kill the whole agent again and again while it delivers to real stores, then look for what it had accepted."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

from tests.proof.agents import FEW_COLLECTORS, Agent
from tests.proof.samples import (
    Key,
    Values,
    add,
    before_the_last_second,
    in_influxdb1,
    in_victoriametrics,
    journaled,
    missing_in_influxdb1,
    missing_in_victoriametrics,
    printed_points,
    values_of,
)
from tests.servers.influxdb1 import InfluxDB1
from tests.servers.process import wait_until
from tests.servers.victoriametrics import VictoriaMetrics

DATABASE = "kills"
HOST = "killed"
_LONGEST_LIVES_S = (0.5, 2.0, 4.0, 7.0)  # the longest see cursors become durable
_DELIVERED_WITHIN_S = 60.0


@dataclass
class Kills:
    """What was promised until now: everything in the journal's files at each death."""

    accepted: Values = field(default_factory=dict)
    rounds: int = 0
    shown: set[Key] = field(default_factory=set)  # printed before the second in which the agent was killed
    printed_up_to: int = 0  # bytes of the agent's output looked at


def config(victoriametrics: VictoriaMetrics, influxdb1: InfluxDB1) -> str:
    return f"""\
hostname: {HOST}
log: {{level: error}}
{FEW_COLLECTORS}
sinks:
  stdout: {{flush_interval: 1s}}
  new: {{type: influxdb, url: "{victoriametrics.url}", bucket: {DATABASE}, flush_interval: 1s}}
  old: {{type: influxdb, url: "{influxdb1.url}", version: "1", database: {DATABASE}, flush_interval: 1s}}
"""


def one_round(agent: Agent, kills: Kills, life_s: float) -> None:
    """Let it live for a moment, also one too short to get ready, and kill it.

    Raise AssertionError when the journal lacks what was shown before the current second.
    """
    agent.awaits_ready = life_s > 0.5
    agent.start(agent.port)
    time.sleep(life_s)  # how long a life lasts is what varies here
    agent.kill()
    kills.rounds += 1
    if not (agent.state_dir / "journal").exists():
        return
    here = journaled(agent.state_dir, {"host": HOST})
    said = agent.log[kills.printed_up_to :]
    kills.printed_up_to += len(said)
    shown = before_the_last_second(values_of(printed_points(said.rpartition("\n")[0])))
    add(kills.accepted, here)
    lost = [key for key in shown if key not in kills.accepted]
    assert not lost, f"shown before the current second and not in the journal: {lost[:5]}"
    kills.shown.update(shown)


def has_drained(agent: Agent) -> bool:
    """Whether no sink is further behind than it may be between two flushes."""
    return all(reader["oldest_age_s"] < 2 for reader in agent.ask("drain")["readers"].values())


def run(victoriametrics: VictoriaMetrics, influxdb1: InfluxDB1, rounds: int, seed: int) -> str:
    """Raise AssertionError when a store lacks an accepted point, or shows one twice."""
    rng = random.Random(seed)
    influxdb1.create_database(DATABASE)
    kills = Kills()
    with Agent(config(victoriametrics, influxdb1)) as agent:
        agent.kill()
        for _ in range(rounds):
            one_round(agent, kills, rng.random() * rng.choice(_LONGEST_LIVES_S))
        agent.awaits_ready = True
        agent.start(agent.port)
        match = f'{{host="{HOST}"}}'

        def lost() -> list[Key]:
            new = missing_in_victoriametrics(kills.accepted, in_victoriametrics(victoriametrics, match))
            return new + missing_in_influxdb1(kills.accepted, in_influxdb1(influxdb1, DATABASE))

        wait_until(lambda: has_drained(agent), "the sinks to have had everything", _DELIVERED_WITHIN_S, every=0.1)
        agent.stop()
        # The last life has measured the second in which the one before died once more; what else it measured was never
        # promised at a kill, and what a clean end leaves in the journal goes out at the next start.
        again = journaled(agent.state_dir, {"host": HOST})
        add(kills.accepted, {key: values for key, values in again.items() if key in kills.accepted})
        # VictoriaMetrics shows what it was given after a second or two.
        wait_until(lambda: not lost(), "all that was accepted in both stores", every=0.5)
        assert not agent.complaints(), agent.complaints()
    assert len(kills.accepted) > 20 * rounds, f"only {len(kills.accepted)} values: proves nothing"
    return (
        f"{kills.rounds} kills: {len(kills.accepted)} accepted values, 0 missing and 0 twice in VictoriaMetrics "
        f"and InfluxDB 1.6.7; {len(kills.shown)} values shown before a current second, all accepted"
    )
