from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host
from collectors.interrupts import Interrupts, Line, choose, parse_interrupts
from tests.collectors.hosts import readings
from tests.collectors.part_of_host import PartOfHost, fixed_host

LIVE = Path("/proc/interrupts").read_bytes()


@pytest.mark.parametrize(
    ("row", "line", "why"),
    [
        (" 24:  1  0  IO-APIC   5-edge   ACPI:Ged", Line("24", "IO-APIC", "5-edge ACPI:Ged", [1, 0]),
         "a numbered line has a controller and then its devices"),
        ("LOC: 27 28   Local timer interrupts", Line("LOC", "Local timer interrupts", "", [27, 28]),
         "a named line has only a long name"),
        ("IPI0:123 4  Rescheduling interrupts", Line("IPI0", "Rescheduling interrupts", "", [123, 4]),
         "ARM leaves no blank behind the colon"),
        (" 9: 1 2  GIC \xff", Line("9", "GIC", "�", [1, 2]), "bytes that are no text are replaced"),
    ],
)  # fmt: skip
def test_a_row_becomes_a_line(row: str, line: Line, why: str) -> None:
    assert parse_interrupts(b"  CPU0  CPU1\n" + row.encode("latin-1") + b"\n") == (["0", "1"], [line]), why


def test_rows_that_are_not_counted_for_each_cpu_are_left_out() -> None:
    assert parse_interrupts(b" CPU0 CPU1\nERR: 0\nMIS: 0\nPIN: 1 2\n\nno colon\n") == (["0", "1"], [])


def test_cpus_keep_their_numbers_when_one_between_them_is_offline() -> None:
    assert parse_interrupts(b" CPU0 CPU2\nLOC: 1 2 x\n")[0] == ["0", "2"]


def test_every_cell_of_a_small_host_is_published() -> None:
    found = readings(Interrupts(host=fixed_host("small")).collect())
    assert len(found) == 20
    assert ("interrupts", ("1", "1-edge virtio0-input.0", "PCI-MSIX-0000:00:01.0", "29"), {"count": 249}) in found
    assert ("interrupts", ("0", "", "Non-maskable interrupts", "NMI"), {"count": 0}) in found


def test_a_host_with_too_many_cells_loses_those_that_are_zero(tmp_path: Path) -> None:
    tree = PartOfHost("big", tmp_path, "proc/interrupts")
    every = readings(Interrupts(host=tree.host, max_series=100_000).collect())
    some = readings(Interrupts(host=tree.host).collect())
    assert len(every) == 57 * 64
    assert some == [row for row in every if row[2]["count"]]


def test_then_the_rarest_interrupts_go_and_what_was_kept_stays() -> None:
    lines = [Line("A", "", "", [5, 5]), Line("B", "", "", [9, 0]), Line("C", "", "", [1, 1]), Line("D", "", "", [0, 0])]
    kept = choose(lines, 3, set())
    assert kept == {"A", "B", "D"}
    lines[2] = Line("C", "", "", [50, 50])
    assert choose(lines, 3, kept) == kept
    assert choose(lines, 5, kept) == {"A", "B", "C", "D"}


@pytest.mark.parametrize(("limit", "most"), [(1, 1), (70, 70), (200, 200)])
def test_the_bound_holds(limit: int, most: int) -> None:
    found = list(Interrupts(host=fixed_host("big"), max_series=limit).collect())
    assert 0 < len(found) <= most


def test_a_row_named_twice_counts_once(tmp_path: Path) -> None:
    (tmp_path / "interrupts").write_text(" CPU0\nLOC: 1 timer\nLOC: 2 timer\n")
    assert [r.values for r in Interrupts(host=Host(proc_root=str(tmp_path))).collect()] == [(2,)]


@pytest.mark.parametrize("text", ["", "nothing here\n", " CPU0 CPU1\nLOC: 1 many timer\n"])
def test_garbage_is_a_source_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "interrupts").write_text(text)
    with pytest.raises(SourceError, match="/proc/interrupts"):
        list(Interrupts(host=Host(proc_root=str(tmp_path))).collect())


def test_a_container_without_the_file_is_told_apart() -> None:
    with pytest.raises(SourceMissing, match="no such file"):
        list(Interrupts(host=fixed_host("container")).collect())


@given(st.binary(max_size=200), st.integers(0, 4000))
def test_any_bytes_give_lines_or_a_source_error(noise: bytes, cut: int) -> None:
    try:
        cpus, lines = parse_interrupts(LIVE[:cut] + noise + LIVE[cut:])
    except SourceError:
        return
    assert all(len(line.counts) == len(cpus) for line in lines)
