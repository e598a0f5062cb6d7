"""Hours in a short time: scrapes, broken connections and a sink that is away, while what the agent holds stays flat."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import threading
import time
from dataclasses import dataclass, field
from statistics import mean

import psutil

from tests.proof.agents import Agent
from tests.servers.process import LOOPBACK, wait_until
from tests.servers.tcp_proxy import TcpProxy
from tests.servers.victoriametrics import VictoriaMetrics

SCRAPERS = 2
SINKS = 3
MOST_GROWTH = 1.05  # of resident memory, between the second and the last quarter
MOST_WHEN_AWAY = 1.5  # times the resident memory with the sink there
AWAY_RATE = 10  # readings a second of each collector while the sink is away: an hour of data in six minutes
_OF_A_PROCESS = re.compile(r"/proc/\d+/")


@dataclass
class Held:
    """What the agent holds, sampled."""

    process: psutil.Process
    rss: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def look(self) -> None:
        with self.process.oneshot():
            self.rss.append(self.process.memory_info().rss)
            self.descriptors.append(_lasting_descriptors(self.process.pid))
            self.threads.append(self.process.num_threads())

    def quarter(self, values: list[int], number: int) -> list[int]:
        size = len(values) // 4
        return values[(number - 1) * size : number * size]


def _lasting_descriptors(pid: int) -> int:
    """Open descriptors without those of other processes' files in /proc: they come and go with the processes."""
    count = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            count += not _OF_A_PROCESS.match(os.readlink(f"/proc/{pid}/fd/{name}"))
    return count


class Scraper(threading.Thread):
    """Asks for /metrics on one connection, at a given pace, until told to end."""

    def __init__(self, port: int, per_s: float) -> None:
        super().__init__(name="scraper")
        self.port = port
        self.pause_s = 1 / per_s
        self.done = 0
        self.failures: list[str] = []
        self.ending = threading.Event()

    def run(self) -> None:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=10)
        next_at = time.monotonic()
        while not self.ending.is_set():
            try:
                connection.request("GET", "/metrics")
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200 or not body:
                    self.failures.append(f"status {answer.status}, {len(body)} bytes")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
            self.done += 1
            next_at += self.pause_s
            self.ending.wait(max(0.0, next_at - time.monotonic()))
        connection.close()


def run(store: VictoriaMetrics, minutes: float, scrapes: int, reconnects: int) -> str:
    """Raise AssertionError when a scrape fails, or memory, descriptors or threads grow."""
    seconds = minutes * 60
    with TcpProxy(store.port) as proxy:
        sinks = "\n".join(
            f'  s{n}: {{type: influxdb, url: "{proxy.url}", bucket: b, flush_interval: 1s}}' for n in range(SINKS)
        )
        config = f"hostname: soak\nhistory: {{head: 1m, flush: 10s}}\nlog: {{level: error}}\nsinks:\n{sinks}\n"
        with Agent(config) as agent:
            scrapers = [Scraper(agent.port, scrapes / seconds / SCRAPERS) for _ in range(SCRAPERS)]
            for scraper in scrapers:
                scraper.start()
            held = Held(psutil.Process(agent.pid))
            try:
                _soak(held, proxy, seconds, reconnects)
            finally:
                for scraper in scrapers:
                    scraper.ending.set()
                    scraper.join()
            wait_until(lambda: not agent.health()["failing"], "a healthy agent", 90)
            assert not agent.complaints(), agent.log[-3000:]
    failures = [failure for scraper in scrapers for failure in scraper.failures]
    assert not failures, f"{len(failures)} scrapes failed: {failures[:3]}"
    growth = mean(held.quarter(held.rss, 4)) / mean(held.quarter(held.rss, 2))
    assert growth <= MOST_GROWTH, f"resident memory grew to {growth:.3f} of what it was"
    for name, values in (("descriptors", held.descriptors), ("threads", held.threads)):
        before, after = max(held.quarter(values, 2)), max(held.quarter(values, 4))
        assert after <= before + 2, f"{name}: {before}, later {after}"
    done = sum(scraper.done for scraper in scrapers)
    return (
        f"soak of {minutes:g} min: {done} scrapes, {proxy.accepted} sink connections; resident memory "
        f"{mean(held.quarter(held.rss, 2)) / 2**20:.1f} MB, later {mean(held.quarter(held.rss, 4)) / 2**20:.1f} MB; "
        f"descriptors {max(held.quarter(held.descriptors, 2))}, later {max(held.quarter(held.descriptors, 4))}; "
        f"threads {max(held.quarter(held.threads, 2))}, later {max(held.quarter(held.threads, 4))}"
    )


def _soak(held: Held, proxy: TcpProxy, seconds: float, reconnects: int) -> None:
    """Break every connection at an even pace, and look at the agent each second."""
    end = time.monotonic() + seconds
    pause_s = seconds * SINKS / reconnects
    break_at = time.monotonic() + pause_s
    while (now := time.monotonic()) < end:
        held.look()
        if now >= break_at:
            break_at += pause_s
            proxy.reset()
            time.sleep(0.05)  # long enough for the proxy to see it
            proxy.pass_through()
        time.sleep(min(1.0, pause_s))


def sink_away(store: VictoriaMetrics, minutes_of_data: float) -> str:
    """Resident memory while a sink is away for that much data. Raise AssertionError beyond 1.5 times idle."""
    interval = f"{{interval: {1000 / AWAY_RATE:g}ms}}"
    names = ("cpu", "memory", "net", "vmstat", "diskio", "interrupts")
    collectors = "\n".join(f"  {name}: {interval}" for name in names)
    with TcpProxy(store.port) as proxy:
        config = f"""\
hostname: away
history: {{enabled: false}}
collectors:
  others: false
{collectors}
sinks:
  store: {{type: influxdb, url: "{proxy.url}", bucket: b, flush_interval: 1s}}
"""
        with Agent(config) as agent:
            held = Held(psutil.Process(agent.pid))
            _look_for(held, 20)
            idle = max(held.rss)
            proxy.refuse()
            held.rss.clear()
            _look_for(held, minutes_of_data * 60 / AWAY_RATE)
            away = max(held.rss)
            records = agent.health()["journal"]["readers"]["store"]["lag_records"]
            proxy.pass_through()
            held.rss.clear()
            wait_until(lambda: _is_drained(agent, held), "the backlog to drain", 120, every=0.2)
            draining = max(held.rss)
    assert away <= MOST_WHEN_AWAY * idle, f"{away / 2**20:.1f} MB while away, {idle / 2**20:.1f} MB before"
    return (
        f"sink away for {minutes_of_data:g} min of data ({records} records): resident memory {away / 2**20:.1f} MB, "
        f"{away / idle:.2f} of idle; {draining / 2**20:.1f} MB while it drains"
    )


def _look_for(held: Held, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        held.look()
        time.sleep(0.5)


def _is_drained(agent: Agent, held: Held) -> bool:
    held.look()
    readers = agent.health()["journal"]["readers"]
    return "store.backlog" not in readers and readers["store"]["lag_records"] < 200
