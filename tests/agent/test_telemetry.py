from __future__ import annotations

import pytest
from prometheus_client import ProcessCollector

from agent.telemetry import PROCESS, SelfMetrics


def test_the_process_is_what_prometheus_client_says_of_it() -> None:
    oracle = {s.name: s.value for family in ProcessCollector(registry=None).collect() for s in family.samples}
    (process,) = [reading for reading in SelfMetrics().collect() if reading.group is PROCESS]
    mine = {field.prom: value for field, value in zip(PROCESS.fields, process.values, strict=True)}
    assert mine.keys() == oracle.keys() | {"process_virtual_memory_max_bytes"}
    assert mine["process_start_time_seconds"] == pytest.approx(oracle["process_start_time_seconds"], abs=1.5)
    assert mine["process_max_fds"] == oracle["process_max_fds"]
    assert mine["process_open_fds"] == pytest.approx(oracle["process_open_fds"], abs=2)
    assert mine["process_resident_memory_bytes"] == pytest.approx(oracle["process_resident_memory_bytes"], rel=0.1)
    assert mine["process_cpu_seconds_total"] == pytest.approx(oracle["process_cpu_seconds_total"], abs=1)
