from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host
from collectors.softnet import SOFTNET, SoftNet, parse_softnet
from tests.collectors.hosts import readings
from tests.collectors.part_of_host import PartOfHost, fixed_host


def test_columns_are_read_by_position_and_cpus_by_their_column() -> None:
    line = " ".join(f"{number:08x}" for number in [0xA0, 1, 2, 0, 0, 0, 0, 0, 8, 9, 10, 11, 7, 13, 14])
    assert parse_softnet(line.encode()) == {"7": (0xA0, 1, 2, 8, 9, 10, 11)}


def test_an_old_kernel_has_fewer_columns_and_cpus_in_order() -> None:
    first, second = readings(SoftNet(host=fixed_host("container")).collect())
    assert (first[1], second[1]) == (("0",), ("1",))
    assert second[2]["processed"] == 2000
    assert "backlog_len" not in second[2]


def test_every_cpu_of_a_big_host_is_there_and_grows(tmp_path: Path) -> None:
    tree = PartOfHost("big", tmp_path, "proc/net/softnet_stat")
    collector = SoftNet(host=tree.host)
    before = readings(collector.collect())
    tree.later()
    after = readings(collector.collect())
    assert [tags for _, tags, _ in before] == [(str(cpu),) for cpu in range(64)]
    assert after[63][2]["processed"] == before[63][2]["processed"] + 50  # type: ignore[operator]


def test_garbage_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="hexadecimal"):
        parse_softnet(b"no numbers here\n")
    with pytest.raises(SourceMissing, match="no such file"):
        list(SoftNet(host=Host(proc_root=str(tmp_path))).collect())


@given(st.binary(max_size=200), st.integers(0, 300))
def test_any_bytes_give_rows_or_a_source_error(noise: bytes, cut: int) -> None:
    text = Path("/proc/net/softnet_stat").read_bytes()
    try:
        cpus = parse_softnet(text[:cut] + noise + text[cut:])
    except SourceError:
        return
    assert all(len(values) == len(SOFTNET.fields) for values in cpus.values())
