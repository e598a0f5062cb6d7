"""/metrics: microseconds a series, with the plan of the snapshot made already (warm) and anew (cold)."""

from __future__ import annotations

import itertools
from dataclasses import replace

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


def test_exposition_when_a_series_comes_or_goes(benchmark: BenchmarkFixture, snapshot: list[Tick]) -> None:
    exposition = Exposition()
    without = [*snapshot[:-1], replace(snapshot[-1], readings=snapshot[-1].readings[:-1])]
    assert snapshot[-1].readings, "the last collector has something to take away"
    turns = itertools.cycle([snapshot, without])
    exposition.render(snapshot)
    benchmark(lambda: exposition.render(next(turns)))
    note_each(benchmark, "series", exposition.samples)
