from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from collectors.wallclock import Wallclock
from tests.collectors.hosts import readings
from tests.collectors.part_of_host import PartOfHost, fixed_host


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("zone", "now", "expected"),
    [
        ("UTC", 1767225600.5, ("UTC", 0.0)),
        ("EST5EDT,M3.2.0,M11.1.0", 1767225600.0, ("EST", -18000.0)),
        ("EST5EDT,M3.2.0,M11.1.0", 1782864000.0, ("EDT", -14400.0)),
    ],
    indirect=["zone"],
)
def test_the_zone_is_the_one_in_force_at_that_time(zone: None, now: float, expected: tuple[str, float]) -> None:
    clock = Wallclock(host=fixed_host("small"), _wall=lambda: now)
    first, second, *_ = readings(clock.collect())
    assert first == ("time", (), {"time": now})
    assert second == ("time_zone", (expected[0],), {"offset": expected[1]})


@pytest.mark.parametrize(
    ("host", "current", "available"),
    [
        ("small", [("kvm-clock", "0")], [("kvm-clock", "0"), ("tsc", "0"), ("acpi_pm", "0")]),
        ("container", [], []),
    ],
)
def test_clock_sources_are_labels(host: str, current: list[tuple[str, str]], available: list[tuple[str, str]]) -> None:
    found = readings(Wallclock(host=fixed_host(host)).collect())
    assert [tags for name, tags, _ in found if name == "clocksource_current"] == current
    assert [tags for name, tags, _ in found if name == "clocksource_available"] == available


def test_a_clock_source_with_a_hostile_name_comes_through(tmp_path: Path) -> None:
    tree = PartOfHost("small", tmp_path, "sys/devices/system/clocksource")
    tree.write("sys/devices/system/clocksource/clocksource0/current_clocksource", b'\xff"\\\n')
    found = readings(Wallclock(host=tree.host).collect())
    assert [tags for name, tags, _ in found if name == "clocksource_current"] == [('�"\\', "0")]


def test_the_time_is_that_of_this_host() -> None:
    before = time.time()
    (seconds,) = next(iter(Wallclock().collect())).values
    assert isinstance(seconds, float)
    assert before <= seconds <= time.time()
