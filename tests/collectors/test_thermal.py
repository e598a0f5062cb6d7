from __future__ import annotations

from pathlib import Path

import pytest

from agent.core.errors import SourceMissing
from collectors.thermal import Thermal
from tests.collectors.hosts import readings
from tests.collectors.part_of_host import PartOfHost, fixed_host


def test_zones_and_cooling_devices_of_the_big_host() -> None:
    assert readings(Thermal(host=fixed_host("big")).collect()) == [
        ("thermal_zone", ("x86_pkg_temp", "0"), {"temp": 61.0}),
        ("thermal_zone", ("x86_pkg_temp", "1"), {"temp": 58.5}),
        ("thermal_zone", ("acpitz", "2"), {"temp": -5.0}),
        ("cooling_device", ("0", "Processor"), {"cur_state": 0, "max_state": 10}),
        ("cooling_device", ("1", "Processor"), {"cur_state": 2, "max_state": 10}),
        ("cooling_device", ("2", "intel_powerclamp"), {"cur_state": -1, "max_state": 50}),
    ]


@pytest.mark.parametrize("text", ["", "N/A\n", "1\n2\n", "\xff"])
def test_a_zone_whose_sensor_says_nothing_is_absent_beside_the_others(tmp_path: Path, text: str) -> None:
    tree = PartOfHost("big", tmp_path, "sys/class/thermal", "sys/devices/virtual/thermal")
    tree.write("sys/devices/virtual/thermal/thermal_zone1/temp", text)
    zones = [tags for name, tags, _ in readings(Thermal(host=tree.host).collect()) if name == "thermal_zone"]
    assert zones == [("x86_pkg_temp", "0"), ("acpitz", "2")]


def test_zones_stand_in_the_order_of_their_numbers_and_keep_hostile_types(tmp_path: Path) -> None:
    tree = PartOfHost("small", tmp_path, "sys/class/thermal", "sys/devices/virtual/thermal")
    for number in (10, 9):
        tree.write(f"sys/class/thermal/thermal_zone{number}/type", f'quo"te\\{number}\n')
        tree.write(f"sys/class/thermal/thermal_zone{number}/temp", "40000\n")
    tree.write("sys/class/thermal/thermal_zone1x/temp", "1\n")
    assert [tags for _, tags, _ in readings(Thermal(host=tree.host).collect())] == [
        ('quo"te\\9', "9"), ('quo"te\\10', "10"),
    ]  # fmt: skip


@pytest.mark.parametrize("host", ["small", "container"])
def test_a_host_without_sensors_says_so(host: str) -> None:
    with pytest.raises(SourceMissing, match="no thermal zone and no cooling device"):
        list(Thermal(host=fixed_host(host)).collect())
