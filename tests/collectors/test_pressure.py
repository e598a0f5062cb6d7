from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceMissing
from collectors.pressure import Pressure, Stall, parse_pressure
from tests.collectors.hosts import readings
from tests.collectors.part_of_host import PartOfHost, fixed_host

LINES = b"some avg10=1.50 avg60=0.20 avg300=0.13 total=4654554\nfull avg10=0.00 avg60=0.00 avg300=100.00 total=0\n"


def test_a_line_becomes_a_stall() -> None:
    assert parse_pressure(LINES) == {"some": Stall(1.5, 0.2, 0.13, 4654554), "full": Stall(0.0, 0.0, 100.0, 0)}


def test_points_are_split_as_telegraf_splits_them() -> None:
    found = readings(Pressure(host=fixed_host("small")).collect())
    assert found[:2] == [
        ("pressure", ("cpu", "some"), {"total": 6295063}),
        ("pressure", ("cpu", "some"), {"avg10": 0.12, "avg60": 0.34, "avg300": 0.35}),
    ]
    assert [tags for name, tags, values in found if name == "pressure" and "total" in values] == [
        ("cpu", "some"), ("memory", "some"), ("memory", "full"), ("io", "some"), ("io", "full"),
    ]  # fmt: skip


def test_seconds_are_published_without_tags() -> None:
    *_, last = readings(Pressure(host=fixed_host("small")).collect())
    assert last == ("pressure_stall", (), {
        "cpu_some": 6.295063, "memory_some": 0.0, "memory_full": 0.0, "io_some": 4.624554, "io_full": 4.455051,
    })  # fmt: skip


def test_a_kernel_that_accounts_interrupts_has_a_series_for_them() -> None:
    found = readings(Pressure(host=fixed_host("big")).collect())
    assert found[-1][2]["irq_full"] == 5.551234
    assert not [tags for _, tags, _ in found if "irq" in tags]


def test_one_resource_that_cannot_be_read_is_absent(tmp_path: Path) -> None:
    tree = PartOfHost("small", tmp_path, "proc/pressure")
    (tree.path / "proc/pressure/io").unlink()
    tree.write("proc/pressure/memory", "out of order\n")
    found = readings(Pressure(host=tree.host).collect())
    assert {tags[0] for name, tags, _ in found if name == "pressure"} == {"cpu"}
    assert found[-1][2] == {"cpu_some": 6.295063}


def test_a_kernel_without_pressure_accounting_says_so() -> None:
    with pytest.raises(SourceMissing, match="pressure/cpu: no such file"):
        list(Pressure(host=fixed_host("container")).collect())


def test_a_host_whose_files_hold_something_else_says_so(tmp_path: Path) -> None:
    tree = PartOfHost("small", tmp_path, "proc/pressure")
    for resource in ("cpu", "memory", "io"):
        tree.write(f"proc/pressure/{resource}", "\n")
    with pytest.raises(SourceMissing, match="pressure/cpu: no line of averages"):
        list(Pressure(host=tree.host).collect())


@given(st.binary(max_size=100), st.integers(0, len(LINES)))
def test_any_bytes_give_stalls_or_nothing(noise: bytes, cut: int) -> None:
    stalls = parse_pressure(LINES[:cut] + noise + LINES[cut:])
    assert stalls.keys() <= {"some", "full"}
    assert all(isinstance(stall.total, int) for stall in stalls.values())
