"""Signals in any order: SIGTERM and SIGHUP, alone, in bursts, while the agent starts and while it stops."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import time
from pathlib import Path

from agent.statedir import PID_NAME
from tests.proof.agents import FEW_COLLECTORS, Agent
from tests.proof.samples import printed_points, slots
from tests.servers.process import free_port, wait_until

ENDS_WITHIN_S = 10.0


def config() -> str:
    """One sink that nobody listens for: it is in a pause between two tries whenever a signal comes."""
    return f"""\
{FEW_COLLECTORS}
sinks:
  away: {{type: influxdb, url: "http://127.0.0.1:{free_port()}", bucket: none, flush_interval: 1s}}
"""


def _is_there(agent: Agent) -> bool:
    """From here on the signals are the agent's; before, Python itself has not started."""
    with contextlib.suppress(OSError):
        return Path(agent.state_dir / PID_NAME).read_text().strip() == str(agent.pid)
    return False


def one_sequence(agent: Agent, rng: random.Random) -> float:
    """Start it, send a random sequence that holds a SIGTERM, and how long after that it ended (seconds).

    Raise AssertionError when it did not end cleanly.
    """
    agent.awaits_ready = rng.random() < 0.5
    agent.start(agent.port)
    wait_until(lambda: _is_there(agent), "the agent to hold its state directory", every=0.001)
    before = [signal.SIGHUP] * rng.randrange(5)
    for number in before:
        agent.signal(number)
        time.sleep(rng.choice([0, 0, rng.random() * 0.1]))  # the moment is what varies here
    agent.signal(signal.SIGTERM)
    sent_at = time.monotonic()
    pause_s = rng.choice([0.001, 0.01, 0.1])
    sent = 0
    while agent.is_running() and time.monotonic() < sent_at + ENDS_WITHIN_S:
        agent.signal(rng.choice([signal.SIGHUP, signal.SIGTERM]))
        sent += 1
        time.sleep(pause_s)  # to the very end of the process: also what comes last must not kill it
    try:
        status = agent.ended(ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"still there {ENDS_WITHIN_S:g} s after SIGTERM and {sent} more signals") from None
    assert status == 0, f"ended with {status} after {before}, SIGTERM and {sent} more signals:\n{agent.log[-2000:]}"
    return time.monotonic() - sent_at


def run(count: int, seed: int) -> str:
    rng = random.Random(seed)
    with Agent(config()) as agent:
        agent.stop()
        longest_s = max(one_sequence(agent, rng) for _ in range(count))
        assert not agent.complaints(), agent.log[-4000:]
    return f"{count} sequences of SIGTERM and SIGHUP: every end clean (status 0), the slowest after {longest_s:.1f} s"


def stop_and_continue(seconds: float) -> str:
    """SIGSTOP for `seconds`, then SIGCONT. Raise AssertionError when missed slots are made up for, or none come."""
    with Agent(f"{FEW_COLLECTORS}\nsinks: {{stdout: {{flush_interval: 1s}}}}") as agent:
        agent.settled("cpu", "memory")
        runs_before = _runs(agent)
        agent.signal(signal.SIGSTOP)
        time.sleep(seconds)  # the fault itself
        agent.signal(signal.SIGCONT)
        continued_at = time.monotonic()
        wait_until(lambda: _runs(agent) >= runs_before + 4, "slots after SIGCONT", 20)
        most = runs_before + 2 + round(time.monotonic() - continued_at) + 2
        runs = _runs(agent)
        assert runs <= most, f"{runs - runs_before} runs: the missed slots were made up for"
        wait_until(lambda: agent.health()["status"] == "ok", "a healthy agent")
        times = {point.time_ns or 0 for point in printed_points(agent.log)}
        assert all(time_ns % 10**9 == 0 for time_ns in times), "a slot off the second"
        seconds_seen = slots(printed_points(agent.log), "mem")
        skipped = seconds_seen[-1] - seconds_seen[0] + 1 - len(seconds_seen)
    return f"SIGSTOP for {seconds:g} s: {skipped} slots skipped, none made up for, aligned at once"


def _runs(agent: Agent) -> int:
    for line in agent.metrics().splitlines():
        if line.startswith('vigilhost_collector_runs_total{collector="memory"}'):
            return int(float(line.rpartition(" ")[2]))
    return 0
