from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host
from agent.core.model import Value
from collectors.cpu import CPU, CPU_TIME, Cpu, parse_stat, settle, usage
from tests.collectors.hosts import NAMES, readings
from tests.collectors.part_of_host import PartOfHost

HZ = os.sysconf("SC_CLK_TCK")
LIVE = Path("/proc/stat").read_bytes()

Rows = dict[tuple[str, str], dict[str, Value]]


def stat(**cpus: str) -> str:
    """A /proc/stat with these rows; columns that are not given are 0."""
    rows = [f"{name} {' '.join((columns.split() + ['0'] * 10)[:10])}" for name, columns in cpus.items()]
    return "\n".join([*rows, "intr 1 2 3", "ctxt 4"]) + "\n"


def rows_of(tmp_path: Path, *texts: str, percpu: bool = True) -> list[Rows]:
    """What each reading of a /proc/stat that changes from text to text gives, by (measurement, CPU)."""
    tree = PartOfHost("small", tmp_path, "proc/stat")
    cpu, seen = Cpu(host=tree.host, percpu=percpu), []
    for text in texts:
        tree.write("proc/stat", text)
        seen.append({(name, tags[0]): values for name, tags, values in readings(cpu.collect())})
    return seen


@pytest.mark.parametrize(
    ("delta", "percent", "why"),
    [
        ("60 0 20 20", {"usage_user": 60.0, "usage_system": 20.0, "usage_idle": 20.0}, "shares of all the time"),
        ("80 0 0 20 0 0 0 0 30 0", {"usage_user": 50.0, "usage_guest": 30.0}, "guest time is taken out of user"),
        ("0 50 0 50 0 0 0 0 0 20", {"usage_nice": 30.0, "usage_guest_nice": 20.0}, "and out of nice"),
        ("2 0 0 98 0 0 0 0 3 0", {"usage_user": 0.0, "usage_guest": 3.0}, "a guest ahead of user is not negative time"),
        ("0 0 0 25 25 10 15 25", {"usage_iowait": 25.0, "usage_irq": 10.0, "usage_softirq": 15.0, "usage_steal": 25.0},
         "all eight columns make the total"),
    ],
)  # fmt: skip
def test_usage_is_the_share_since_the_last_reading(
    tmp_path: Path, delta: str, percent: dict[str, float], why: str
) -> None:
    _, second = rows_of(tmp_path, stat(cpu="", cpu0=""), stat(cpu=delta, cpu0=delta))
    for row in ("cpu-total", "cpu0"):
        assert {name: second["cpu", row][name] for name in percent} == pytest.approx(percent), why


def test_the_first_reading_has_seconds_and_no_percentages(tmp_path: Path) -> None:
    (first,) = rows_of(tmp_path, stat(cpu="1 2 3 4", cpu0="150 2 3 4 5 6 7 8 9 10"))
    assert first.keys() == {("cpu_time", "0")}
    expected = dict(zip(CPU_TIME.names, (t / HZ for t in (150, 2, 3, 4, 5, 6, 7, 8, 9, 10)), strict=True))
    assert first["cpu_time", "0"] == expected


def test_a_cpu_on_which_no_time_passed_has_no_percentages(tmp_path: Path) -> None:
    _, second = rows_of(
        tmp_path,
        stat(cpu="1 0 0 9", cpu0="1 0 0 5", cpu1="0 0 0 4"),
        stat(cpu="2 0 0 9", cpu0="2 0 0 5", cpu1="0 0 0 4"),
    )
    assert second.keys() == {("cpu", "cpu-total"), ("cpu", "cpu0"), ("cpu_time", "0"), ("cpu_time", "1")}


def test_iowait_that_steps_back_keeps_its_old_value_until_it_is_passed(tmp_path: Path) -> None:
    texts = [stat(cpu="", cpu0=f"0 0 0 {1000 + at} {iowait}") for at, iowait in ((0, 50), (10, 48), (20, 51))]
    seen = rows_of(tmp_path, *texts)
    assert [rows["cpu_time", "0"]["iowait"] for rows in seen] == [50 / HZ, 50 / HZ, 51 / HZ]
    assert seen[1]["cpu", "cpu0"]["usage_iowait"] == 0.0
    assert seen[2]["cpu", "cpu0"]["usage_iowait"] == pytest.approx(100 / 11)


def test_a_cpu_that_was_unplugged_and_came_back_starts_anew(tmp_path: Path) -> None:
    long = 10 * HZ
    first, second, third = rows_of(
        tmp_path,
        stat(cpu="1", cpu0=f"{long} 0 0 {long}"),
        stat(cpu="2", cpu0="7 0 0 3"),
        stat(cpu="3", cpu0="8 0 0 4"),
    )
    assert first["cpu_time", "0"]["user"] == 10.0
    assert second["cpu_time", "0"]["user"] == 7 / HZ
    assert ("cpu", "cpu0") not in second
    assert third["cpu", "cpu0"]["usage_user"] == 50.0


def test_an_unplugged_cpu_is_gone_and_has_no_percentages_when_it_returns(tmp_path: Path) -> None:
    both = stat(cpu="9 0 0 9", cpu0="1 0 0 1", cpu3="1 0 0 1")
    later = stat(cpu="18 0 0 18", cpu0="2 0 0 2", cpu3="2 0 0 2")
    _, alone, back = rows_of(tmp_path, both, stat(cpu="9 0 0 10", cpu0="1 0 0 2"), later)
    assert not {key for key in alone if key[1] in ("3", "cpu3")}
    assert ("cpu_time", "3") in back
    assert ("cpu", "cpu3") not in back


def test_percentages_of_single_cpus_can_be_left_out(tmp_path: Path) -> None:
    _, second = rows_of(tmp_path, stat(cpu="", cpu0=""), stat(cpu="1", cpu0="1"), percpu=False)
    assert second.keys() == {("cpu", "cpu-total"), ("cpu_time", "0")}


def test_columns_an_old_kernel_lacks_are_zero() -> None:
    assert parse_stat(b"cpu0 1 2 3 4\n") == {b"cpu0": (1, 2, 3, 4, 0, 0, 0, 0, 0, 0)}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "no cpu line"),
        ("intr 1\nctxt 2\n", "no cpu line"),
        ("cpu0 1 two 3\n", "is not a line of numbers"),
        ("cpu0 " + "9" * 5000, "is not a line of numbers"),
    ],
)
def test_garbage_is_a_source_error(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(SourceError, match=error):
        rows_of(tmp_path, text)


def test_a_host_without_the_file_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="no such file"):
        list(Cpu(host=Host(proc_root=str(tmp_path))).collect())


@pytest.mark.parametrize("name", NAMES)
def test_percentages_of_each_fixture_host_add_up_to_all_the_time(tmp_path: Path, name: str) -> None:
    tree = PartOfHost(name, tmp_path, "proc/stat")
    cpu = Cpu(host=tree.host)
    count = sum(1 for _ in cpu.collect())
    tree.later()
    points = [reading for reading in cpu.collect() if reading.group is CPU]
    assert len(points) == count + 1
    for point in points:
        assert sum(value for value in point.values if isinstance(value, float)) == pytest.approx(100)


ticks = st.tuples(*[st.integers(0, 2**40)] * 10)


@given(ticks, ticks)
def test_growth_is_never_negative(before: tuple[int, ...], now: tuple[int, ...]) -> None:
    published, growth = settle(before, now)
    if growth is None:
        assert published == now
    else:
        assert min(growth) >= 0
        assert all(new >= old for old, new in zip(before, published, strict=True))
        percent = usage(growth)
        assert percent is None or min(percent) >= 0


@given(st.binary(max_size=200), st.integers(0, 400))
def test_any_bytes_give_numbers_or_a_source_error(noise: bytes, cut: int) -> None:
    try:
        cpus = parse_stat(LIVE[:cut] + noise + LIVE[cut:])
    except SourceError:
        return
    assert all(len(row) == 10 for row in cpus.values())


def test_agrees_with_psutil_on_this_host() -> None:
    before, mine, after = psutil.cpu_times(percpu=True), list(Cpu().collect()), psutil.cpu_times(percpu=True)
    assert len(before) == len(mine)
    for old, reading, new in zip(before, mine, after, strict=True):
        values = reading.as_dict()
        for mode in ("user", "system", "idle", "iowait", "steal"):
            # A second of grace, because idle time may step back a little.
            assert getattr(old, mode) - 1 <= float(values[mode] or 0) <= getattr(new, mode) + 1
