"""/metrics: microseconds a series, with the plan of the snapshot made already (warm) and anew (cold)."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from agent.core.model import Tick
from benchmarks.each import note_each
from sinks.prometheus import Dialect, Exposition


@pytest.mark.parametrize("dialect", ["text", "openmetrics"])
def test_exposition_with_a_warm_plan(benchmark: BenchmarkFixture, snapshot: list[Tick], dialect: Dialect) -> None:
    exposition = Exposition()
    benchmark(exposition.render, snapshot, dialect)
    note_each(benchmark, "series", exposition.samples)


def test_exposition_with_a_cold_plan(benchmark: BenchmarkFixture, snapshot: list[Tick]) -> None:
    exposition = Exposition()
    exposition.render(snapshot)
    benchmark(lambda: Exposition().render(snapshot))
    note_each(benchmark, "series", exposition.samples)
