"""How long each tier lasts, and how large the file may get."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from agent.core.sqlite import file_bytes
from sinks.history.history import FILE_NAME, History
from tests.sinks.history.small import START_MS, Clock, at, opened, samples

HOUR = 3_600_000


def _run(history: History, clock: Clock, first_h: float, hours: float, rng: random.Random, series: int = 40) -> None:
    """Values that do not compress, each 20 s, written each 10 minutes."""
    for second in range(round(first_h * 3600), round((first_h + hours) * 3600), 20):
        history.append(at(second, {f"n{n}": rng.random() for n in range(series)}))
        if second % 600 == 0:
            clock.be_at(second)
            assert history.write(), history.status().trouble


def test_each_tier_is_kept_for_its_time(tmp_path: Path) -> None:
    clock = Clock()
    history = opened(tmp_path, clock, raw=3 * 3600.0, five_minutes=30 * 3600.0, one_hour=365 * 86_400.0)
    _run(history, clock, 0, 60, random.Random(1), series=4)
    raw, five, hour = history.status().tiers
    now = START_MS + 60 * HOUR
    assert raw.oldest_ms is not None
    assert five.oldest_ms is not None
    assert now - 3.6 * HOUR < raw.oldest_ms <= now - 3 * HOUR
    assert now - 32 * HOUR < five.oldest_ms <= now - 30 * HOUR
    assert hour.oldest_ms == START_MS or hour.oldest_ms == START_MS + HOUR
    assert hour.newest_ms == START_MS + 48 * HOUR
    history.close()


def test_the_file_stops_growing_once_old_goes_as_new_comes(tmp_path: Path) -> None:
    clock, rng = Clock(), random.Random(2)
    history = opened(tmp_path, clock, raw=3600.0, five_minutes=3600.0, one_hour=86_400.0)
    _run(history, clock, 0, 6, rng)
    after_six = history.status().used_bytes
    _run(history, clock, 6, 18, rng)
    _run(history, clock, 24, 2, rng)
    status = history.status()
    assert status.used_bytes < 2.5 * after_six
    assert status.tiers[0].blocks < 20
    history.close()
    assert file_bytes(str(tmp_path / FILE_NAME)) < 4 * after_six


@pytest.mark.parametrize("cap", [200_000, 300_000])
def test_the_cap_holds_and_the_oldest_goes_first(tmp_path: Path, cap: int) -> None:
    clock = Clock()
    history = opened(tmp_path, clock, max_disk=cap)
    _run(history, clock, 0, 8, random.Random(3))
    status = history.status()
    assert status.used_bytes <= cap
    raw = status.tiers[0]
    assert raw.newest_ms is not None
    assert raw.newest_ms > START_MS + 7.8 * HOUR
    assert raw.oldest_ms is not None
    assert raw.oldest_ms > START_MS + HOUR / 2
    assert all(tier.blocks for tier in status.tiers[:2])
    history.close()
    assert file_bytes(str(tmp_path / FILE_NAME)) < 3 * cap


def test_series_that_are_gone_everywhere_are_forgotten(tmp_path: Path) -> None:
    clock = Clock()
    history = opened(tmp_path, clock, raw=3600.0, five_minutes=3600.0, one_hour=3600.0)
    history.append(at(0, {"old": 1.0, "kept": 1.0}))
    for second in range(20, 80 * 3600, 200):
        history.append(at(second, {"kept": float(second)}))
        if second % 600 == 20:
            clock.be_at(second)
            assert history.write()
    assert history.label_values("at", [], 0, 2**60) == ["kept"]
    assert history.status().series == 2
    history.append(at(80 * 3600, {"old": 2.0, "kept": 1.0}))
    assert samples(history, "old") == [(80 * 3600, 2.0)], "it is back, as another series"
    history.close()
    again = opened(tmp_path, clock)
    assert again.status().series == 3
    again.close()


def test_a_series_that_comes_while_others_are_forgotten_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its Tick arrives at the worst moment: memory has been looked at, the registry has not."""
    clock = Clock()
    history = opened(tmp_path, clock, raw=3600.0, five_minutes=3600.0, one_hour=3600.0)
    arrived: list[int] = []
    numbers = history._registry.numbers

    def numbers_then() -> list[int]:
        if not arrived:
            arrived.append(second + 1)
            history.append(at(second + 1, {"kept": 1.0, "new": 3.0}))
        return numbers()

    monkeypatch.setattr(history._registry, "numbers", numbers_then)
    history.append(at(0, {"old": 1.0, "kept": 1.0}))
    second = 20
    while not arrived:
        assert second < 80 * 3600, "nothing is ever forgotten"
        history.append(at(second, {"kept": float(second)}))
        if second % 600 == 20:
            clock.be_at(second)
            assert history.write()
        second += 200
    monkeypatch.undo()
    assert "new" in history.label_values("at", [], 0, 2**60)
    assert samples(history, "new") == [(arrived[0], 3.0)]
    history.close()
    again = opened(tmp_path, clock)
    assert samples(again, "new") == [(arrived[0], 3.0)]
    again.close()


def test_a_clock_far_in_the_future_for_a_while_does_not_empty_history(tmp_path: Path) -> None:
    clock = Clock()
    history = opened(tmp_path, clock, raw=86_400.0)
    _run(history, clock, 0, 6, random.Random(4), series=3)
    year_h = 24 * 365 * 12.0
    _run(history, clock, year_h, 0.5, random.Random(4), series=3)
    before = history.status().tiers[0].blocks
    assert before < 80  # what the wrong clock deleted is bounded by the blocks deleted at a time
    _run(history, clock, 6, 1, random.Random(4), series=3)
    status = history.status()
    assert status.epochs == 1
    assert status.tiers[0].newest_ms is not None
    assert status.tiers[0].newest_ms < START_MS + 8 * HOUR  # what came from the wrong time is gone
    now = START_MS + 7 * HOUR - 60_000
    assert len(history.querier().instant("count_over_time(place_x[30m])", now).vector()) == 3
    history.close()


def test_opening_does_not_depend_on_how_much_there_is(tmp_path: Path) -> None:
    clock = Clock()
    history = opened(tmp_path, clock)
    _run(history, clock, 0, 10, random.Random(5))
    history.close()
    statements: list[str] = []
    again = opened(tmp_path, clock)
    assert again._store.db is not None
    again._store.db.set_trace_callback(statements.append)
    again._store._load(again._store.db)
    plans = [again._store.db.execute(f"EXPLAIN QUERY PLAN {text}").fetchall() for text in statements[:]]
    assert not [row for plan in plans for row in plan if row[3].startswith(("SCAN block", "SCAN part"))]
    again.close()
