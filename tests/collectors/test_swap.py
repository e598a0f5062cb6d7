from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host
from collectors.swap import Swap, parse_swap, parse_swapping
from tests.collectors.hosts import readings
from tests.collectors.part_of_host import PartOfHost, fixed_host


def test_two_points_as_telegraf_splits_them() -> None:
    total, free = 33554428 * 1024, 33548284 * 1024
    assert readings(Swap(host=fixed_host("big")).collect()) == [
        ("swap", (), {"total": total, "used": total - free, "free": free,
                      "used_percent": pytest.approx(100 * 6144 / 33554428)}),
        ("swap", (), {"in": 120 * 4096, "out": 2048 * 4096}),
    ]  # fmt: skip


def test_a_host_without_swap_has_zeros() -> None:
    first, second = readings(Swap(host=fixed_host("container")).collect())
    assert first[2] == {"total": 0, "used": 0, "free": 0, "used_percent": 0.0}
    assert second[2] == {"in": 0, "out": 0}


def test_a_host_that_hides_vmstat_still_has_the_first_point(tmp_path: Path) -> None:
    tree = PartOfHost("big", tmp_path, "proc/meminfo", "proc/vmstat")
    (tree.path / "proc/vmstat").unlink()
    assert [list(values) for *_, values in readings(Swap(host=tree.host).collect())] == [
        ["total", "used", "free", "used_percent"]
    ]


def test_a_missing_line_is_named() -> None:
    with pytest.raises(SourceError, match="/proc/meminfo: no SwapFree line"):
        parse_swap(b"MemTotal: 5 kB\nSwapTotal: 5 kB\n")


def test_a_host_without_the_file_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="no such file"):
        list(Swap(host=Host(proc_root=str(tmp_path))).collect())


@given(st.binary(max_size=100), st.integers(0, 50))
def test_any_bytes_give_numbers_or_a_source_error(noise: bytes, cut: int) -> None:
    text = b"SwapTotal:      100 kB\nSwapFree:        40 kB\npswpin 1\npswpout 2\n"
    text = text[:cut] + noise + text[cut:]
    assert min(parse_swapping(text)) >= 0
    try:
        numbers = parse_swap(text)
    except SourceError:
        return
    assert min(numbers) >= 0


def test_agrees_with_psutil_on_this_host() -> None:
    first, second = (reading.as_dict() for reading in Swap().collect())
    oracle = psutil.swap_memory()
    assert first["total"] == oracle.total
    assert first["used"] == pytest.approx(oracle.used, abs=1 << 20)
    assert second["in"] == pytest.approx(oracle.sin, abs=1 << 20)
