from __future__ import annotations

import math

import pytest

from benchmarks.agent import Figure, as_json, count_between, lateness_p99_ms, medians
from benchmarks.budgets import Budget
from benchmarks.peers import agent_config, count_values
from benchmarks.process_tree import Memory, Use
from benchmarks.scraper import Scrape, count_samples, percentile
from benchmarks.subject import Window
from tests.servers.promql_api import Series

NAN = float("nan")


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [(0.05, "aim"), (0.1, "aim"), (0.15, "ok"), (0.2, "ok"), (0.21, "over"), (math.inf, "over"), (NAN, "")],
)
def test_a_figure_is_judged_by_its_budget(measured: float, verdict: str) -> None:
    assert Budget(must=0.2, aim=0.1).verdict(measured) == verdict


@pytest.mark.parametrize(
    ("values", "share", "found"),
    [([3.0, 1.0, 2.0], 0.5, 2.0), ([1.0], 0.99, 1.0), ([float(n) for n in range(1, 101)], 0.99, 99.0), ([2, 1], 0, 1)],
)
def test_percentiles_are_values_that_occurred(values: list[float], share: float, found: float) -> None:
    assert percentile(values, share) == found


def test_nothing_has_no_percentile() -> None:
    assert math.isnan(percentile([], 0.5))


def test_samples_of_a_scrape_are_the_lines_with_a_value() -> None:
    assert count_samples(b'# HELP a b\n# TYPE a gauge\na 1\n\na{x="#"} 2\n') == 2


def test_values_of_a_collectd_file_are_its_whole_lines_by_its_columns() -> None:
    assert count_values("epoch,read,write\n1.0,5,6\n2.0,7,8\n3.0,9") == 4
    assert count_values("") == 0


def test_only_samples_of_the_window_are_counted() -> None:
    series = [Series({"a": "1"}, [1.0, 2.0, 3.0], [9.9, 10.0, 20.0]), Series({"a": "2"}, [1.0], [19.9])]
    assert count_between(series, 10.0, 20.0) == 2


def test_the_lateness_of_a_collector_that_has_not_run_again_is_not_counted_again() -> None:
    stands = Series({"collector": "bonding"}, [0.6, 0.6, 0.6], [10.0, 20.0, 30.0])
    runs = Series({"collector": "cpu"}, [0.5, 0.001, 0.002], [10.0, 20.0, 30.0])
    assert lateness_p99_ms([stands, runs], 5.0) == pytest.approx(2.0)


def test_a_window_gives_rates() -> None:
    scrapes = [Scrape(0.0, 0.002, 100, 200_000), Scrape(1.0, 0.004, 100, 400_000)]
    window = Window(0.0, 30.0, Use(50_000_000, 150, 10**6), Memory(1, 1), 1000, scrapes)
    assert window.cpu_s_per_min == pytest.approx(0.1)
    assert window.switches_per_s == pytest.approx(5)
    assert window.us_per_sample() == pytest.approx(50)
    assert window.written_mb_per_day == pytest.approx(2880)
    assert window.scrape_us_per_series == pytest.approx(3)
    assert window.scrape_ms(0.5) == pytest.approx(2)


def test_the_median_of_the_rounds_is_shown_for_the_agent_and_each_peer() -> None:
    rounds = [[Figure("m", "w", own, None, {"p": peer})] for own, peer in [(1.0, 9.0), (3.0, 7.0), (2.0, 8.0)]]
    assert medians(rounds) == [Figure("m", "w", 2.0, None, {"p": 8.0})]


def test_json_says_the_verdict_and_the_ratio_to_each_peer_that_has_the_figure() -> None:
    shown = as_json(Figure("m", "w", 2.0, Budget(3, 1), {"half": 4.0, "none": 0.0}))
    assert (shown["verdict"], shown["ratios"]) == ("ok", {"half": 0.5})


def test_every_collector_gets_the_interval_that_is_asked_for() -> None:
    text = agent_config(influxdb_url=None, interval="1s")
    assert "  cpu: {interval: 1s}" in text
    assert "sinks" not in text
