from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host
from collectors.schedstat import Schedstat, parse_schedstat
from tests.collectors.hosts import FIXTURES, readings
from tests.collectors.part_of_host import PartOfHost, fixed_host

SMALL = (FIXTURES / "small/proc/schedstat").read_bytes()


@pytest.mark.parametrize(
    ("text", "cpus", "why"),
    [
        ("version 15\ncpu0 1 2 3 4 5 6 2500000000 500000000 9\n", {b"0": (2.5, 0.5, 9)}, "nanoseconds become seconds"),
        ("cpu7 0 0 0 0 0 0 1 2 3\ndomain0 ff 1 2 3\n", {b"7": (1e-9, 2e-9, 3)}, "scheduling domains are passed over"),
        ("cpu0 0 0 0 0 0 0 0 0 1\ncpu1 0 0\n", {b"0": (0.0, 0.0, 1)}, "a torn line is passed over"),
    ],
)
def test_a_line_becomes_times(text: str, cpus: dict[bytes, tuple[float, float, int]], why: str) -> None:
    assert parse_schedstat(text.encode()) == cpus, why


@pytest.mark.parametrize(("host", "cpus"), [("small", 2), ("big", 64)])
def test_each_cpu_has_a_row_that_moves_on(tmp_path: Path, host: str, cpus: int) -> None:
    tree = PartOfHost(host, tmp_path, "proc/schedstat")
    schedstat = Schedstat(host=tree.host)
    before = readings(schedstat.collect())
    tree.later()
    after = readings(schedstat.collect())
    assert [tags for _, tags, _ in before] == [(str(cpu),) for cpu in range(cpus)]
    assert all(new[2]["running"] > old[2]["running"] for old, new in zip(before, after, strict=True))  # type: ignore[operator]


def test_garbage_is_a_source_error(tmp_path: Path) -> None:
    (tmp_path / "schedstat").write_text("version 15\ncpu0 not numbers\n")
    with pytest.raises(SourceError, match="no cpu line with nine numbers"):
        list(Schedstat(host=Host(proc_root=str(tmp_path))).collect())


def test_a_kernel_without_the_file_is_told_apart() -> None:
    with pytest.raises(SourceMissing, match="no such file"):
        list(Schedstat(host=fixed_host("container")).collect())


@given(st.binary(max_size=200), st.integers(0, len(SMALL)))
def test_any_bytes_give_numbers_or_a_source_error(noise: bytes, cut: int) -> None:
    try:
        cpus = parse_schedstat(SMALL[:cut] + noise + SMALL[cut:])
    except SourceError:
        return
    assert all(cpu.isdigit() and min(values) >= 0 for cpu, values in cpus.items())
