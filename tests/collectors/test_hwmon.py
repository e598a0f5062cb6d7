from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceMissing
from agent.core.host import Host
from collectors.hwmon import Hwmon, clean, metric_of, split_file
from tests.collectors.hosts import HostTree
from tests.collectors.part_of_host import fixed_host


def metrics(collector: Hwmon) -> dict[tuple[str, ...], float]:
    """Values on /metrics by name and label values."""
    found: dict[tuple[str, ...], float] = {}
    for reading in collector.collect():
        for field, value in zip(reading.group.fields, reading.values, strict=True):
            if field.prom and value is not None:
                found[field.prom.removeprefix("node_hwmon_"), *reading.tags] = float(value)
    return found


def temperatures(collector: Hwmon) -> dict[str, object]:
    return {item.tags[0]: item.values[0] for item in collector.collect() if item.group.measurement == "temp"}


def chip(tree: HostTree, files: dict[str, str | bytes], number: int = 0) -> None:
    """A chip that has no device, as virtual ones have none."""
    for name, content in files.items():
        tree.write(f"sys/class/hwmon/hwmon{number}/{name}", content)


@pytest.mark.parametrize(
    ("series", "value", "why"),
    [
        (("temp_celsius", "platform_coretemp_0", "temp2"), 50.0, "millidegrees"),
        (("temp_crit_alarm_celsius", "platform_coretemp_0", "temp3"), 0.001, "every attribute but some gets the unit"),
        (("temp_alarm", "nvme_nvme0", "temp1"), 0, "an alarm has no unit"),
        (("temp_min_celsius", "nvme_nvme0", "temp1"), -273.15, "below zero"),
        (("temp_type", "platform_nct6775_656", "temp1"), 3, "a kind of sensor is no temperature"),
        (("fan_rpm", "platform_nct6775_656", "fan1"), 1180, "revolutions per minute"),
        (("fan_target_rpm", "platform_nct6775_656", "fan2"), 900, "revolutions per minute"),
        (("fan_pulses", "platform_nct6775_656", "fan1"), 2, "another attribute of a fan is as it is"),
        (("in_volts", "platform_nct6775_656", "in0"), 1.088, "millivolts"),
        (("in_beep_enabled", "platform_nct6775_656", "in0"), 0, "beep"),
        (("beep_enabled", "platform_nct6775_656", "beep_enable0"), 1, "of the whole chip"),
        (("pwm", "platform_nct6775_656", "pwm1"), 128, "a file without an attribute"),
        (("pwm_enable", "platform_nct6775_656", "pwm1"), 5, "and its neighbour"),
        (("intrusion_alarm", "platform_nct6775_656", "intrusion0"), 1, "begins like a voltage"),
        (("curr_amps", "platform_nct6775_656", "curr1"), 1.5, "milliamperes"),
        (("power_average_watt", "lnxsystm:00_acpi000d:00", "power1"), 412, "microwatts"),
        (("power_average_interval_seconds", "lnxsystm:00_acpi000d:00", "power1"), 1, "milliseconds"),
        (("energy_joule_total", "lnxsystm:00_acpi000d:00", "energy1"), 987.654321, "microjoules"),
        (("humidity", "lnxsystm:00_acpi000d:00", "humidity1"), 0.0405, "a ratio"),
        (("chip_names", "platform_nct6775_656", "nct6798"), 1, "the name for people"),
        (("sensor_label", "platform_coretemp_1", "Package id 1", "temp1"), 1, "the label for people"),
    ],
)
def test_metrics_are_named_as_node_exporter_names_them(series: tuple[str, ...], value: float, why: str) -> None:
    assert metrics(Hwmon(host=fixed_host("big")))[series] == pytest.approx(value), why


def test_energy_is_a_counter_and_the_rest_are_gauges(tmp_path: Path) -> None:
    tree = HostTree("small", tmp_path)
    chip(tree, {"energy1_input": "5\n", "energy1_total": "6\n", "temp1_input": "7\n", "pwm1": "8\n"})
    kinds = {
        (field.prom, field.kind)
        for reading in Hwmon(host=tree.host).collect()
        for field, value in zip(reading.group.fields, reading.values, strict=True)
        if value is not None and field.prom
    }
    assert kinds == {
        ("node_hwmon_energy_joule_total", "counter"), ("node_hwmon_energy_total_joule_total", "counter"),
        ("node_hwmon_temp_celsius", "gauge"), ("node_hwmon_pwm", "gauge"),
    }  # fmt: skip


def test_temperatures_are_tagged_as_telegraf_tags_them() -> None:
    assert temperatures(Hwmon(host=fixed_host("big"))) == {
        "coretemp_package_id_0": 52.0, "coretemp_package_id_1": 53.0, "coretemp_core_0": 50.0, "coretemp_core_1": 50.5,
        "nvme_composite": 38.85, "nct6798_systin": 41.0,
    }  # fmt: skip


def test_thermal_zones_stand_in_where_there_are_no_sensors(tmp_path: Path) -> None:
    tree = HostTree("container", tmp_path)
    tree.write("sys/class/thermal/thermal_zone0/type", "x86_pkg_temp\n")
    tree.write("sys/class/thermal/thermal_zone0/temp", "47500\n")
    tree.write("sys/class/thermal/thermal_zone1/type", "broken\n")
    assert temperatures(Hwmon(host=tree.host)) == {"x86_pkg_temp": 47.5}


def test_a_chip_without_a_device_goes_by_its_name_and_then_by_its_number(tmp_path: Path) -> None:
    tree = HostTree("container", tmp_path)
    chip(tree, {"name": "Virtual Chip\n", "temp1_input": "1000\n"}, number=0)
    chip(tree, {"name": "\n", "temp1_input": "2000\n"}, number=7)
    found = metrics(Hwmon(host=tree.host))
    assert found["temp_celsius", "virtual_chip", "temp1"] == 1.0
    assert found["temp_celsius", "hwmon7", "temp1"] == 2.0


def test_drivers_of_old_kernels_have_their_files_in_the_device(tmp_path: Path) -> None:
    tree = HostTree("container", tmp_path)
    tree.write("sys/devices/platform/old.1/temp1_input", "3000\n")
    chip(tree, {"name": "old\n"})
    (tree.path / "sys/class/hwmon/hwmon0/device").symlink_to("../../../devices/platform/old.1")
    assert metrics(Hwmon(host=tree.host))["temp_celsius", "platform_old_1", "temp1"] == 3.0


def test_words_rubbish_and_unreadable_sensors_are_absent(tmp_path: Path) -> None:
    tree = HostTree("container", tmp_path)
    chip(tree, {"name": "x\n", "temp1_input": "nan\n", "temp2_input": "n/a\n", "temp3_input": "",
                "temp4_input": "4000\n", "temp4_label": b'A\xff"\n', "temp99999999999_input": "1e300\n"})  # fmt: skip
    (tree.path / "sys/class/hwmon/hwmon0/temp5_input").mkdir()
    found = metrics(Hwmon(host=tree.host))
    assert {key: value for key, value in found.items() if key[0] == "temp_celsius"} == {
        ("temp_celsius", "x", "temp4"): 4.0
    }
    assert ("sensor_label", "x", 'A\ufffd"', "temp4") in found


def test_a_host_without_sensors_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="class/hwmon: no sensors"):
        list(Hwmon(host=Host(sys_root=str(tmp_path))).collect())


@given(st.text(max_size=30).map(lambda text: f"temp1_{text}") | st.text(max_size=30))
def test_any_file_name_gives_a_metric_name_or_nothing(name: str) -> None:
    split = split_file(name)
    if split is not None:
        metric, divisor = metric_of(split[0], split[2], has_plain=False)
        assert clean(metric) == metric.strip("_")
        assert divisor >= 1
