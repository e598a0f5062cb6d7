from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host
from collectors.memory import MEM, Memory, parse_meminfo
from tests.collectors.hosts import HostTree, readings

KIB = 1024


@pytest.mark.parametrize(
    ("line", "name", "value", "why"),
    [
        (
            "Active(anon):  1520 kB",
            "Active_anon_bytes",
            1520 * KIB,
            "parentheses become an underscore, kB becomes bytes",
        ),
        ("HugePages_Total:   3", "HugePages_Total", 3, "a line without kB is a count"),
        ("DirectMap4k:   12 kB", "DirectMap4k_bytes", 12 * KIB, "digits in names stay"),
    ],
)
def test_a_line_is_named_as_node_exporter_names_it(line: str, name: str, value: int, why: str) -> None:
    assert parse_meminfo(f"MemTotal: 1 kB\n{line}\n".encode())[name] == value, why


def test_cached_includes_what_telegraf_includes() -> None:
    memory = memory_of("MemTotal: 100 kB\nMemFree: 10 kB\nMemAvailable: 40 kB\nCached: 20 kB\nSReclaimable: 5 kB\n")
    mem, meminfo = memory
    assert mem["cached"] == 25 * KIB
    assert meminfo["Cached_bytes"] == 20 * KIB
    assert mem["used"] == 60 * KIB
    assert mem["used_percent"] == pytest.approx(60.0)


def test_a_kernel_without_memavailable_gets_an_estimate() -> None:
    mem, _ = memory_of("MemTotal: 100 kB\nMemFree: 10 kB\nBuffers: 5 kB\nCached: 20 kB\n")
    assert mem["available_percent"] == pytest.approx(35.0)


def test_lines_the_kernel_lacks_are_absent_and_not_zero() -> None:
    mem, _ = memory_of("MemTotal: 100 kB\nMemFree: 10 kB\n")
    assert "Dirty_bytes" not in mem


def test_garbage_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("no memory here\n")
    with pytest.raises(SourceError, match="/proc/meminfo: no MemTotal line"):
        list(Memory(host=Host(proc_root=str(tmp_path))).collect())


def test_a_host_without_the_file_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="no such file"):
        list(Memory(host=Host(proc_root=str(tmp_path))).collect())


@given(st.binary(max_size=400), st.integers(0, 2000))
def test_any_bytes_give_numbers_or_a_source_error(noise: bytes, cut: int) -> None:
    text = Path("/proc/meminfo").read_bytes()
    try:
        info = parse_meminfo(text[:cut] + noise + text[cut:])
    except SourceError:
        return
    assert all(isinstance(value, int) for value in info.values())


def test_agrees_with_psutil_on_this_host() -> None:
    mem = next(iter(Memory().collect())).as_dict()
    oracle = psutil.virtual_memory()
    assert mem["MemTotal_bytes"] == oracle.total
    assert mem["available_percent"] == pytest.approx(100 * oracle.available / oracle.total, abs=2)


def test_reads_changes_through_the_kept_descriptor(tmp_path: Path) -> None:
    tree = HostTree("small", tmp_path)
    memory = Memory(host=tree.host)
    list(memory.collect())
    tree.write("proc/meminfo", "MemTotal: 8 kB\nMemAvailable: 2 kB\n")
    assert readings(memory.collect())[0][2]["used_percent"] == pytest.approx(75.0)


def test_every_shared_line_is_read_by_its_position() -> None:
    shared = [name for name in MEM.names if name[0].isupper()]
    lines = {name: f"{name.removesuffix('_bytes')}: {at}{' kB' * name.endswith('_bytes')}\n"
             for at, name in enumerate(shared, 1)}  # fmt: skip
    mem, _ = memory_of("".join(lines.values()))
    assert {name: mem[name] for name in shared} == {
        name: at * (KIB if name.endswith("_bytes") else 1) for at, name in enumerate(shared, 1)
    }


def test_huge_pages_are_counted_in_pages_under_both_names() -> None:
    mem, meminfo = memory_of("MemTotal: 100 kB\nHugePages_Total:   8\nHugePages_Free:   3\nHugePages_Rsvd:   1\n")
    names = {field.influx: field.prom for field in MEM.fields if field.influx and field.influx.startswith("huge_pages")}
    assert names == {"huge_pages_total": "node_memory_HugePages_Total", "huge_pages_free": "node_memory_HugePages_Free"}
    assert (mem["HugePages_Total"], mem["HugePages_Free"]) == (8, 3)
    assert meminfo["HugePages_Rsvd"] == 1
    assert "HugePages_Total" not in meminfo


def memory_of(meminfo: str) -> tuple[dict[str, object], dict[str, object]]:
    class Fixed:
        def read(self) -> bytes:
            return meminfo.encode()

    memory = Memory()
    memory._file = Fixed()  # type: ignore[assignment]
    first, second = (reading.as_dict() for reading in memory.collect())
    return first, second
