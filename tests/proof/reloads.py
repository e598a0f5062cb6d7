"""Reloads: configurations broken in every way, while the agent answers and what did not change goes on."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from dataclasses import dataclass, field

from agent.control import ControlError
from tests.proof.agents import Agent
from tests.servers.http_call import call
from tests.servers.process import free_port, wait_until

ANSWERS_WITHIN_S = 5.0  # on a machine that does other things too; usually it is milliseconds

GOOD = f"""\
hostname: reloads
tags: {{zone: "north"}}
log: {{level: info, format: console}}
collectors:
  others: false
  agent: {{interval: 1s}}
  cpu: {{interval: 1s, percpu: true}}
  memory: {{interval: 1s, offset: 0s, jitter: 0s}}
  disk: {{interval: 5s, ignore_fs: [tmpfs, devtmpfs], max_mounts: 1000}}
  exec:
    interval: 30s
    commands:
      - {{name: hello, argv: [/bin/echo, "m value=1"], format: influx, timeout: 10s, tags: {{a: b}}}}
sinks:
  stdout: {{flush_interval: 1s}}
  away: {{type: influxdb, url: "http://127.0.0.1:{free_port()}", bucket: none, token: abc, timeout: 500ms}}
"""

_PIECES = [
    "{", "}", "[", "]", ":", "- ", "\n", "\t", "'", '"', "#", "&a ", "*a", "!!python/object ", "|", ">", "%", "@", "\0",
    "é", "\U0001f4a3", "true", "null", "~", "-1", "0", "1e999", "5 minutes", "${NOPE}", "$", "{file: /nope}", "<<: ",
    "\x7f", "---\n", "others: true", "enabled: false", "sinks:", "collectors:", "0s", "1ms", "999999999999999999999",
]  # fmt: skip


def mutated(text: str, rng: random.Random) -> bytes:
    """The text with one to three things done to it: cut, doubled, swapped, replaced, sprinkled with noise."""
    raw = bytearray(text.encode())
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(raw) + 1)
        end = min(len(raw), at + rng.choice([1, 2, 5, 20, 200]))
        match rng.randrange(7):
            case 0:
                del raw[at:end]
            case 1:
                raw[at:at] = rng.choice(_PIECES).encode()
            case 2:
                raw[at:end] = rng.choice(_PIECES).encode()
            case 3:
                raw[at:at] = raw[at:end]
            case 4:
                raw[at:end] = rng.randbytes(end - at)
            case 5:
                del raw[at:]
            case 6:
                lines = bytes(raw).split(b"\n")
                rng.shuffle(lines)
                raw = bytearray(b"\n".join(lines))
        if not raw:
            break
    return bytes(raw)


@dataclass
class Watcher:
    """Asks /health without pause, on a thread of its own, and keeps what went wrong."""

    url: str
    answers: int = 0
    slowest_s: float = 0.0
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> Watcher:
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ending.wait(0.02):
            asked_at = time.monotonic()
            try:
                status = call(f"{self.url}/health", timeout=ANSWERS_WITHIN_S).status
            except OSError as error:
                self.failures.append(repr(error))
                continue
            self.answers += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - asked_at)
            if status != 200:
                self.failures.append(f"status {status}")


def run(count: int, seed: int) -> str:
    """Raise AssertionError when the agent does not answer, ends, or does not take a good configuration afterwards."""
    rng = random.Random(seed)
    taken = 0
    with Agent(GOOD) as agent, Watcher(agent.url) as watcher:
        for number in range(count):
            agent.config_file.write_bytes(mutated(GOOD, rng))
            if number % 5 == 4:
                agent.signal(signal.SIGHUP)
            with contextlib.suppress(ControlError):
                agent.ask("reload")
                taken += 1
            assert agent.health()["version"], "it answers"
        agent.write_config(GOOD)
        agent.ask("reload")
        told = agent.health()
        assert told["reload_error"] == ""
        assert sorted(told["sinks"]) == ["away", "stdout"]
        assert sorted(told["collectors"]) == ["agent", "cpu", "disk", "exec", "memory"]
        wait_until(lambda: "reload" not in agent.health()["failing"], "a healthy agent")
        agent.settled("cpu", "memory")
        assert not watcher.failures, watcher.failures[:5]
        assert not agent.complaints(), agent.log[-5000:]
    return (
        f"{count} mutated configurations: {taken} taken, {count - taken} refused, {count + watcher.answers} questions "
        f"answered meanwhile, the slowest in {watcher.slowest_s * 1000:.0f} ms"
    )
