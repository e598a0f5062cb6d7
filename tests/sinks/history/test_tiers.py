"""Coarser tiers against all the samples: equal where that is promised, near and said so where it is not."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.labels import Labels, labels_of
from agent.core.query import Limits, Result, TooMuchError
from sinks.history.columns import Block, Layout
from sinks.history.history import History
from sinks.history.promql import numbers
from sinks.history.promql.ast import MATRIX
from sinks.history.promql.engine import Engine
from sinks.history.promql.signatures import SIGNATURES
from sinks.history.promql.storage import STALE
from sinks.history.tiers import bucket, from_buckets, from_samples, rows_of
from tests.sinks.history.small import START_MS, Clock, as_array, at, in_memory, opened

HOURS = 52
FUNCTIONS = (
    "rate", "increase", "delta", "sum_over_time", "avg_over_time", "count_over_time", "present_over_time",
    "min_over_time", "max_over_time", "first_over_time", "last_over_time",
)  # fmt: skip
OTHERS = {
    **{
        name: f"{name}({{}})" for name, known in SIGNATURES.items() if known.args == (MATRIX,) and name not in FUNCTIONS
    },
    "quantile_over_time": "quantile_over_time(0.9, {})",
    "predict_linear": "predict_linear({}, 600)",
    "double_exponential_smoothing": "double_exponential_smoothing({}, 0.5, 0.3)",
}
HOUR = 3_600_000
END = START_MS + HOURS * HOUR


@dataclass
class Recorded:
    """A history and an engine over all the samples it was given."""

    history: History
    right: Engine
    clock: Clock

    def same(self, expr: str, start: int, end: int, step: int) -> Result:
        """Both answer the same; history's answer."""
        found = self.history.querier().range(expr, start, end, step)
        expected = self.right.range(expr, start, end, step)
        assert [p.labels for p in found.matrix()] == [p.labels for p in expected.matrix()], expr
        for got, wanted in zip(found.matrix(), expected.matrix(), strict=True):
            assert list(got.times_ms) == list(wanted.times_ms), expr
            assert list(got.values) == pytest.approx(list(wanted.values), rel=1e-9, nan_ok=True), expr
        return found


def _rows(second: int, rng: random.Random, state: dict[str, float]) -> dict[str, float]:
    """A counter that restarts, a gauge, a constant, one with gaps, one with NaN, one that ends."""
    state["counter"] = 0.0 if rng.random() < 0.0005 else state["counter"] + rng.choice((0, 0, 1, 7, 1000))
    rows = {"counter": state["counter"], "gauge": rng.gauss(50, 20), "constant": 42.0}
    if second % 9000 < 6000:
        rows["gaps"] = float(second % 77)
    if second % 7201 > 100:
        rows["nan"] = math.nan if second % 5000 < 60 else float(second % 13)
    if second < HOURS * 1800:
        rows["ended"] = float(second)
    return rows


def _recorded(directory: Path, **options: float) -> Recorded:
    rng, state, clock = random.Random(7), {"counter": 0.0}, Clock()
    history = opened(directory, clock, **options)
    known: dict[Labels, dict[int, float]] = {}
    live: set[str] = set()
    for second in range(0, HOURS * 3600 + 1, 30):
        rows = _rows(second, rng, state)
        history.append(at(second, rows))
        for name in rows.keys() | live:
            labels = labels_of({"__name__": "place_x", "at": name, "job": "node", "instance": "host"})
            known.setdefault(labels, {})[START_MS + second * 1000] = rows.get(name, STALE)
        live = set(rows)
        clock.be_at(second)
        if second % 1800 == 600:
            assert history.write()
    assert history.write()
    return Recorded(history, in_memory(known), clock)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """Every sample is still there."""
    recorded = _recorded(tmp_path_factory.mktemp("whole"), raw=90 * 86_400.0)
    yield recorded
    recorded.history.close()


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """Samples of 2 hours, 5 minutes of 6, hours of all; the 5 minutes of a day go once its hours are built."""
    recorded = _recorded(tmp_path_factory.mktemp("coarse"), raw=7200.0, five_minutes=6 * 3600.0)
    for _ in range(20):  # deletion is incremental
        assert recorded.history.write()
    yield recorded
    recorded.history.close()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_long_window_of_a_rule_is_that_of_all_samples(whole: Recorded, function: str) -> None:
    rng = random.Random(function)
    for _ in range(12):
        moment = END - rng.randrange(0, 20 * HOUR, 1000)
        window = rng.choice(("1h", "24h", "1d", "90m", "25h30m", "3h7s"))
        found = whole.history.querier().instant(f"{function}(place_x[{window}])", moment)
        expected = whole.right.instant(f"{function}(place_x[{window}])", moment)
        assert found.warnings == ()
        got = {s.labels: s.value for s in found.vector()}
        assert got == pytest.approx({s.labels: s.value for s in expected.vector()}, rel=1e-9, nan_ok=True)


def test_a_day_of_a_rule_is_not_read_as_samples(whole: Recorded) -> None:
    few = Limits(samples=6 * (24 * 12 + 2 * 60 + 200))  # six series: buckets, and samples of less than two hours
    querier = whole.history.querier()
    assert len(querier.instant("max_over_time(place_x[1d])", END - 61_000, few).vector()) == 5
    with pytest.raises(TooMuchError, match="samples"):
        querier.instant("quantile_over_time(0.5, place_x[1d])", END - 61_000, few)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_windows_that_begin_and_end_with_buckets_are_exact_from_the_tier(whole: Recorded, function: str) -> None:
    for step, window in ((300_000, "1h"), (600_000, "15m"), (HOUR, "2h")):
        found = whole.same(f"{function}(place_x[{window}])", END - 48 * HOUR + step, END - HOUR, step)
        assert found.warnings == ()


def test_values_at_bucket_ends_are_exact_from_the_tier(whole: Recorded) -> None:
    for step in (300_000, 900_000, HOUR):
        assert whole.same("place_x", END - 48 * HOUR, END, step).warnings == ()
        assert whole.same("sum(place_x) by (at)", END - 48 * HOUR, END, step).warnings == ()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_hours_are_exact_where_only_hours_are_left(coarse: Recorded, function: str) -> None:
    found = coarse.same(f"{function}(place_x[3h])", END - 40 * HOUR, END - 8 * HOUR, HOUR)
    assert found.warnings == ()


def test_values_on_the_hour_are_exact_where_only_hours_are_left(coarse: Recorded) -> None:
    assert coarse.same("place_x", END - 48 * HOUR, END, HOUR).warnings == ()


def test_five_minutes_are_exact_where_no_samples_are_left(coarse: Recorded) -> None:
    status = {tier.name: tier for tier in coarse.history.status().tiers}
    assert status["raw"].oldest_ms is not None
    assert status["raw"].oldest_ms > END - 4 * HOUR
    assert status["5m"].oldest_ms is not None
    start = END - 6 * HOUR + 600_000
    for function in FUNCTIONS:
        coarse.same(f"{function}(place_x[20m])", start, END, 300_000)


def test_a_window_that_ends_inside_a_bucket_is_moved_back_and_said_so(coarse: Recorded) -> None:
    querier = coarse.history.querier()
    for function in FUNCTIONS:
        expr = f'{function}(place_x{{at=~"gauge|counter|constant"}}[40m])'
        moment = END - 5 * HOUR + 123_000
        found = querier.instant(expr, moment)
        on_the_grid = coarse.right.instant(expr, moment // 300_000 * 300_000)
        wanted = {s.labels: s.value for s in on_the_grid.vector()}
        assert {s.labels: s.value for s in found.vector()} == pytest.approx(wanted, rel=1e-9)
        assert "buckets of 5m: windows there begin and end with a bucket" in " ".join(found.warnings)


def test_a_value_inside_a_bucket_is_that_of_the_bucket_before_and_said_so(coarse: Recorded) -> None:
    found = coarse.history.querier().instant('place_x{at="gauge"}', END - 20 * HOUR + 777_000)
    expected = coarse.right.instant('place_x{at="gauge"}', END - 20 * HOUR)
    assert [s.value for s in found.vector()] == [s.value for s in expected.vector()]
    assert any("1h" in warning for warning in found.warnings)
    with_lookback = coarse.history.querier(60_000).instant('place_x{at="gauge"}', END - 20 * HOUR + 777_000)
    assert (with_lookback.vector(), with_lookback.warnings) == (found.vector(), found.warnings)


@pytest.mark.parametrize("function", OTHERS)
def test_any_other_function_sees_the_last_sample_of_each_bucket_and_says_so(coarse: Recorded, function: str) -> None:
    which = 'place_x{at=~"gauge|counter|constant"}'
    expr = OTHERS[function].format(f"{which}[24h]")
    moment = END - 10 * HOUR
    ends = coarse.right.range(which, moment - 30 * HOUR, moment, HOUR).matrix()
    expected = in_memory({p.labels: dict(zip(p.times_ms, p.values, strict=True)) for p in ends}).instant(expr, moment)
    found = coarse.history.querier().instant(expr, moment)
    wanted = {sample.labels: sample.value for sample in expected.vector()}
    assert {sample.labels: sample.value for sample in found.vector()} == pytest.approx(wanted, rel=1e-9)
    assert len(wanted) == 3 or function == "absent_over_time"
    if wanted:
        assert f"{function} sees one sample of each there" in " ".join(found.warnings)


def test_a_quantile_of_buckets_is_approximate_and_said_so(coarse: Recorded) -> None:
    expr = 'quantile_over_time(0.5, place_x{at="gauge"}[30h])'
    found = coarse.history.querier().instant(expr, END - 10 * HOUR)
    expected = coarse.right.instant(expr, END - 10 * HOUR)
    assert "quantile_over_time sees one sample of each" in " ".join(found.warnings)
    assert found.vector()[0].value == pytest.approx(expected.vector()[0].value, abs=20)  # one standard deviation


def test_a_short_window_on_hours_is_widened_and_said_so(coarse: Recorded) -> None:
    found = coarse.history.querier().instant('rate(place_x{at="counter"}[5m])', END - 20 * HOUR + 777_000)
    assert len(found.vector()) == 1
    assert "range extended to 7200 s" in " ".join(found.warnings)


def test_long_stretches_mix_tiers_and_stay_near(coarse: Recorded) -> None:
    found = coarse.history.querier().range('place_x{at="counter"}', START_MS, END, 1_234_000).matrix()
    expected = coarse.right.range('place_x{at="counter"}', START_MS, END, 1_234_000).matrix()
    known = dict(zip(expected[0].times_ms, expected[0].values, strict=True))
    got = dict(zip(found[0].times_ms, found[0].values, strict=True))
    assert len(got) > 0.97 * len(known)
    newest = {t: v for t, v in got.items() if t > END - HOUR}
    assert newest == {t: known[t] for t in newest}


def _naive(times: list[int], values: list[float], end: int) -> tuple[float, ...]:
    resets = sum(a for a, b in pairwise(values) if b < a)
    return (len(values), numbers.total(values), numbers.lowest(values), numbers.highest(values), values[0], values[-1],
            resets, end - times[0], end - times[-1])  # fmt: skip


_finite = st.floats(-1e9, 1e9).map(lambda x: round(x, 3))


@given(st.dictionaries(st.integers(1, 7200), _finite, min_size=1, max_size=80))
def test_buckets_of_buckets_are_buckets_of_the_samples(known: dict[int, float]) -> None:
    """Times in seconds, over two hours."""
    times, values = [second * 1000 for second in sorted(known)], [known[second] for second in sorted(known)]
    column = values[:1] if len(set(map(str, values))) == 1 else values
    block = Block(Layout([5]), _times(times), [as_array(column).tobytes()])
    five = from_samples(block, 300_000)
    assert five is not None
    for end, one in rows_of(five)[5]:
        inside = [(t, v) for t, v in zip(times, values, strict=True) if end - 300_000 < t <= end]
        assert tuple(one) == pytest.approx(_naive([t for t, _ in inside], [v for _, v in inside], end))
    hours = from_buckets([five], HOUR)
    assert hours is not None
    for end, one in rows_of(hours)[5]:
        inside = [(t, v) for t, v in zip(times, values, strict=True) if end - HOUR < t <= end]
        assert tuple(one) == pytest.approx(_naive([t for t, _ in inside], [v for _, v in inside], end), abs=1e-5)


def test_a_bucket_tells_that_the_series_ended() -> None:
    ended = bucket(_times([1000, 2000]), as_array([5.0, STALE]), 300_000)
    assert ended is not None
    assert ended.is_ended
    assert ended.last == 5.0
    assert ended.last_distance == 299_000
    only_ended = bucket(_times([2000]), as_array([STALE]), 300_000)
    assert only_ended is not None
    assert only_ended.samples == 0
    assert only_ended.is_ended
    back = bucket(_times([1000, 2000, 3000]), as_array([5.0, STALE, 6.0]), 300_000)
    assert back is not None
    assert not back.is_ended
    assert back.samples == 2
    assert bucket(_times([]), as_array([]), 300_000) is None


def _times(times: list[int]) -> array[int]:
    return array("q", times)
