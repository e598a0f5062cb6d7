from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceError, SourceMissing
from collectors.conntrack import Conntrack, parse_conntrack_stat
from tests.collectors.hosts import HostTree, readings
from tests.collectors.part_of_host import fixed_host


def test_counts_are_floats_as_telegraf_writes_them() -> None:
    counts, _ = readings(Conntrack(host=fixed_host("small")).collect())
    assert counts == (
        "conntrack", (), {"ip_conntrack_count": 57.0, "ip_conntrack_max": 65536.0, "ip_conntrack_buckets": 16384.0}
    )  # fmt: skip
    assert list(map(type, counts[2].values())) == [float] * 3


def test_counters_of_all_cpus_are_added_up() -> None:
    _, (_, _, stat) = readings(Conntrack(host=fixed_host("small")).collect())
    assert stat == {
        "found": 5, "invalid": 1, "ignore": 0, "insert": 0, "insert_failed": 1, "drop": 0, "early_drop": 2,
        "search_restart": 4,
    }  # fmt: skip


def test_numbers_are_hexadecimal_and_columns_go_by_the_header() -> None:
    text = b"entries  searched found\n0000000a 00000000 00000010\n0000000a 00000001 00000001\n"
    assert parse_conntrack_stat(text) == {"entries": 20, "searched": 1, "found": 17}


def test_changes_are_read_and_an_unreadable_part_is_absent(tmp_path: Path) -> None:
    tree = HostTree("small", tmp_path)
    (tree.path / "proc/net/stat/nf_conntrack").unlink()
    (tree.path / "proc/sys/net/netfilter/nf_conntrack_buckets").unlink()
    collector = Conntrack(host=tree.host)
    list(collector.collect())
    tree.write("proc/sys/net/netfilter/nf_conntrack_count", "58\n")
    assert readings(collector.collect()) == [
        ("conntrack", (), {"ip_conntrack_count": 58.0, "ip_conntrack_max": 65536.0})
    ]
    collector.close()


def test_a_kernel_without_the_module_is_told_apart_from_garbage(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="nf_conntrack_count: no such file"):
        list(Conntrack(host=fixed_host("container")).collect())
    tree = HostTree("small", tmp_path)
    tree.write("proc/sys/net/netfilter/nf_conntrack_count", "many\n")
    with pytest.raises(SourceError, match="is not a number"):
        list(Conntrack(host=tree.host).collect())


@given(st.binary(max_size=100), st.integers(0, 400))
def test_any_bytes_give_sums_or_a_source_error(noise: bytes, cut: int) -> None:
    text = (Path(__file__).parent.parent / "fixtures/hosts/small/proc/net/stat/nf_conntrack").read_bytes()
    try:
        total = parse_conntrack_stat(text[:cut] + noise + text[cut:])
    except SourceError:
        return
    assert all(isinstance(value, int) for value in total.values())
