from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceMissing
from agent.core.host import Host
from collectors.power_supply import POWER_SUPPLY, POWER_SUPPLY_INFO, PowerSupply, parse_uevent
from tests.collectors.hosts import HostTree, readings
from tests.collectors.part_of_host import fixed_host


def values(collector: PowerSupply) -> dict[str, dict[str, object]]:
    """Values on /metrics without node_power_supply_, by supply."""
    found: dict[str, dict[str, object]] = {}
    for reading in collector.collect():
        if reading.group is POWER_SUPPLY:
            found[reading.tags[0]] = {
                str(field.prom).removeprefix("node_power_supply_"): value
                for field, value in zip(POWER_SUPPLY.fields, reading.values, strict=True)
                if value is not None
            }
    return found


def labels(collector: PowerSupply) -> dict[str, dict[str, str]]:
    return {
        reading.tags[0]: {tag.prom: text for tag, text in zip(reading.group.tags, reading.tags, strict=True) if text}
        for reading in collector.collect()
        if reading.group is POWER_SUPPLY_INFO
    }


def test_a_battery_in_base_units() -> None:
    assert values(PowerSupply(host=fixed_host("big"))) == {
        "ACPSU": {"online": 1},
        "BBU0": {
            "capacity": 81, "cyclecount": 12, "present": 1, "energy_full": 45.07, "energy_full_design": 47.52,
            "energy_watthour": 36.58, "voltage_min_design": 11.4, "voltage_volt": 12.229, "power_watt": 4.83,
            "temp_celsius": 31.4,
        },
    }  # fmt: skip


def test_words_become_labels_and_the_type_has_a_file_of_its_own() -> None:
    assert labels(PowerSupply(host=fixed_host("big"))) == {
        "ACPSU": {"power_supply": "ACPSU", "type": "Mains"},
        "BBU0": {
            "power_supply": "BBU0", "capacity_level": "Normal", "manufacturer": "DEMO", "model_name": "DEMO-01",
            "serial_number": "38109", "status": "Full", "technology": "Li-ion", "type": "Battery",
        },
    }  # fmt: skip


def test_hostile_words_and_numbers(tmp_path: Path) -> None:
    tree = HostTree("container", tmp_path)
    tree.write(
        "sys/class/power_supply/X/uevent",
        b"POWER_SUPPLY_CAPACITY=full\nPOWER_SUPPLY_VOLTAGE_NOW=%s\nPOWER_SUPPLY_ONLINE=1\nnoise\n"
        b'POWER_SUPPLY_MODEL_NAME=A=\xff"\n' % (b"9" * 400),
    )
    (tree.path / "sys/class/power_supply/Y").mkdir()
    assert values(PowerSupply(host=tree.host)) == {"X": {"online": 1}}
    assert labels(PowerSupply(host=tree.host))["X"]["model_name"] == 'A=\ufffd"'


def test_a_host_without_supplies_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="no such file"):
        list(PowerSupply(host=Host(sys_root=str(tmp_path))).collect())
    (tmp_path / "class/power_supply").mkdir(parents=True)
    with pytest.raises(SourceMissing, match="no power supplies"):
        readings(PowerSupply(host=Host(sys_root=str(tmp_path))).collect())


@given(st.binary(max_size=200))
def test_any_bytes_give_properties(noise: bytes) -> None:
    assert parse_uevent(b"POWER_SUPPLY_ONLINE=1\n" + noise)["ONLINE"] is not None
