"""The answers of a real Prometheus that scraped a real agent, and ours from the same samples.

Prometheus 2.42 counts a sample at the very begin of a range, we do not, as Prometheus 3: so every range begins and ends
between two scrapes. What else differs from 2.42 and is not asked is said in `random_queries`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.core.clock import FakeClock
from agent.core.labels import METRIC_NAME, Labels, labels_of, show
from agent.core.query import Querier, QueryError, Result
from sinks.history.history import History
from sinks.history.options import HistoryOptions
from sinks.history.promql.ast import VectorSelector, walk
from sinks.history.promql.parser import parse
from tests.servers.http_call import call
from tests.servers.process import wait_until
from tests.servers.programs import need
from tests.servers.prometheus import Prometheus
from tests.servers.vigilhost import Vigilhost
from tests.sinks.history.promql.random_queries import metrics_of, random_queries
from tests.sinks.history.promql.rule_queries import rule_queries

SCRAPES = 24
GRID_MS = 50  # ranges, offsets and steps are multiples of it; no sample lies on the grid of the moments asked for
RANGES = ("1s", "2s", "3500ms", "5s", "10s")
STEP_MS = 1700
RANDOM, SEED = 300, 20_230_201
ROOT = Path(__file__).parents[4]
CONFIG = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
- {{job_name: node, static_configs: [{{targets: ['{target}'], labels: {{instance: web1}}}}]}}
"""
Rows = dict[Labels, dict[int, float]]


@dataclass(frozen=True, slots=True)
class Both:
    """The same samples in both; moments in ms."""

    real: Prometheus
    ours: Querier
    rows: Rows
    remembered: Set[Labels]  # series that the agent itself had in its history
    largest: Mapping[str, float]  # finite value of each metric, for what rounding may do
    end_ms: int  # a moment at which no range of the grid begins or ends with a sample
    offset_ms: int  # what does the same for moments at whole seconds


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    need("prometheus")
    with (
        Vigilhost("hostname: web1\ncollectors: {processes: {interval: 1s}}\n") as agent,
        Prometheus(CONFIG.format(target=agent.url.removeprefix("http://"))) as real,
    ):
        wait_until(lambda: _scrapes(real) >= SCRAPES, f"{SCRAPES} scrapes", deadline=120, every=0.5)
        remembered = call(f"{agent.url}/api/v1/series", params={"match[]": '{job="node"}'}).json()["data"]
        agent.stop()
        yield _both(real, _samples(real), {labels_of(one) for one in remembered}, tmp_path_factory.mktemp("history"))


def _scrapes(real: Prometheus) -> float:
    return sum(one.values[-1] for one in real.query('sum_over_time(up{job="node"}[1h])'))


def _samples(real: Prometheus) -> Rows:
    """Everything it has scraped."""
    return {
        labels_of(one.labels): {round(at * 1000): value for at, value in zip(one.times, one.values, strict=True)}
        for one in real.query('{job="node"}[1h]')
    }


def _both(real: Prometheus, rows: Rows, remembered: Set[Labels], directory: Path) -> Both:
    times = sorted({at for row in rows.values() for at in row})
    clock = FakeClock(times[-1] / 1000)
    history = History(HistoryOptions(), str(directory), clock, "web1")
    for at in times:  # a series that a scrape lacks is gone, as in Prometheus
        history.record("scrape", at, {labels: row[at] for labels, row in rows.items() if at in row})
    history.close()
    history = History(HistoryOptions(), str(directory), clock, "web1")  # from the file, not from memory
    taken = {at % GRID_MS for at in times}
    free = [phase for phase in range(1, GRID_MS) if phase not in taken]
    assert free, "samples at every phase of the grid"
    largest: dict[str, float] = {}
    for labels, row in rows.items():
        name = dict(labels)[METRIC_NAME]
        largest[name] = max([largest.get(name, 0), *(abs(value) for value in row.values() if math.isfinite(value))])
    end_ms = (times[-1] // 1000 - 3) * 1000 + free[0]  # what came after the agent stopped is not ours to know
    return Both(real, history.querier(), rows, remembered, largest, end_ms, GRID_MS - free[0])


# -- asking both ------------------------------------------------------------------------------------------------------


def ours(both: Both, query: str, start_ms: int) -> Rows | str:
    """Values by labels and time; the kind of error where there is one."""
    try:
        if start_ms == both.end_ms:
            return _rows(both.ours.instant(query, both.end_ms))
        return _rows(both.ours.range(query, start_ms, both.end_ms, STEP_MS))
    except QueryError as error:
        return error.kind


def _rows(result: Result) -> Rows:
    if result.kind == "matrix":
        return {one.labels: dict(zip(one.times_ms, one.values, strict=True)) for one in result.matrix()}
    return {one.labels: {one.time_ms: one.value} for one in result.vector()}


def theirs(both: Both, query: str, start_ms: int) -> Rows | str:
    params: dict[str, Any] = {"query": query}
    if start_ms == both.end_ms:
        answer = call(f"{both.real.url}/api/v1/query", "POST", params={**params, "time": both.end_ms / 1000})
    else:
        params |= {"start": start_ms / 1000, "end": both.end_ms / 1000, "step": STEP_MS / 1000}
        answer = call(f"{both.real.url}/api/v1/query_range", "POST", params=params)
    body = answer.json()
    if body["status"] == "error":
        return str(body["errorType"])
    data = body["data"]
    if data["resultType"] == "scalar":
        return {(): {both.end_ms: float(data["result"][1])}}
    return {
        labels_of(one["metric"]): {
            round(float(at) * 1000): float(value) for at, value in one.get("values", [one.get("value")])
        }
        for one in data["result"]
    }


def noise(both: Both, query: str) -> float:
    """What rounding may add or take where values cancel each other."""
    names = {node.name for node in walk(parse(query)) if isinstance(node, VectorSelector)}
    largest = max((both.largest.get(name, 0.0) for name in names), default=0.0)
    if "stdvar" in query:
        return largest * largest * 1e-14
    is_fitted = any(word in query for word in ("stddev", "deriv", "predict_linear"))
    return largest * (1e-7 if is_fitted else 1e-12)


def difference(mine: Rows | str, other: Rows | str, noise: float) -> str:
    """What is not alike, "" where everything is."""
    if isinstance(mine, str) or isinstance(other, str):
        return "" if mine == other else f"{mine!r}, expected {other!r}"
    for labels in mine.keys() | other.keys():
        one, two = mine.get(labels, {}), other.get(labels, {})
        if one.keys() != two.keys() or not all(_almost(one[at], two[at], noise) for at in one):
            return f"{show(labels)}: {one}, expected {two}"
    return ""


def _almost(one: float, two: float, noise: float) -> bool:
    return one == two or (one != one and two != two) or math.isclose(one, two, rel_tol=1e-9, abs_tol=noise)


def _unnamed(rows: Rows | str) -> Rows | str:
    """The values of each moment in order, whichever series has them."""
    if isinstance(rows, str):
        return rows
    by_time: dict[int, list[float]] = {}
    for row in rows.values():
        for at, value in row.items():
            by_time.setdefault(at, []).append(value)
    return {(): {at * 1000 + place: value for at, values in by_time.items()
                 for place, value in enumerate(sorted(values, key=lambda v: (v != v, v)))}}  # fmt: skip


def agree(both: Both, queries: Iterable[str]) -> int:
    """Fail with what is answered differently; how many answers were more than nothing."""
    faults, with_values = [], 0
    for query in queries:
        is_choice = query.startswith(("topk", "bottomk"))
        for start_ms in (both.end_ms, both.end_ms - 6 * STEP_MS):
            mine, other = ours(both, query, start_ms), theirs(both, query, start_ms)
            with_values += bool(other)
            if is_choice:
                mine, other = _unnamed(mine), _unnamed(other)
            fault = difference(mine, other, noise(both, query))
            if fault:
                faults.append(f"{query}\n    {fault}")
    if faults:
        pytest.fail("\n".join(faults), pytrace=False)
    return with_values


# -- tests ------------------------------------------------------------------------------------------------------------


def test_the_agent_remembers_every_series_that_it_shows(both: Both) -> None:
    added = {"scrape_duration_seconds", "scrape_samples_scraped", "scrape_samples_post_metric_relabeling",
             "scrape_series_added"}  # fmt: skip
    missing = [show(labels) for labels in both.rows if labels not in both.remembered]
    assert [text for text in missing if not any(f'"{name}"' in text for name in added)] == []


def test_everything_scraped_is_answered_alike(both: Both) -> None:
    assert len(both.rows) > 200
    names = sorted({dict(labels)[METRIC_NAME] for labels in both.rows})
    assert agree(both, names) > len(names)


def test_rules_and_what_they_are_made_of_are_answered_alike(both: Both) -> None:
    files = sorted((ROOT / "alerting" / "defaults").glob("*.yml"))
    if "COMMUNITY_RULES_DIR" in os.environ:
        files += sorted(Path(os.environ["COMMUNITY_RULES_DIR"]).glob("*/*.yml"))
    queries = rule_queries(files, "10s", "5s")
    assert agree(both, queries) > len(queries) // 3


def test_random_queries_are_answered_alike(both: Both) -> None:
    queries = random_queries(
        metrics_of(list(both.rows)), seed=SEED, count=RANDOM, ranges=RANGES, offset=f"{both.offset_ms}ms"
    )
    assert agree(both, queries) > RANDOM
