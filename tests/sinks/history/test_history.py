"""History against a naive memory of the same Ticks, whatever is written, reopened or forgotten in between."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.core.clock import NS
from agent.core.labels import Labels, Matcher, labels_of
from agent.core.model import Group, Tag, Tick, counter, gauge
from agent.core.query import Limits, QueryTimeoutError, TooMuchError
from sinks.history.columns import ABSENT_BYTES
from sinks.history.history import History
from sinks.history.promql.storage import STALE, SelectHints, SeriesColumns
from sinks.history.store import Store
from sinks.journal import Journal
from tests.sinks.history.small import (
    PLACE,
    START_MS,
    START_S,
    Clock,
    Rows,
    at,
    bits,
    everything,
    in_memory,
    opened,
    place,
    samples,
)

_NAMES = ["a", "b", "c", "d"]
_any_bits = st.integers(0, 2**64 - 1).map(lambda n: struct.unpack("=d", struct.pack("=Q", n))[0])
_values = st.one_of(
    st.sampled_from([0.0, 1.0, 1.0, 1.0, -0.0, 3, 2**53, True, None]),
    st.floats(),
    _any_bits.filter(lambda value: bits(value) != ABSENT_BYTES and bits(value) != bits(STALE)),
)
_tick = st.tuples(
    st.just("tick"),
    st.sampled_from(["one", "two"]),
    st.integers(-3, 400),  # s after the one before
    st.dictionaries(st.sampled_from(_NAMES), _values),
    st.lists(st.sampled_from(_NAMES), max_size=2),
)
_steps = st.lists(st.one_of(_tick, _tick, _tick, st.sampled_from([("write",), ("reopen",), ("trim",)])), max_size=60)


class Naive:
    """The rules of history over dictionaries."""

    def __init__(self) -> None:
        self.samples: dict[Labels, dict[int, bytes]] = {}
        self.live: dict[str, set[str]] = {}
        self.last: dict[str, int] = {}

    def append(self, collector: str, time_ms: int, rows: Rows, failed: list[str]) -> None:
        if time_ms <= self.last.get(collector, -1):
            return
        self.last[collector] = time_ms
        seen = {name for name, value in rows.items() if value is not None}
        live = self.live.get(collector, set())
        held = {name for name in live - seen if name in failed}
        for name in seen:
            self._of(collector, name)[time_ms] = bits(rows[name])  # type: ignore[arg-type]
        for name in live - seen - held:
            self._of(collector, name)[time_ms] = bits(STALE)
        self.live[collector] = seen | held

    def _of(self, collector: str, name: str) -> dict[int, bytes]:
        labels = {"__name__": f"{collector}_x", "at": name, "job": "node", "instance": "host"}
        return self.samples.setdefault(labels_of(labels), {})


_GROUPS = {name: Group(name, [gauge("x", "value", "x", influx="x")], ["at"]) for name in ("one", "two")}


@given(_steps)
@example([("tick", "one", 0, {"a": 1.0}, []), ("write",), ("tick", "one", 0, {"a": 2.0}, []), ("reopen",)])
@example([("tick", "one", 1, {"a": 1.0}, []), ("reopen",), ("tick", "one", 1, {}, []), ("tick", "one", 1, {}, ["a"])])
@example([
    ("tick", "two", 0, {"a": 0.0}, []), ("tick", "two", 1, {"b": 0.0, "c": 0.0}, ["a"]),
    ("tick", "two", 1, {"b": 0.0, "c": None}, []),
])  # fmt: skip
def test_history_is_what_a_naive_memory_of_the_ticks_is(steps: list[tuple[object, ...]]) -> None:
    naive = Naive()
    now = 0
    with TemporaryDirectory() as directory:
        history = opened(directory)
        for step in steps:
            if step[0] == "tick":
                _, collector, later, rows, failed = step
                now = max(now + later, 0)  # type: ignore[operator]
                readings = [_GROUPS[collector].row((name,), (value,)) for name, value in rows.items()]  # type: ignore[index, attr-defined]
                tick = at(now, {}, failed=failed, collector=collector)  # type: ignore[arg-type]
                tick.readings.extend(readings)
                history.append(tick)
                naive.append(collector, START_MS + now * 1000, rows, failed)  # type: ignore[arg-type]
            elif step[0] == "reopen":
                history.close()
                history = opened(directory)
                naive.live.clear()  # a new process knows of no series before its own
            else:
                assert history.write()
        assert everything(history) == naive.samples
        history.close()
        again = opened(directory)
        assert everything(again) == naive.samples
        again.close()


@given(st.lists(_tick, min_size=1, max_size=40), st.integers(-100, 6000), st.integers(0, 2000))
def test_the_newest_sample_is_the_last_of_all(steps: list[tuple[object, ...]], until_s: int, span_s: int) -> None:
    with TemporaryDirectory() as directory:
        history = opened(directory)
        history.append(at(0, {}, collector="one"))
        history.append(at(0, {}, collector="two"))
        now = 0
        for _, collector, later, rows, failed in steps:
            now = max(now + later, 0)  # type: ignore[operator]
            tick = at(now, {}, failed=failed, collector=collector)  # type: ignore[arg-type]
            tick.readings.extend(PLACE.row((name,), (value,)) for name, value in rows.items())  # type: ignore[attr-defined]
            history.append(tick)
        until_ms = START_MS + until_s * 1000
        asked = ([Matcher("__name__", "=", "place_x")], until_ms - span_s * 1000, until_ms)
        all_of_them = history.select(*asked, SelectHints())
        newest = history.select(*asked, SelectHints(is_newest_enough=True))
        assert ends_of(newest) == ends_of(all_of_them)
        history.close()


def ends_of(found: Iterable[SeriesColumns]) -> dict[Labels, tuple[int, bytes]]:
    """Time and bits of the last sample of each series."""
    return {one.labels: (one.t[-1], bits(one.v[-1])) for one in found}


def test_an_instant_selector_reads_one_sample_a_series(tmp_path: Path) -> None:
    history = opened(tmp_path)
    for second in range(600):
        history.append(at(second, {"a": float(second), "b": 1.0}))
    now_ms = START_MS + 599_000
    few = Limits(samples=3)
    assert [one.value for one in history.querier().instant("place_x", now_ms, few).vector()] == [599.0, 1.0]
    with pytest.raises(TooMuchError):
        history.querier().instant("last_over_time(place_x[2m])", now_ms, few)
    history.close()


def test_the_journal_gives_back_what_a_crash_took(tmp_path: Path) -> None:
    clock = Clock()
    journal = Journal(str(tmp_path / "journal"), clock)
    history = opened(tmp_path / "history", clock)
    for second in range(0, 1500, 5):
        tick = at(second, {"a": float(second)})
        journal.append(tick)
        history.append(tick)
        clock.be_at(second)
        if second == 700:
            assert history.write()
    journal.flush()
    before = samples(history, "a")
    crashed = opened(tmp_path / "history", clock)  # the first one never closes: that is the crash
    assert samples(crashed, "a")[-1][0] == 700
    assert crashed.rebuild(journal.ticks_since(crashed.rebuild_since_ns)) == 160
    assert samples(crashed, "a") == before
    crashed.append(at(1500, {"a": 0.0}))
    assert crashed.write()
    assert samples(crashed, "a") == [*before, (1500, 0.0)]
    crashed.close()
    again = opened(tmp_path / "history", clock)
    assert samples(again, "a") == [*before, (1500, 0.0)]
    again.close()
    journal.close()
    history.close()


def test_a_long_journal_is_written_as_it_is_replayed(tmp_path: Path) -> None:
    """The disk took nothing for a day: memory must not hold that day."""
    history = opened(tmp_path)
    assert history.rebuild(at(second, {"a": float(second)}) for second in range(0, 86_400, 20)) == 4320
    status = history.status()
    assert status.head_oldest_ms is not None
    assert status.head_oldest_ms > START_MS + 80_000_000
    assert [second for second, _ in samples(history, "a")] == list(range(0, 86_400, 20))
    history.close()


def filled(directory: Path) -> tuple[History, dict[Labels, dict[int, float]]]:
    """Two hours of two places, half of it on disk, and the same in a dictionary."""
    history = opened(directory)
    known: dict[Labels, dict[int, float]] = {}
    for second in range(0, 7200, 15):
        rows = {"a": float(second * second % 977), "b": float(second % 1000)}
        history.append(at(second, rows))
        for name, value in rows.items():
            labels = labels_of({"__name__": "place_x", "at": name, "job": "node", "instance": "host"})
            known.setdefault(labels, {})[START_MS + second * 1000] = value
        if second in (1800, 3600):
            assert history.write()
    return history, known


QUERIES = [
    "place_x",
    "sum(place_x)",
    "sum by (at) (rate(place_x[5m]))",
    "max_over_time(place_x[17m])",
    "quantile_over_time(0.9, place_x[30m])",
    "place_x offset 90m",
    "avg_over_time(place_x[2m])[40m:3m]",
    'count(place_x{at=~"a|c"}) or vector(0)',
    "absent(place_x{at='nowhere'})",
    "increase(place_x[100m])",
    "avg_over_time(place_x[119m])",
]


@pytest.mark.parametrize("expr", QUERIES)
def test_promql_over_history_is_promql_over_its_samples(tmp_path: Path, expr: str) -> None:
    history, known = filled(tmp_path)
    right, querier = in_memory(known), history.querier()
    moments = [START_MS + second * 1000 for second in (0, 1799, 1800, 3601, 5000, 7185, 7300)]
    for moment in moments:
        expected, found = right.instant(expr, moment), querier.instant(expr, moment)
        assert found.warnings == expected.warnings
        if expected.kind == "matrix":
            assert found.value == expected.value
        else:
            assert [s.labels for s in found.vector()] == [s.labels for s in expected.vector()]
            assert [s.value for s in found.vector()] == pytest.approx([s.value for s in expected.vector()], rel=1e-9)
    if expected.kind != "matrix":
        ranges = (START_MS, START_MS + 7_200_000, 100_000)
        wanted, got = right.range(expr, *ranges).matrix(), querier.range(expr, *ranges).matrix()
        assert [(p.labels, list(p.times_ms)) for p in got] == [(p.labels, list(p.times_ms)) for p in wanted]
        for a, b in zip(got, wanted, strict=True):
            assert list(a.values) == pytest.approx(list(b.values), rel=1e-9)
    history.close()


def test_what_memory_holds_is_answered_without_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history, _ = filled(tmp_path)
    assert history.write()

    def reading(_: Store) -> NoReturn:
        raise AssertionError("the file is read")

    monkeypatch.setattr(Store, "reading", reading)
    now = START_MS + 7185_000
    assert len(history.querier().instant("rate(place_x[4m])", now).vector()) == 2
    with pytest.raises(AssertionError, match="the file is read"):
        history.querier().instant("rate(place_x[100m])", now)
    monkeypatch.undo()
    history.close()


def test_what_was_never_written_is_not_looked_for_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reading(_: Store) -> NoReturn:
        raise AssertionError("the file is read")

    monkeypatch.setattr(Store, "reading", reading)
    history = opened(tmp_path)
    for second in range(30):
        history.append(at(second, {"a": 1.0}))
    long_ago = "count_over_time(place_x[7d])"
    assert [one.value for one in history.querier().instant(long_ago, START_MS + 60_000).vector()] == [30]
    assert history.write()
    with pytest.raises(AssertionError, match="the file is read"):
        history.querier().instant(long_ago, START_MS + 60_000)
    monkeypatch.undo()
    history.close()


def test_reading_stops_at_the_deadline_of_the_query(tmp_path: Path) -> None:
    history = opened(tmp_path)
    for block in range(20):
        for second in range(10):
            history.append(at(block * 10 + second, {"a": float(second)}))
        assert history.write()
    looks = iter(range(5))

    def check() -> None:
        if next(looks) == 4:
            raise QueryTimeoutError("late")

    with pytest.raises(QueryTimeoutError):
        history.select(place("a"), -(2**62), 2**62, SelectHints(check=check))
    history.close()
    history = opened(tmp_path)
    looks = iter(range(5))
    with pytest.raises(QueryTimeoutError):
        history.select(place("a"), -(2**62), 2**62, SelectHints(check=check))
    history.close()


def test_a_query_never_sees_a_gap_while_memory_goes_to_disk(tmp_path: Path) -> None:
    history = opened(tmp_path, head=60.0)
    rounds = 30
    wrong: list[object] = []

    def write(released: threading.Semaphore) -> None:
        for _ in range(rounds):
            released.acquire()
            if not history.write():
                wrong.append(history.status().trouble)

    def ask(released: threading.Semaphore) -> None:
        for _ in range(rounds):
            released.acquire()
            known = [second for second, _ in samples(history, "a")]
            if known != [float(number) for number in range(len(known))]:
                wrong.append(known)

    turns = [threading.Semaphore(0) for _ in range(3)]
    threads = [threading.Thread(target=task, args=(turn,)) for task, turn in zip((write, ask, ask), turns, strict=True)]
    for thread in threads:
        thread.start()
    for number in range(rounds * 40):
        history.append(at(number, {"a": float(number), "b": 1.0}))
        if number % 40 == 39:
            for turn in turns:
                turn.release()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(samples(history, "a")) == rounds * 40
    history.close()


def test_labels_and_series_of_a_stretch_of_time(tmp_path: Path) -> None:
    history = opened(tmp_path)
    received = counter("rx", "bytes", "Bytes received.", prom="node_rx_bytes_total")
    group = Group("net", [received, gauge("mtu", "bytes", "Largest packet.", influx="mtu")], [Tag("iface", "device")])
    for second in (0, 10):
        history.append(Tick((START_S + second) * NS, "net", [group.row(("eth0",), (second, 1500))]))
    assert history.write()
    for second in (5000, 5010):
        history.append(Tick((START_S + second) * NS, "net", [group.row(("wlan0",), (second, 1400))]))
    for _ in range(2):  # in memory, then on disk only
        early, late = (START_MS, START_MS + 60_000), (START_MS + 5_001_000, START_MS + 5_060_000)
        assert history.label_values("device", [], *early)[:1] == ["eth0"]
        assert "wlan0" in history.label_values("device", [], *late)
        assert history.label_values("device", [], START_MS - 9000, START_MS - 1) == []
        assert history.label_names([Matcher("__name__", "=", "net_mtu")], *late) == [
            "__name__", "device", "instance", "job",
        ]  # fmt: skip
        assert history.label_values("__name__", [Matcher("device", "!=", "")], *early) == [
            "net_mtu",
            "node_rx_bytes_total",
        ]
        shown = history.series([Matcher("device", "=", "eth0"), Matcher("__name__", "=~", "node_.+")], *early)
        eth0 = {"__name__": "node_rx_bytes_total", "device": "eth0", "instance": "host", "job": "node"}
        assert shown == [labels_of(eth0)]
        assert history.metadata()["node_rx_bytes_total"] == ("counter", "Bytes received.", "bytes")
        assert history.metadata()["net_mtu"] == ("gauge", "Largest packet.", "bytes")
        history.close()
        history = opened(tmp_path)
    assert history.label_values("device", [], START_MS, START_MS + 60_000) == ["eth0"]
    history.close()


def test_a_label_that_is_no_utf8_survives(tmp_path: Path) -> None:
    history = opened(tmp_path)
    history.append(Tick(START_S * NS, "p", [PLACE.row(('/mnt/\udcff"\\\n€',), (1.0,))]))
    history.close()
    again = opened(tmp_path)
    assert samples(again, '/mnt/\udcff"\\\n€') == [(0, 1.0)]
    again.close()


def test_a_selector_that_means_nothing_finds_nothing(tmp_path: Path) -> None:
    history = opened(tmp_path)
    assert history.select(place("a"), -(2**62), 2**62, SelectHints()) == []
    history.append(at(0, {"a": 1.0}))
    assert history.select([Matcher("__name__", "=", "other")], -(2**62), 2**62, SelectHints()) == []
    history.close()


def test_status_tells_what_there_is(tmp_path: Path) -> None:
    history, known = filled(tmp_path)
    assert history.write()
    status = history.status()
    raw = status.tiers[0]
    assert raw.name == "raw"
    assert raw.samples == sum(map(len, known.values())) + 7200 // 15  # `up` comes with the Ticks
    assert (raw.oldest_ms, raw.newest_ms) == (START_MS, START_MS + 7_185_000)
    assert status.series == 3
    assert status.head_newest_ms == START_MS + 7_185_000
    assert 0 < raw.bytes < status.used_bytes <= status.file_bytes
    assert status.trouble == ""
    history.close()
