"""The real agent, killed again and again: its history opens each time and has all that the journal had at the death."""

from __future__ import annotations

import random
from statistics import median

from agent.core.clock import NS
from tests.proof.samples import journaled
from tests.servers.http_call import call
from tests.servers.process import wait_until
from tests.servers.vigilhost import Vigilhost

ROUNDS = 5
CONFIG = "hostname: web1\nhistory: {flush: 10s}\n"


def remembered(agent: Vigilhost) -> dict[float, str]:
    """Every sample of a metric that is read each second, by time."""
    asked = {"query": "node_memory_MemFree_bytes[10m]"}
    answer = call(f"{agent.url}/api/v1/query", params=asked).json()
    return {at: value for one in answer["data"]["result"] for at, value in one["values"]}


def written(agent: Vigilhost) -> set[float]:
    """The seconds of that metric that the files of a dead agent's journal hold."""
    return {at / NS for measurement, _, _, at in journaled(agent.state_dir, {}) if measurement == "mem"}


def test_what_was_written_before_a_kill_is_answered_after_it() -> None:
    rng = random.Random(11)
    known: dict[float, str] = {}
    unwritten: list[int] = []
    with Vigilhost(CONFIG) as agent:
        for _ in range(ROUNDS):
            count = len(remembered(agent)) + rng.randrange(3, 8)
            wait_until(lambda wanted=count: len(remembered(agent)) >= wanted, f"{count} samples", 60.0)  # type: ignore[misc]
            before = remembered(agent)
            agent.kill()
            on_disk = written(agent)
            agent.start()
            wait_until(lambda sure=on_disk: sure <= remembered(agent).keys(), "all that the journal had", 30.0)  # type: ignore[misc]
            known |= {at: value for at, value in before.items() if at in on_disk}
            assert known.items() <= remembered(agent).items(), "no value is another one now"
            lost = before.keys() - on_disk
            assert not lost or min(lost) > max(on_disk), "only the newest may be missing"
            unwritten.append(len(lost))
            history = agent.health()["history"]
            assert (history["lost_rows"], history["damaged_blocks"], history["set_aside"]) == (0, 0, [])
    # A disk that is busy with others may take a second for a sync, and so cost one death more than its last second.
    assert median(unwritten) <= 1, f"each second is to be written within it; lost at each death: {unwritten}"


def test_the_journal_keeps_what_history_has_not_written() -> None:
    """Also where it was told to keep nothing that all sinks have had, and has tidied up twice since."""
    config = "hostname: web1\nhistory: {flush: 20m}\njournal: {keep: 0s, segment_age: 1s}\n"
    with Vigilhost(config) as agent:
        wait_until(lambda: remembered(agent), "a sample")
        (first, *_) = remembered(agent).items()
        tidied: set[str] = set()

        def is_tidied_twice() -> bool:
            closed = {path.name for path in (agent.state_dir / "journal").glob("*.segz")}
            at_once = bool(tidied) and bool(closed - tidied)
            tidied.update(closed)
            return at_once

        wait_until(is_tidied_twice, "the journal to pack closed files twice", 90.0)
        agent.kill()
        agent.start()
        wait_until(lambda: first in remembered(agent).items(), "the first sample of the life before", 30.0)
