from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host
from collectors.kernel import Kernel, parse_stat
from tests.collectors.hosts import readings
from tests.collectors.part_of_host import fixed_host

LIVE = Path("/proc/stat").read_bytes()


def test_counters_of_the_small_host() -> None:
    kernel, *softirqs = readings(Kernel(host=fixed_host("small")).collect())
    assert kernel == ("kernel", (), {
        "boot_time": 1767225600, "context_switches": 4531800123, "interrupts": 342, "processes_forked": 98123,
        "procs_running": 2, "procs_blocked": 0, "entropy_avail": 256, "entropy_pool_size": 256,
            "hung_tasks": 0,
    })  # fmt: skip
    assert [(tags[0], values["calls"]) for _, tags, values in softirqs] == [
        ("hi", 0), ("timer", 20978), ("net_tx", 12), ("net_rx", 7720), ("block", 76471),
        ("block_iopoll", 0), ("tasklet", 54), ("sched", 38089), ("hrtimer", 0), ("rcu", 32963),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "present", "why"),
    [
        ("page 5741 1808", {"disk_pages_in": 5741, "disk_pages_out": 1808}, "a kernel with a page line has disk pages"),
        ("intr 5 1 2 2", {"interrupts": 5}, "the first column of intr is the total"),
        ("btime 7\n", {"boot_time": 7}, "what the kernel does not tell is absent and not zero"),
    ],
)
def test_a_line_becomes_its_fields(tmp_path: Path, line: str, present: dict[str, int], why: str) -> None:
    (tmp_path / "stat").write_text(f"cpu 1 2 3 4\n{line}\n")
    assert readings(Kernel(host=Host(proc_root=str(tmp_path))).collect()) == [("kernel", (), present)], why


def test_same_page_merging_is_off_until_asked_for() -> None:
    host = fixed_host("small")
    assert len([name for name, *_ in readings(Kernel(host=host).collect()) if name == "kernel"]) == 1
    *_, (name, _, ksm) = readings(Kernel(host=host, ksm=True).collect())
    assert name == "kernel"
    assert (ksm["full_scans"], ksm["sleep_millisecs"], ksm["general_profit"]) == (12, 20, -2048)


def test_a_kernel_without_same_page_merging_has_no_point_for_it() -> None:
    found = readings(Kernel(host=fixed_host("container"), ksm=True).collect())
    assert [name for name, *_ in found].count("kernel") == 1


@pytest.mark.parametrize("text", ["", "cpu 1 2 3\n", "ctxt many\n", "ctxt " + "9" * 5000])
def test_garbage_is_a_source_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "stat").write_text(text)
    with pytest.raises(SourceError, match="/proc/stat"):
        list(Kernel(host=Host(proc_root=str(tmp_path))).collect())


def test_a_host_without_the_file_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="no such file"):
        list(Kernel(host=Host(proc_root=str(tmp_path))).collect())


@given(st.binary(max_size=200), st.integers(0, 3000))
def test_any_bytes_give_numbers_or_a_source_error(noise: bytes, cut: int) -> None:
    try:
        lines = parse_stat(LIVE[:cut] + noise + LIVE[cut:])
    except SourceError:
        return
    assert all(isinstance(number, int) for line in lines.values() for number in line)


def test_agrees_with_psutil_on_this_host() -> None:
    before, mine, after = psutil.cpu_stats(), next(iter(Kernel().collect())).as_dict(), psutil.cpu_stats()
    assert before.ctx_switches <= int(mine["context_switches"] or 0) <= after.ctx_switches
    assert before.interrupts <= int(mine["interrupts"] or 0) <= after.interrupts
    assert mine["boot_time"] == int(psutil.boot_time())
