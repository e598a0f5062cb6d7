"""What the newest minutes hold: samples, stale markers, and what a clock that jumps does to them."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from agent.core.clock import NS
from agent.core.labels import labels_of
from agent.core.model import Group, Tick, gauge
from sinks.history.head import Head
from sinks.history.naming import Names
from sinks.history.series import Registry
from tests.sinks.history.small import START_S, Clock, at, bits, opened, picture, samples

# One sign a second. x: the series is in the Tick; space: it is not; f: it is not, and its target failed; - : no Tick.
SEQUENCES = [
    ("xxxx", "xxxx", "a series in every tick has a sample in each"),
    ("xx  x", "xx!.x", "a series that is gone gets one stale marker"),
    ("xxffx", "xx..x", "a series whose target failed is held"),
    ("xxff x", "xx..!x", "a held series that is then gone gets its marker then"),
    ("xxf f x", "xx.!..x", "a failure after the series is gone does not bring it back"),
    ("ffxx", "..xx", "a target that fails before its series was ever seen leaves nothing"),
    ("xx--x", "xx..x", "no Tick at all is no statement about the series"),
    ("x x x x", "x!x!x!x", "a series may come and go with every tick"),
]


@pytest.mark.parametrize(("seen", "expected", "sentence"), SEQUENCES, ids=[s[2] for s in SEQUENCES])
@pytest.mark.parametrize("is_written", [False, True], ids=["in memory", "on disk"])
def test_a_series_that_is_gone_is_marked(
    tmp_path: Path, seen: str, expected: str, sentence: str, is_written: bool
) -> None:
    history = opened(tmp_path)
    for second, sign in enumerate(seen):
        rows = {"always": 1.0} | ({"sometimes": float(second)} if sign == "x" else {})
        if sign != "-":
            history.append(at(second, rows, failed=["sometimes"] if sign == "f" else []))
        if is_written:
            assert history.write()
    assert picture(history, "sometimes", len(seen)) == expected, sentence
    assert picture(history, "always", len(seen)) == "".join("." if sign == "-" else "x" for sign in seen)
    history.close()


def test_a_series_that_is_gone_for_long_costs_no_column(tmp_path: Path) -> None:
    history = opened(tmp_path)
    history.append(at(0, {"a": 1.0, **{f"old{n}": 1.0 for n in range(100)}}))
    for second in range(1, 400):
        history.append(at(second, {"a": 1.0}))
    assert picture(history, "old7", 4) == "x!.."
    assert history.status().head_samples < 400 * 2 + 2 * 64 * 101
    history.close()


def test_values_that_are_no_numbers_are_no_samples(tmp_path: Path) -> None:
    history = opened(tmp_path)
    history.append(at(0, {"a": 1, "b": True, "c": None, "d": 2.5}))
    history.append(at(1, {"a": 10**400, "b": False, "c": 3, "d": "text"}))
    history.append(at(2, {"a": 2**63, "b": None, "c": 4, "d": 1.0}))
    assert samples(history, "a") == [(0, 1.0), (2, float(2**63))]
    assert samples(history, "b")[:2] == [(0, 1.0), (1, 0.0)]
    assert picture(history, "b", 3) == "xx!"
    assert samples(history, "c") == [(1, 3.0), (2, 4.0)]
    assert samples(history, "d") == [(0, 2.5), (2, 1.0)]
    history.close()


def test_scale_applies_to_the_prometheus_name(tmp_path: Path) -> None:
    group = Group("disk", [gauge("ms", "milliseconds", "Time.", influx="ms", prom="node_time_seconds", scale=0.001)])
    history = opened(tmp_path)
    for second in range(3):
        history.append(Tick((START_S + second) * NS, "disk", [group.row((), (1500 + second,))]))
    answer = history.querier().instant("node_time_seconds", (START_S + 2) * 1000)
    assert [sample.value for sample in answer.vector()] == [pytest.approx(1.502)]
    history.close()


def test_up_is_there_while_ticks_come_and_absent_five_minutes_later(tmp_path: Path) -> None:
    history = opened(tmp_path)
    for second in range(60):
        history.append(at(second, {"a": 1.0}))
    querier = history.querier()
    assert [s.labels for s in querier.instant("up == 1", (START_S + 59) * 1000).vector()] == [
        labels_of({"__name__": "up", "job": "node", "instance": "host"})
    ]
    assert querier.instant("count_over_time(up[1m])", (START_S + 59) * 1000).vector()[0].value == 12
    assert querier.instant("absent(up)", (START_S + 356) * 1000).vector()[0].value == 1
    history.close()


def test_a_tick_at_or_before_the_last_of_its_collector_is_dropped(tmp_path: Path) -> None:
    history = opened(tmp_path)
    for second in (10, 11, 11, 9, 12):
        history.append(at(second, {"a": float(second)}))
    history.append(at(8, {"b": 8.0}, collector="other"))
    assert samples(history, "a") == [(10, 10.0), (11, 11.0), (12, 12.0)]
    assert samples(history, "b") == [(8, 8.0)]
    assert history.status().dropped_rows == 2
    history.close()


@pytest.mark.parametrize("is_written", [False, True], ids=["in memory", "on disk"])
def test_a_clock_set_back_begins_a_new_epoch(tmp_path: Path, is_written: bool) -> None:
    history = opened(tmp_path)
    for second in range(0, 600, 10):
        history.append(at(second, {"a": 1.0}))
        history.append(at(second, {"b": 1.0}, collector="other"))
    if is_written:
        assert history.write()
    for second in range(300, 400, 10):
        history.append(at(second, {"a": 2.0}))
        history.append(at(second, {"b": 2.0}, collector="other"))
    assert history.status().epochs == 1
    for name in ("a", "b"):
        past = [(second, 1.0) for second in range(0, 300, 10)]
        anew = [(second, 2.0) for second in range(300, 400, 10)]
        assert samples(history, name, end_s=399) == past + anew
        assert history.write()
        assert samples(history, name, end_s=399) == past + anew
    now = history.querier().instant("place_x", (START_S + 395) * 1000).vector()
    assert [sample.value for sample in now] == [2.0, 2.0]
    history.close()
    again = opened(tmp_path)
    assert samples(again, "a", end_s=399) == [(s, 1.0) for s in range(0, 300, 10)] + [
        (s, 2.0) for s in range(300, 400, 10)
    ]
    again.close()


def test_time_lived_again_hides_what_was_there_before(tmp_path: Path) -> None:
    history = opened(tmp_path)
    for second in range(0, 3600, 5):
        history.append(at(second, {"a": 1.0}))
        if second % 600 == 0:
            assert history.write()
    assert history.write()
    for second in range(602, 3000, 7):
        history.append(at(second, {"a": 2.0}))
        if second % 400 == 0:
            assert history.write()
    assert history.write()
    history.close()
    again = opened(tmp_path)
    known = dict(samples(again, "a"))
    assert {second for second, value in known.items() if value == 2.0} == set(range(602, 3000, 7))
    assert not [second for second, value in known.items() if value == 1.0 and 602 <= second < 2994]
    assert {second for second, value in known.items() if value == 1.0} >= {0, 600, 3000, 3595}
    again.close()


def test_a_clock_that_was_wrong_for_a_moment_hides_nothing_else(tmp_path: Path) -> None:
    """A board without a battery boots in the past and steps forward once it has the time."""
    history = opened(tmp_path)
    for second in range(0, 7200, 10):
        history.append(at(second, {"a": 1.0}))
    history.close()
    again = opened(tmp_path)
    for second in (1000, 1001, 1002, 7300, 7301):
        again.append(at(second, {"a": 2.0}))
        assert again.write()
    known = dict(samples(again, "a"))
    assert known[990] == 1.0
    assert known[1010] == 1.0
    assert known[7190] == 1.0
    assert known[1001] == 2.0
    assert known[7301] == 2.0
    again.close()


def test_the_nan_of_a_source_keeps_its_bits(tmp_path: Path) -> None:
    odd = struct.unpack("=d", struct.pack("=Q", 0xFFF8000000000ABC))[0]
    history = opened(tmp_path)
    for second, value in enumerate([1.0, odd, float("nan"), -0.0, float("inf"), 5e-324]):
        history.append(at(second, {"a": value}))
    before = [bits(value) for _, value in samples(history, "a")]
    assert before == [bits(v) for v in (1.0, odd, float("nan"), -0.0, float("inf"), 5e-324)]
    history.close()
    again = opened(tmp_path)
    assert [bits(value) for _, value in samples(again, "a")] == before
    again.close()


def test_more_series_than_allowed_are_left_out_and_counted(tmp_path: Path) -> None:
    history = opened(tmp_path, max_series=100)
    history.append(at(0, {f"n{n}": 1.0 for n in range(150)}))
    status = history.status()
    assert status.series == 100
    assert status.refused_series == 51  # `up` comes last
    assert history.write()
    history.close()


def test_two_collectors_that_say_the_same_series_are_one(tmp_path: Path) -> None:
    history = opened(tmp_path)
    for second in range(10):
        history.append(at(second, {"a": 1.0}, collector="first" if second < 5 else "second"))
    assert [second for second, _ in samples(history, "a")] == list(range(10))
    assert history.write()
    assert [second for second, _ in samples(history, "a")] == list(range(10))
    history.close()


def test_a_recorded_series_keeps_its_labels_as_they_are(tmp_path: Path) -> None:
    history = opened(tmp_path)
    alert = labels_of({"__name__": "ALERTS", "alertname": "Full", "instance": "elsewhere"})
    rule = labels_of({"__name__": "job:load:avg"})
    history.record("group", START_S * 1000, {alert: 1.0, rule: 0.5})
    history.record("group", START_S * 1000 + 15_000, {rule: 0.75})
    assert history.write()
    querier = history.querier()
    now = START_S * 1000 + 15_000
    assert [(s.labels, s.value) for s in querier.instant('{__name__=~".+"}', now).vector()] == [(rule, 0.75)]
    assert [s.labels for s in querier.instant("ALERTS", now - 1).vector()] == [alert]
    history.close()


def test_a_collector_taken_away_ends_its_series(tmp_path: Path) -> None:
    clock = Clock()
    history = opened(tmp_path, clock)
    history.append(at(0, {"a": 1.0}))
    clock.be_at(1)
    history.end("places")
    history.end("places")
    history.end("never seen")
    assert picture(history, "a", 3) == "x!."
    history.close()


def test_constant_series_cost_next_to_nothing_in_memory() -> None:
    head = Head(Registry(1000), Names("node", "host"), 600_000, 600_000)
    for second in range(1280):
        head.append(at(second, {f"n{n}": float(n) for n in range(400)} | {"x": float(second)}))
    _, count, size = head.size()
    assert count > 1280 * 400
    assert size < 300_000


def test_memory_is_bounded_while_nothing_is_written() -> None:
    head = Head(Registry(1000), Names("node", "host"), 600_000, 1_200_000)
    for second in range(0, 7200, 2):
        head.append(at(second, {"x": float(second)}))
        if second % 60 == 0:
            head.trim()
    span = head.span()
    assert span is not None
    assert 1_800_000 <= span[1] - span[0] <= 1_800_000 + 64 * 5000 + 60_000
    assert head.lost_rows > 0
