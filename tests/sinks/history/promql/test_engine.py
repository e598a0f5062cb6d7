"""The engine as rules, CLI and HTTP meet it: kinds of answers, limits, hints to the store, tiers."""

import subprocess
import sys
from array import array
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pytest

from agent.core.labels import labels_of
from agent.core.query import (
    ExecutionError,
    Limits,
    ParameterError,
    ParseError,
    Points,
    Querier,
    QueryTimeoutError,
    Sample,
    TooMuchError,
)
from sinks.history.promql.engine import Engine
from sinks.history.promql.storage import STALE, SelectHints, SeriesColumns, is_stale, without_stale
from tests.sinks.history.promql.memory_storage import MemoryStorage

UP = {"__name__": "up", "job": "node"}


def storage_of(samples: int = 10, step_ms: int = 1000) -> MemoryStorage:
    storage = MemoryStorage()
    storage.add(UP, [(i * step_ms, float(i)) for i in range(samples)])
    return storage


def test_an_instant_query_answers_each_kind() -> None:
    engine: Querier = Engine(storage_of())
    assert engine.instant("1 + 1", 5000).value == 2.0
    assert engine.instant("'text'", 5000).value == "text"
    assert engine.instant("up", 5000).vector() == [Sample(labels_of(UP), 5000, 5.0)]
    assert engine.instant("7", 5000).vector() == [Sample((), 5000, 7.0)]
    points = engine.instant("up[2s]", 5000).matrix()
    assert [(p.labels, list(p.times_ms), list(p.values)) for p in points] == [(labels_of(UP), [4000, 5000], [4.0, 5.0])]


def test_a_range_query_answers_a_matrix_sorted_by_labels() -> None:
    storage = storage_of()
    storage.add({"__name__": "up", "job": "a"}, [(2000, 9.0)])
    result = Engine(storage, lookback_ms=1000).range("up", 1000, 4000, 1000)
    assert result.kind == "matrix"
    assert result.matrix() == [
        Points((("__name__", "up"), ("job", "a")), [2000], [9.0]),
        Points(labels_of(UP), [1000, 2000, 3000, 4000], [1.0, 2.0, 3.0, 4.0]),
    ]


def test_a_result_read_as_another_kind_is_an_error() -> None:
    engine = Engine(storage_of())
    with pytest.raises(ExecutionError, match="result is a matrix"):
        engine.instant("up[1m]", 0).vector()
    with pytest.raises(ExecutionError, match="result is a vector"):
        engine.instant("up", 0).matrix()


def test_the_lookback_is_the_engines() -> None:
    storage = storage_of(samples=1)
    assert Engine(storage, lookback_ms=60_000).instant("up", 59_999).vector()
    assert not Engine(storage, lookback_ms=60_000).instant("up", 60_000).vector()


def test_the_default_step_of_subqueries_is_the_engines() -> None:
    storage = storage_of(samples=61)
    assert Engine(storage).instant("count_over_time(up[1m:])", 60_000).vector()[0].value == 1
    assert Engine(storage, subquery_step_ms=10_000).instant("count_over_time(up[1m:])", 60_000).vector()[0].value == 6


@pytest.mark.parametrize(
    ("start", "end", "step", "error", "text"),
    [
        (0, 10, 0, ParameterError, "step of 0 ms"),
        (10, 0, 1, ParameterError, "end is before start"),
        (0, 11_000_000, 1000, TooMuchError, "11001 steps, more than 11000"),
    ],
)
def test_impossible_bounds_are_refused(start: int, end: int, step: int, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Engine(storage_of()).range("up", start, end, step)


TOO_MUCH = [
    ("sum_over_time(up[1m])", Limits(samples=5), "query reads more than 5 samples", "samples read"),
    ("up", Limits(cells=5), "query makes 1 series of 11 steps, more than 5 points", "cells of a selector"),
    ("sum_over_time(vector(1)[1m:1ms])", Limits(cells=1000), "more than 1000 points", "steps of a subquery"),
    ("up + (up + (up + up))", Limits(cells=40), "11 steps beside 33 points of other operands", "operands that wait"),
    ("count_values('v', up)", Limits(cells=50), "query makes 5 series of 11 steps", "series made from values"),
]


@pytest.mark.parametrize(("text", "limits", "message", "sentence"), TOO_MUCH, ids=[row[3] for row in TOO_MUCH])
def test_a_query_that_costs_too_much_is_refused(text: str, limits: Limits, message: str, sentence: str) -> None:
    with pytest.raises(TooMuchError, match=message):
        Engine(storage_of()).range(text, 0, 10_000, 1000, limits)


def test_what_an_operand_held_is_free_again_for_the_next() -> None:
    Engine(storage_of()).range("up + up + up + up", 0, 10_000, 1000, Limits(cells=22))


@pytest.mark.parametrize("text", ["up", "quantile_over_time(0.5, up[1h])", "up + up", "sum(up)", "vector(1) + 1"])
def test_a_query_past_its_deadline_is_stopped(text: str) -> None:
    engine = Engine(storage_of(), monotonic=count().__next__)
    with pytest.raises(QueryTimeoutError, match=r"longer than 0\.5 s"):
        engine.instant(text, 5000, Limits(deadline_s=0.5))


def test_the_deadline_is_watched_inside_a_long_walk_over_windows() -> None:
    looks = 0

    def monotonic() -> float:
        nonlocal looks
        looks += 1
        return 0.0 if looks < 6 else 100.0

    engine = Engine(storage_of(samples=20_000), monotonic=monotonic)
    with pytest.raises(QueryTimeoutError):
        engine.range("sum_over_time(up[3h])", 10_000_000, 19_000_000, 10_000)


def test_a_range_vector_is_no_range_query() -> None:
    with pytest.raises(ParseError, match='invalid expression type "range vector" for range query'):
        Engine(storage_of()).range("up[5m]", 0, 10, 1)


@pytest.mark.parametrize("time_ms", [2**62, -(2**62), 2**70])
def test_absurd_times_are_answered_or_refused(time_ms: int) -> None:
    engine = Engine(storage_of())
    assert engine.instant("up", time_ms).vector() == []
    assert engine.instant("up @ 9e15 offset -200y", 0).vector() == []


def test_the_store_hears_what_the_samples_are_for() -> None:
    storage = storage_of()
    Engine(storage).range("sum by (job) (rate(up[1m])) + avg by (job) (up)", 0, 10_000, 5000)
    left = 5_000_000
    assert storage.asked == [
        SelectHints(5000, 60_000, 300_000, "rate", (), by=False, max_samples=left),
        SelectHints(5000, 0, 300_000, "avg", ("job",), by=True, max_samples=left - 10),
    ]
    wanted = [("up", True), ("up @ 3", True), ("up[1m]", False), ("rate(up[1m])", False)]
    assert [(text, hints.is_newest_enough) for text, _ in wanted for hints in asked_by(text)] == wanted
    assert [hints.function for hints in asked_by("predict_linear(up[1m], 60)")] == ["predict_linear"]
    assert [hints.function for hints in asked_by("quantile_over_time(scalar(up), up[1m])")] == [
        "scalar",
        "quantile_over_time",
    ]
    assert [hints.function for hints in asked_by("max_over_time(up[1m:])")] == [""]


def asked_by(text: str) -> list[SelectHints]:
    storage = storage_of()
    Engine(storage).instant(text, 5000)
    return storage.asked


class Tier:
    """Answers windows from what it was told, only for sum_over_time and present_over_time."""

    def windows(self, function: str, ends_ms: Sequence[int], range_ms: int) -> list[float | None] | None:
        if function not in {"sum_over_time", "present_over_time"}:
            return None
        return [float(end_ms + range_ms) if end_ms >= 2000 else None for end_ms in ends_ms]


def tiered() -> MemoryStorage:
    storage = MemoryStorage()
    storage.series[labels_of(UP)] = SeriesColumns(
        labels_of(UP), array("q", [0, 600_000]), array("d", [1.0, 3.0]), 600_000, Tier()
    )
    return storage


def test_a_store_may_answer_windows_from_its_aggregates() -> None:
    engine = Engine(tiered())
    result = engine.range("sum_over_time(up[1h])", 1000, 3000, 1000)
    assert result.matrix() == [Points((("job", "node"),), [2000, 3000], [3_602_000.0, 3_603_000.0])]
    assert engine.instant("absent_over_time(up[1h])", 1000).vector()
    assert not engine.instant("absent_over_time(up[1h])", 2000).vector()


def test_a_store_that_cannot_answer_gives_its_samples() -> None:
    result = Engine(tiered()).instant("max_over_time(up[1h])", 600_000)
    assert [sample.value for sample in result.vector()] == [3.0]
    assert result.warnings == ()


def test_on_a_tier_lookback_and_range_grow_and_the_answer_says_so() -> None:
    engine = Engine(tiered())
    result = engine.instant("up", 1_199_999)
    assert [sample.value for sample in result.vector()] == [3.0]
    assert result.warnings == ("PromQL warning: lookback extended to the 600 s between stored samples (1:1)",)
    result = engine.instant("max_over_time(up[5m])", 600_000)
    assert [sample.value for sample in result.vector()] == [3.0]
    assert result.warnings == ("PromQL warning: range extended to 1200 s, two of the stored samples (1:15)",)


def test_the_stale_marker_is_one_nan_among_others() -> None:
    assert is_stale(STALE)
    assert not is_stale(float("nan"))
    t, v = array("q", [1, 2, 3]), array("d", [STALE, float("nan"), STALE])
    kept_t, kept_v = without_stale(t, v)
    assert (list(kept_t), len(kept_v)) == ([2], 1)
    assert without_stale(kept_t, kept_v) == (kept_t, kept_v)


def test_the_place_of_a_remark_counts_lines() -> None:
    result = Engine(storage_of()).instant("vector(1) +\n  on() rate(up[5s])", 5000)
    assert result.infos == (
        'PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "up" (2:13)',
    )


def test_importing_the_engine_is_light() -> None:
    """No regular expressions beyond the standard library's, no numpy, no asyncio: the daemon imports it as it runs."""
    heavy = {"re2", "numpy", "asyncio", "logging", "decimal", "difflib"}
    code = f"import sys, sinks.history.promql.engine; print(sorted({heavy} & set(sys.modules)))"
    root = Path(__file__).parents[4]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
