"""The real agent, killed again and again: its history opens each time and lacks only what the last moment held."""

from __future__ import annotations

import random
import time

from tests.servers.http_call import call
from tests.servers.process import wait_until
from tests.servers.vigilhost import Vigilhost

ROUNDS = 5
# Readings are written to the journal once a second; a machine that has much else to do may be late with it.
MOST_LOST_S = 3.0
CONFIG = "hostname: web1\nhistory: {flush: 10s}\n"


def remembered(agent: Vigilhost) -> dict[float, str]:
    """Every sample of a metric that is read each second, by time."""
    asked = {"query": "node_memory_MemFree_bytes[10m]"}
    answer = call(f"{agent.url}/api/v1/query", params=asked).json()
    return {at: value for one in answer["data"]["result"] for at, value in one["values"]}


def test_what_was_answered_before_a_kill_is_answered_after_it() -> None:
    rng = random.Random(11)
    with Vigilhost(CONFIG) as agent:
        for _ in range(ROUNDS):
            count = len(remembered(agent)) + rng.randrange(3, 8)
            wait_until(lambda wanted=count: len(remembered(agent)) >= wanted, f"{count} samples", 60.0)  # type: ignore[misc]
            before, killed_at = remembered(agent), time.time()
            agent.kill()
            agent.start()
            sure = {at: value for at, value in before.items() if at <= killed_at - MOST_LOST_S}
            wait_until(lambda known=sure: known.items() <= remembered(agent).items(), "what was there before", 30.0)  # type: ignore[misc]
            history = agent.health()["history"]
            assert (history["lost_rows"], history["damaged_blocks"], history["set_aside"]) == (0, 0, [])
