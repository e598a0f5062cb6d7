from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from agent.core.clock import NS
from collectors.influx_line import Point
from tests.proof.agents import Agent
from tests.proof.samples import in_victoriametrics, missed, missing_in_victoriametrics, printed_points, values_of
from tests.servers.process import wait_until
from tests.servers.programs import need
from tests.servers.victoriametrics import VictoriaMetrics

DAY = 86400
HOST = "jumping"
COLLECTORS = {"cpu": 1, "memory": 1, "net": 1, "diskio": 2, "vmstat": 2, "system": 5, "disk": 5}  # interval in seconds
LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib/faketime", "/usr/local/lib")


def faketime() -> Path:
    need("faketime") if not any(Path(d, "faketime/libfaketimeMT.so.1").exists() for d in LIBRARIES) else None
    return next(path for d in LIBRARIES if (path := Path(d, "faketime/libfaketimeMT.so.1")).exists())


@dataclass
class Jumping:
    """An agent whose wall clock the test sets; the monotonic clock stays the machine's."""

    agent: Agent
    file: Path

    def jump(self, seconds: int) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        os.replace(fresh, self.file)

    def points(self) -> list[Point]:
        return printed_points(self.agent.log.rpartition("\n")[0])

    def seconds_of(self, measurement: str, day: int) -> list[int]:
        """The slots of a measurement, by the agent's clock, of that day (0: before the first jump)."""
        now = os.stat(self.agent.config_file).st_mtime_ns // NS
        all_slots = {(point.time_ns or 0) // NS for point in self.points() if point.measurement == measurement}
        return sorted(second for second in all_slots if abs(second - now - day * DAY) < DAY // 2)


@pytest.fixture
def jumping(victoriametrics: VictoriaMetrics, tmp_path: Path) -> Iterator[Jumping]:
    file = tmp_path / "clock"
    file.write_text("+0\n")
    wrapper = ["env", f"LD_PRELOAD={faketime()}", "DONT_FAKE_MONOTONIC=1", f"FAKETIME_TIMESTAMP_FILE={file}",
               "FAKETIME_NO_CACHE=1"]  # fmt: skip
    collectors = "\n".join(f"  {name}: {{interval: {seconds}s}}" for name, seconds in COLLECTORS.items())
    config = f"""\
hostname: {HOST}
collectors:
  others: false
{collectors}
sinks:
  stdout: {{flush_interval: 1s}}
  store: {{type: influxdb, url: "{victoriametrics.url}", bucket: b, flush_interval: 1s}}
"""
    victoriametrics.delete(f'{{host="{HOST}"}}')
    with Agent(config, wrapper=wrapper) as agent:
        agent.settled(*COLLECTORS)
        yield Jumping(agent, file)
        assert not agent.complaints()


@pytest.mark.server("victoriametrics")
@pytest.mark.parametrize("days", [1, -1])
def test_a_wall_clock_that_jumps_a_day_leaves_nothing_blind_or_negative(
    jumping: Jumping, victoriametrics: VictoriaMetrics, days: int
) -> None:
    agent = jumping.agent
    wait_until(lambda: len(jumping.seconds_of("cpu", 0)) >= 3, "slots before the jump")
    jumping.jump(days * DAY)
    wait_until(lambda: len(jumping.seconds_of("cpu", days)) >= 6, "slots of the other day", 30)
    for measurement in ("mem", "net", "diskio", "system", "disk"):
        wait_until(partial(jumping.seconds_of, measurement, days), f"{measurement} after the jump", 20)
    jumping.jump(0)
    before = jumping.seconds_of("cpu", 0)[-1]
    wait_until(lambda: jumping.seconds_of("cpu", 0)[-1] >= before + 4, "slots after the jump back", 30)

    there = jumping.seconds_of("cpu", days)
    assert missed(there, agent.skipped("cpu")) == 0, "realigned once, not again and again"
    points = jumping.points()
    assert all((point.time_ns or 0) % NS == 0 for point in points), "slots are aligned to the wall clock of the moment"
    rates = [value for point in points if point.measurement == "cpu" for _, value in point.fields]
    assert all(0 <= float(rate) <= 100 for rate in rates), "no negative rates"
    told = agent.health()
    assert told["clock_jumps"] >= 2
    assert told["status"] == "ok"
    wanted = values_of(point for point in points if (point.time_ns or 0) <= time.time_ns())  # it exports no future
    wait_until(
        lambda: not missing_in_victoriametrics(wanted, in_victoriametrics(victoriametrics, f'{{host="{HOST}"}}')),
        "all of it in the store",
        every=0.3,
    )
    (counted,) = victoriametrics.query(
        f'count_over_time(cpu_usage_idle{{host="{HOST}",cpu="cpu-total"}}[1h])', there[-1]
    )
    assert counted.values == [len(there)]
