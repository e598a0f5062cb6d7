from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceMissing
from agent.core.host import Host
from collectors.arp import Arp, parse_arp
from tests.collectors.hosts import readings
from tests.collectors.part_of_host import fixed_host


def read(collector: Arp) -> dict[str, int]:
    return {tags[0]: int(values["entries"] or 0) for _, tags, values in readings(collector.collect())}


def test_entries_are_counted_by_device() -> None:
    assert read(Arp(host=fixed_host("big"))) == {"bond0": 26, "docker0": 13}


def test_devices_can_be_left_out() -> None:
    assert read(Arp(device_exclude="^docker", host=fixed_host("big"))) == {"bond0": 26}


def test_an_empty_table_has_no_series_and_a_missing_file_is_told(tmp_path: Path) -> None:
    assert parse_arp(b"IP address       HW type\n") == {}
    with pytest.raises(SourceMissing, match="net/arp: no such file"):
        list(Arp(host=Host(proc_root=str(tmp_path))).collect())


@given(st.binary(max_size=300))
def test_any_bytes_give_counts_by_text(noise: bytes) -> None:
    assert all(count > 0 and name.encode() for name, count in parse_arp(noise).items())


def test_agrees_with_the_kernel_on_this_host() -> None:
    deadline = time.monotonic() + 10
    while sum(map(int, read(Arp()).values())) != len(Path("/proc/net/arp").read_text().splitlines()) - 1:
        assert time.monotonic() < deadline, "the table never agreed"
