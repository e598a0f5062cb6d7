"""How fast the way from a reading to a store is: a day's backlog, and as many points a second as it carries."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator

from agent.core.clock import NS, SystemClock
from agent.core.model import Group, Reading, Tick, gauge
from sinks.dead_letters import DeadLetters
from sinks.delivery import Delivery
from sinks.influxdb import InfluxDB
from sinks.journal import Journal, Limits
from tests.proof.agents import FEW_COLLECTORS, Agent
from tests.servers.process import wait_until
from tests.servers.victoriametrics import VictoriaMetrics
from tests.sinks.journal.hosts import START_NS, HandClock, host_seconds

DRAINED_WITHIN_S = 600.0
ON_TIME_S = 10.0  # a reading is on time that arrives within this; the flush interval is 1 s here
_ROWS, _FIELDS = 100, 10


def _shifted(ticks: list[Tick], by_ns: int) -> list[Tick]:
    return [Tick(tick.time_ns + by_ns, tick.collector, tick.readings, tick.failed) for tick in ticks]


def fill(state_dir: str, reader: str, hours: float) -> tuple[int, int]:
    """A journal as it is after `hours` without that sink, up to now: how many lines and values it holds."""
    seconds = round(hours * 3600)
    begun_ns = time.time_ns() // NS * NS - seconds * NS
    clock = HandClock(begun_ns / NS)
    journal = Journal(os.path.join(state_dir, "journal"), clock, Limits(min_free_bytes=0))
    journal.reader(reader)
    lines = values = 0
    for second, ticks in enumerate(host_seconds(seconds)):
        for tick in _shifted(ticks, begun_ns - START_NS):
            journal.append(tick)
            lines += len(tick.readings)
            values += sum(len(reading.values) for reading in tick.readings)
        journal.flush()
        if second % 10 == 0:
            journal.tidy()
        clock.pass_time(1)
    journal.close()
    return lines, values


def outage(store: VictoriaMetrics, hours: float) -> str:
    """Raise AssertionError when the backlog takes too long, holds up what is new, or is not whole in the store."""
    config = f"""\
hostname: outage
journal: {{min_free_bytes: 0B}}
{FEW_COLLECTORS}
sinks:
  store: {{type: influxdb, url: "{store.url}", bucket: b, flush_interval: 1s, timeout: 60s}}
"""
    with Agent(config) as agent:
        agent.stop()
        (agent.state_dir / "journal").rename(agent.data_dir / "unused")
        lines, values = fill(str(agent.state_dir), "store", hours)
        begun = time.monotonic()
        agent.start(agent.port)
        late: list[float] = []

        def is_drained() -> bool:
            told = agent.health()
            late.append(told["sinks"]["store"]["latency_s"])
            readers = told["journal"]["readers"]
            return "store.backlog" not in readers and readers["store"]["oldest_age_s"] < ON_TIME_S

        wait_until(is_drained, "the backlog to drain", DRAINED_WITHIN_S, every=0.2)
        took_s = time.monotonic() - begun
        assert not agent.complaints()
    # the first batch belongs to the backlog: only after it is known how old the rest is
    on_time = [seconds for seconds in late if seconds < 3600 * hours / 2]
    assert max(on_time[1:], default=0.0) < ON_TIME_S, f"what was new came {max(on_time):.1f} s late"
    found = _count(store, '{host="outage",device!=""}', round(hours * 3600) + 3600)
    assert found == values, f"{found} of {values} values are in the store"
    return (
        f"{hours:g} h without the sink: {lines} lines ({values} values) drained in {took_s:.0f} s "
        f"({lines / took_s / 1000:.0f} k lines/s), what was new at most {max(on_time[1:], default=0.0):.1f} s late, "
        f"every value in VictoriaMetrics"
    )


def _count(store: VictoriaMetrics, match: str, last_s: int) -> int:
    (found,) = store.query(f"sum(count_over_time({match}[{last_s}s]) keep_metric_names)")
    return round(found.values[0])


def _burst(ticks: int) -> Iterator[Tick]:
    group = Group(
        "burst", [gauge(f"field_{n}", "count", "A number.", influx=f"field_{n}") for n in range(_FIELDS)], ["row"]
    )
    start_ns = (time.time_ns() // NS - ticks - 10) * NS
    for number in range(ticks):
        readings = [
            Reading(group, (str(row),), tuple([number * 1.5 + row + n for n in range(_FIELDS)])) for row in range(_ROWS)
        ]
        yield Tick(start_ns + number * NS, "burst", readings)


async def _deliver(url: str, directory: str, ticks: list[Tick]) -> float:
    clock = SystemClock()
    journal = Journal(os.path.join(directory, "journal"), clock, Limits(min_free_bytes=0))
    sink = InfluxDB(url=url, bucket="b", flush_interval=1.0, timeout=60.0)
    dead = DeadLetters(os.path.join(directory, "dead"))
    delivery = Delivery("store", sink, journal, {"host": "burst"}, dead, clock)
    begun = time.perf_counter()

    def write() -> None:
        for at, tick in enumerate(ticks):
            journal.append(tick)
            if at % 50 == 0:
                journal.flush()
        journal.sync()

    await asyncio.to_thread(write)
    await delivery.flush()
    took_s = time.perf_counter() - begun
    assert delivery.stats.lines == len(ticks) * _ROWS
    delivery.close()
    journal.close()
    return took_s


def rate(store: VictoriaMetrics, seconds: int) -> str:
    """Journal, encode, compress and POST `seconds` Ticks of 100 lines with 10 values each, as fast as it goes."""
    ticks = list(_burst(seconds))
    with tempfile.TemporaryDirectory() as directory:
        took_s = asyncio.run(_deliver(store.url, directory, ticks))
    values = seconds * _ROWS * _FIELDS
    found = _count(store, '{host="burst"}', seconds + 600)
    assert found == values, f"{found} of {values} values are in the store"
    return (
        f"journal, encode, gzip, POST: {values / took_s / 1000:.0f} k values/s, "
        f"{values / _FIELDS / took_s / 1000:.0f} k lines/s; all {values} values counted in VictoriaMetrics"
    )
