"""Batteries and mains adapters, from the uevent file of each of /sys/class/power_supply.

One read of `uevent` gives every property the driver knows; the kernel leaves out those it cannot tell now.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from agent.core.host import Host
from agent.core.model import Field, Group, Reading, gauge
from agent.core.options import option
from agent.core.units import Seconds
from collectors.sysfs import as_text, list_some, parse_int, read_attribute, read_text


def _as_is(key: str, help: str, name: str = "", unit: str = "value") -> tuple[str, int, Field]:
    field = gauge(name or key, unit, help, type=int, prom=f"node_power_supply_{name or key}")
    return key.upper(), 1, field


def _micro(key: str, unit: str, help: str, name: str = "") -> tuple[str, int, Field]:
    return key.upper(), 1_000_000, gauge(name or key, unit, help, type=float, prom=f"node_power_supply_{name or key}")


def _tenth_degree(key: str, help: str) -> tuple[str, int, Field]:
    return key.upper(), 10, gauge(key, "celsius", help, prom=f"node_power_supply_{key}_celsius")


# The property of the kernel, by what it is divided, and what it is published as.
_PROPERTIES = (
    _as_is("authentic", "1 when the battery is genuine.", unit="bool"),
    _as_is("calibrate", "1 while the battery is calibrated.", unit="bool"),
    _as_is("capacity", "Charge in percent.", unit="percent"),
    _as_is("capacity_alert_max", "Charge in percent above which the driver warns.", unit="percent"),
    _as_is("capacity_alert_min", "Charge in percent below which the driver warns.", unit="percent"),
    _as_is("cycle_count", "Times the battery was charged and discharged.", "cyclecount", unit="count"),
    _as_is("online", "1 when the supply gives power.", unit="bool"),
    _as_is("present", "1 when the battery is there.", unit="bool"),
    _as_is("time_to_empty_now", "Seconds until the battery is empty.", "time_to_empty_seconds", unit="seconds"),
    _as_is("time_to_full_now", "Seconds until the battery is full.", "time_to_full_seconds", unit="seconds"),
    _micro("current_boot", "amperes", "Current at boot."),
    _micro("current_max", "amperes", "Largest current the supply can give."),
    _micro("current_now", "amperes", "Current now.", "current_ampere"),
    _micro("energy_empty", "value", "Energy in watt-hours at which the battery counts as empty."),
    _micro("energy_empty_design", "value", "Energy in watt-hours of an empty battery by design."),
    _micro("energy_full", "value", "Energy in watt-hours the battery holds when full."),
    _micro("energy_full_design", "value", "Energy in watt-hours of a full battery by design."),
    _micro("energy_now", "value", "Energy in watt-hours in the battery.", "energy_watthour"),
    _micro("voltage_boot", "volts", "Voltage at boot."),
    _micro("voltage_max", "volts", "Largest voltage measured or allowed."),
    _micro("voltage_max_design", "volts", "Largest voltage by design."),
    _micro("voltage_min", "volts", "Smallest voltage measured or allowed."),
    _micro("voltage_min_design", "volts", "Smallest voltage by design."),
    _micro("voltage_now", "volts", "Voltage now.", "voltage_volt"),
    _micro("voltage_ocv", "volts", "Voltage without load."),
    _micro("charge_control_limit", "amperes", "Limit on the charging current."),
    _micro("charge_control_limit_max", "amperes", "Largest limit on the charging current."),
    _micro("charge_counter", "value", "Charge in ampere-hours counted by the driver."),
    _micro("charge_empty", "value", "Charge in ampere-hours at which the battery counts as empty."),
    _micro("charge_empty_design", "value", "Charge in ampere-hours of an empty battery by design."),
    _micro("charge_full", "value", "Charge in ampere-hours the battery holds when full."),
    _micro("charge_full_design", "value", "Charge in ampere-hours of a full battery by design."),
    _micro("charge_now", "value", "Charge in ampere-hours in the battery.", "charge_ampere"),
    _micro("charge_term_current", "amperes", "Current at which charging ends."),
    _micro("constant_charge_current", "amperes", "Charging current the charger aims at."),
    _micro("constant_charge_current_max", "amperes", "Largest charging current of the charger."),
    _micro("constant_charge_voltage", "volts", "Charging voltage the charger aims at."),
    _micro("constant_charge_voltage_max", "volts", "Largest charging voltage of the charger."),
    _micro("precharge_current", "amperes", "Current used on an almost empty battery."),
    _micro("input_current_limit", "amperes", "Limit on the current taken from the supply."),
    _micro("power_now", "watts", "Power drawn or given now.", "power_watt"),
    _tenth_degree("temp", "Temperature of the supply."),
    _tenth_degree("temp_alert_max", "Temperature above which the driver warns."),
    _tenth_degree("temp_alert_min", "Temperature below which the driver warns."),
    _tenth_degree("temp_ambient", "Temperature around the supply."),
    _tenth_degree("temp_ambient_max", "Largest temperature allowed around the supply."),
    _tenth_degree("temp_ambient_min", "Smallest temperature allowed around the supply."),
    _tenth_degree("temp_max", "Largest temperature allowed."),
    _tenth_degree("temp_min", "Smallest temperature allowed."),
)

POWER_SUPPLY = Group("power_supply", tuple(published for _, _, published in _PROPERTIES), tags=("power_supply",))

_TEXTS = ("capacity_level", "charge_type", "health", "manufacturer", "model_name", "scope", "serial_number", "status",
          "technology", "type", "usb_type")  # fmt: skip

POWER_SUPPLY_INFO = Group("power_supply_info", (
    gauge("info", "info", "Attributes of the supply that are not numbers, value always 1.",
          prom="node_power_supply_info"),
), tags=("power_supply", *_TEXTS))  # fmt: skip


def parse_uevent(text: bytes) -> dict[str, bytes]:
    """Properties by their name without POWER_SUPPLY_; other lines are passed over."""
    properties = {}
    for line in text.splitlines():
        key, equals, value = line.partition(b"=")
        if equals and key.startswith(b"POWER_SUPPLY_"):
            properties[key.removeprefix(b"POWER_SUPPLY_").decode("ascii", "replace")] = value.strip()
    return properties


@dataclass(slots=True)
class PowerSupply:
    """Charge, voltage and health of batteries, state of mains adapters."""

    name: ClassVar[str] = "power_supply"
    groups: ClassVar[tuple[Group, ...]] = (POWER_SUPPLY, POWER_SUPPLY_INFO)

    interval: Seconds = option(30.0, "Time between two readings.")
    host: Host = field(default_factory=Host)

    def collect(self) -> Iterator[Reading]:
        root = self.host.sys("class/power_supply")
        for entry in list_some(root, "no power supplies"):
            content = read_attribute(f"{root}/{entry}/uevent")
            if content is None:
                continue
            properties = parse_uevent(content)
            if "TYPE" not in properties:  # kernels before 6.1 leave it out of uevent
                properties["TYPE"] = (read_text(f"{root}/{entry}/type") or "").encode()
            texts = (properties.get(text.upper(), b"").decode("utf-8", "replace") for text in _TEXTS)
            yield POWER_SUPPLY_INFO.row((as_text(entry), *texts), (1,))
            yield POWER_SUPPLY.row(
                (as_text(entry),),
                tuple(_scaled(parse_int(properties.get(key, b"")), divisor) for key, divisor, _ in _PROPERTIES),
            )


def _scaled(number: int | None, divisor: int) -> int | float | None:
    return number if number is None or divisor == 1 else number / divisor
