from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host
from collectors.sockstat import SOCKSTAT, SockStat, parse_sockstat
from tests.collectors.hosts import HostTree, readings
from tests.collectors.part_of_host import fixed_host


def test_both_families_and_bytes_beside_pages() -> None:
    ((_, _, values),) = readings(SockStat(host=fixed_host("small")).collect())
    assert values["sockets_used"] == 141
    assert values["TCP_alloc"] == 11
    assert values["TCP_mem"] == 3
    assert values["TCP_mem_bytes"] == 3 * os.sysconf("SC_PAGE_SIZE")
    assert values["RAW6_inuse"] == 1
    assert set(values) == set(SOCKSTAT.names)


def test_without_ipv6_its_sockets_are_absent_and_not_zero() -> None:
    ((_, _, values),) = readings(SockStat(host=fixed_host("container")).collect())
    assert values["TCP_inuse"] == 1
    assert not any("6" in name for name in values)


def test_changes_are_read_through_the_kept_descriptor(tmp_path: Path) -> None:
    tree = HostTree("small", tmp_path)
    collector = SockStat(host=tree.host)
    list(collector.collect())
    tree.write("proc/net/sockstat", "sockets: used 142\n")
    assert readings(collector.collect())[0][2]["sockets_used"] == 142
    collector.close()


def test_garbage_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="pairs of a name and a number"):
        parse_sockstat(b"TCP: inuse many\n")
    with pytest.raises(SourceMissing, match="no such file"):
        list(SockStat(host=Host(proc_root=str(tmp_path))).collect())


@given(st.binary(max_size=100), st.integers(0, 300))
def test_any_bytes_give_numbers_or_a_source_error(noise: bytes, cut: int) -> None:
    text = Path("/proc/net/sockstat").read_bytes()
    try:
        counts = parse_sockstat(text[:cut] + noise + text[cut:])
    except SourceError:
        return
    assert all(isinstance(count, int) for count in counts.values())
