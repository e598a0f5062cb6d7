from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host
from collectors.softirqs import Softirqs, parse_softirqs
from tests.collectors.hosts import readings
from tests.collectors.part_of_host import PartOfHost, fixed_host

LIVE = Path("/proc/softirqs").read_bytes()


def test_cpus_that_never_served_one_are_left_out() -> None:
    text = b"   CPU0 CPU1 CPU2\n  HI: 0 0 0\n NET_RX: 5 0 7\n"
    assert parse_softirqs(text) == {"HI": {"0": 0, "2": 0}, "NET_RX": {"0": 5, "2": 7}}


def test_a_host_that_could_have_128_cpus_publishes_its_64() -> None:
    found = readings(Softirqs(host=fixed_host("big")).collect())
    assert {tags[0] for _, tags, _ in found} == {str(cpu) for cpu in range(64)}
    assert len(found) == 64 * 10


def test_counters_move_on(tmp_path: Path) -> None:
    tree = PartOfHost("small", tmp_path, "proc/softirqs")
    softirqs = Softirqs(host=tree.host)
    before = {r.tags: r.values[0] for r in softirqs.collect()}
    tree.later()
    after = {r.tags: r.values[0] for r in softirqs.collect()}
    assert before.keys() == after.keys()
    assert after["0", "TIMER"] > before["0", "TIMER"]  # type: ignore[operator]


@pytest.mark.parametrize("text", ["", "nothing\n", " CPU0\nHI: many\n"])
def test_garbage_is_a_source_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "softirqs").write_text(text)
    with pytest.raises(SourceError, match="/proc/softirqs"):
        list(Softirqs(host=Host(proc_root=str(tmp_path))).collect())


def test_a_container_without_the_file_is_told_apart() -> None:
    with pytest.raises(SourceMissing, match="no such file"):
        list(Softirqs(host=fixed_host("container")).collect())


@given(st.binary(max_size=200), st.integers(0, 600))
def test_any_bytes_give_counts_or_a_source_error(noise: bytes, cut: int) -> None:
    try:
        rows = parse_softirqs(LIVE[:cut] + noise + LIVE[cut:])
    except SourceError:
        return
    assert all(isinstance(count, int) for counts in rows.values() for count in counts.values())
