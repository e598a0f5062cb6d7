from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host
from collectors.vmstat import Vmstat, parse_vmstat
from tests.collectors.hosts import readings
from tests.collectors.part_of_host import PartOfHost, fixed_host

LIVE = Path("/proc/vmstat").read_bytes()


@pytest.mark.parametrize(
    ("key", "metric"),
    [
        ("pgfault", "node_vmstat_pgfault"),
        ("pgmajfault", "node_vmstat_pgmajfault"),
        ("pgpgin", "node_vmstat_pgpgin"),
        ("pswpout", "node_vmstat_pswpout"),
        ("oom_kill", "node_vmstat_oom_kill"),
        ("thp_fault_alloc", None),
        ("nr_dirty", None),
    ],
)
def test_every_line_goes_to_influx_and_a_few_to_metrics(key: str, metric: str | None) -> None:
    (reading,) = Vmstat(host=fixed_host("small")).collect()
    field = next(field for field in reading.group.fields if field.name == key)
    assert (field.influx, field.prom, field.kind, field.type) == (key, metric, "untyped", int)


def test_values_stand_in_the_order_of_their_names(tmp_path: Path) -> None:
    tree = PartOfHost("small", tmp_path, "proc/vmstat")
    expected = {key: int(value) for key, value in (line.split() for line in
                (tree.path / "proc/vmstat").read_text().splitlines())}  # fmt: skip
    assert readings(Vmstat(host=tree.host).collect()) == [("kernel_vmstat", (), expected)]


def test_the_same_lines_give_the_same_group_and_new_lines_another(tmp_path: Path) -> None:
    tree = PartOfHost("small", tmp_path, "proc/vmstat")
    vmstat = Vmstat(host=tree.host)
    (first,) = vmstat.collect()
    tree.later()
    (second,) = vmstat.collect()
    assert second.group is first.group
    assert second.as_dict()["pgpgin"] == 1602637 + 128
    tree.write("proc/vmstat", "pgpgin 1\nnew_counter 2\n")
    (third,) = vmstat.collect()
    assert third.as_dict() == {"pgpgin": 1, "new_counter": 2}


def test_names_that_cannot_be_published_are_left_out() -> None:
    assert parse_vmstat(b"pgpgin 1\n9lives 9\nbad-name 2\n\xff 3\npgpgin 4\n") == {b"pgpgin": 4}


@pytest.mark.parametrize("text", ["", "pgpgin many\n", "pgpgin 1 pgpgout\n", "bad-name 2\n"])
def test_garbage_is_a_source_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "vmstat").write_text(text)
    with pytest.raises(SourceError, match="/proc/vmstat"):
        list(Vmstat(host=Host(proc_root=str(tmp_path))).collect())


def test_a_host_without_the_file_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="no such file"):
        list(Vmstat(host=Host(proc_root=str(tmp_path))).collect())


@given(st.binary(max_size=200), st.integers(0, 4000))
def test_any_bytes_give_counters_or_a_source_error(noise: bytes, cut: int) -> None:
    try:
        counters = parse_vmstat(LIVE[:cut] + noise + LIVE[cut:])
    except SourceError:
        return
    assert all(name.decode().isidentifier() and isinstance(value, int) for name, value in counters.items())
