from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceMissing
from agent.core.host import Host
from collectors.cpufreq import Cpufreq, parse_cpu_list, parse_cpuinfo
from tests.collectors.hosts import readings
from tests.collectors.part_of_host import PartOfHost, fixed_host

CPU = "sys/devices/system/cpu"
BIG = fixed_host("big")


@pytest.fixture
def tree(tmp_path: Path) -> PartOfHost:
    """Two CPUs of the big host, one of each package."""
    return PartOfHost("big", tmp_path, f"{CPU}/online", f"{CPU}/cpufreq", f"{CPU}/cpu0", f"{CPU}/cpu16")


def of(host: Host, measurement: str) -> list[tuple[tuple[str, ...], dict[str, object]]]:
    found = readings(Cpufreq(host=host, info=True).collect())
    return [(tags, dict(values)) for name, tags, values in found if name == measurement]


def test_kilohertz_become_hertz_for_every_cpu_in_order() -> None:
    rows = of(BIG, "cpu_frequency")
    assert [tags[0] for tags, _ in rows] == [str(cpu) for cpu in range(64)]
    assert rows[16][1] == {
        "scaling_cur_freq": 2800213000.0, "scaling_min_freq": 800000000.0, "scaling_max_freq": 3500000000.0,
        "cpuinfo_min_freq": 800000000.0, "cpuinfo_max_freq": 3500000000.0,
    }  # fmt: skip


def test_a_frequency_the_driver_does_not_know_is_absent(tree: PartOfHost) -> None:
    tree.write(f"{CPU}/cpufreq/policy0/scaling_cur_freq", "<unknown>\n")
    assert "scaling_cur_freq" not in of(tree.host, "cpu_frequency")[0][1]
    assert "scaling_cur_freq" in of(tree.host, "cpu_frequency")[1][1]


def test_governors_are_told_by_a_one() -> None:
    governors = {tags[1]: values["active"] for tags, values in of(BIG, "cpu_governor") if tags[0] == "63"}
    assert governors == {"conservative": 0, "ondemand": 0, "performance": 0, "schedutil": 1}


def test_a_governor_that_is_not_listed_is_told_as_well(tree: PartOfHost) -> None:
    (tree.path / CPU / "cpufreq/policy0/scaling_available_governors").unlink()
    assert of(tree.host, "cpu_governor")[0] == (("0", "schedutil"), {"active": 1})


def test_throttles_are_told_once_a_core_and_once_a_package() -> None:
    cores = of(BIG, "cpu_core_throttles")
    assert len(cores) == 32
    assert [tags for tags, values in cores if values["count"]] == [("5", "0")]
    assert of(BIG, "cpu_package_throttles") == [(("0",), {"count": 7}), (("1",), {"count": 0})]


def test_a_cpu_whose_package_is_unknown_has_no_throttles(tree: PartOfHost) -> None:
    for cpu in (0, 16):
        tree.write(f"{CPU}/cpu{cpu}/topology/physical_package_id", "-1\n")
    assert of(tree.host, "cpu_core_throttles") == of(tree.host, "cpu_package_throttles") == []


def test_isolated_cpus_are_listed() -> None:
    assert of(BIG, "cpu_isolated") == [(("62",), {"isolated": 1}), (("63",), {"isolated": 1})]


def test_make_and_model_are_off_until_asked_for() -> None:
    assert "cpu_info" not in {name for name, *_ in readings(Cpufreq(host=BIG).collect())}
    rows = of(BIG, "cpu_info")
    assert len(rows) == 64
    assert rows[17][0] == (
        "36864 KB", "1", "17", "6", "0xd0003d1", "106", "Example Server CPU Gold 6400 @ 2.80GHz", "1", "6",
        "GenuineIntel",
    )  # fmt: skip


def test_a_cpu_that_comes_is_found(tree: PartOfHost) -> None:
    cpufreq = Cpufreq(host=tree.host)
    list(cpufreq.collect())
    tree.write(f"{CPU}/cpu64/cpufreq/scaling_cur_freq", "1000\n")
    tree.write(f"{CPU}/online", "0-64\n")
    last = [row for row in readings(cpufreq.collect()) if row[0] == "cpu_frequency"][-1]
    assert last == ("cpu_frequency", ("64",), {"scaling_cur_freq": 1e6})


@pytest.mark.parametrize("host", ["small", "container"])
def test_a_host_that_leaves_frequencies_to_its_hypervisor_says_so(host: str) -> None:
    with pytest.raises(SourceMissing, match="no frequency scaling"):
        list(Cpufreq(host=fixed_host(host)).collect())


def test_processors_of_a_machine_that_tells_little_have_empty_labels() -> None:
    (tags,) = parse_cpuinfo(b"processor\t: 3\nBogoMIPS\t: 243.75\n\nHardware\t: Example\n")
    assert [tag for tag in tags if tag] == ["3"]


def test_a_host_without_cpuinfo_has_no_make(tmp_path: Path) -> None:
    host = Host(proc_root=str(tmp_path), sys_root=BIG.sys_root)
    assert "cpu_info" not in {name for name, *_ in readings(Cpufreq(host=host, info=True).collect())}


@given(st.binary(max_size=120))
def test_any_bytes_give_cpus_or_nothing(noise: bytes) -> None:
    assert all(cpu.isdigit() for cpu in parse_cpu_list(noise))
    assert all(len(tags) == 10 for tags in parse_cpuinfo(noise))
