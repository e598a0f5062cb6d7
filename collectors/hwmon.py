"""Sensors: temperatures, fans, voltages, currents, power, from /sys/class/hwmon.

The kernel names the files (`temp1_input`, `fan2_min`) and node_exporter makes metric names of them, so beside the usual
ones, declared here, any driver may bring others. Telegraf's `temp` has the temperatures alone, of the thermal zones
where there is no sensor.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host
from agent.core.model import Field, Group, Reading, Value, counter, gauge
from agent.core.options import option
from agent.core.units import Seconds
from collectors.sysfs import as_text, list_names, read_text

TEMP = Group("temp", (
    gauge("temp", "celsius", "Temperature.", influx="temp", twin="node_hwmon_temp_celsius"),
), tags=("sensor",))  # fmt: skip


def _sensor(name: str, unit: str, help: str) -> Field:
    return gauge(name, unit, help, type=float, prom=f"node_hwmon_{name}")


_ALARM = "1 when the sensor is outside of its limits."
_FAULT = "1 when the sensor does not work."

# One Group for each kind of sensor, with the fields that common drivers have.
_KINDS: Mapping[str, Group] = {
    kind: Group(f"hwmon_{kind}", fields, tags=("chip", "sensor"))
    for kind, fields in {
        "temp": (
            _sensor("temp_celsius", "celsius", "Temperature."),
            _sensor("temp_max_celsius", "celsius", "Temperature above which it is too warm."),
            _sensor("temp_max_hyst_celsius", "celsius", "Temperature at which the alarm for max ends."),
            _sensor("temp_min_celsius", "celsius", "Temperature below which it is too cold."),
            _sensor("temp_crit_celsius", "celsius", "Temperature above which damage is near."),
            _sensor("temp_crit_hyst_celsius", "celsius", "Temperature at which the alarm for crit ends."),
            _sensor("temp_crit_alarm_celsius", "celsius", "0.001 when the temperature is critical, otherwise 0."),
            _sensor("temp_max_alarm_celsius", "celsius", "0.001 when it is too warm, otherwise 0."),
            _sensor("temp_alarm", "bool", _ALARM),
            _sensor("temp_fault", "bool", _FAULT),
        ),
        "fan": (
            _sensor("fan_rpm", "rpm", "Speed of the fan."),
            _sensor("fan_min_rpm", "rpm", "Speed below which the fan is too slow."),
            _sensor("fan_max_rpm", "rpm", "Largest speed of the fan."),
            _sensor("fan_target_rpm", "rpm", "Speed the fan should have."),
            _sensor("fan_alarm", "bool", _ALARM),
            _sensor("fan_fault", "bool", _FAULT),
        ),
        "in": (
            _sensor("in_volts", "volts", "Voltage."),
            _sensor("in_min_volts", "volts", "Smallest voltage that is right."),
            _sensor("in_max_volts", "volts", "Largest voltage that is right."),
            _sensor("in_alarm", "bool", _ALARM),
            _sensor("in_beep_enabled", "bool", "1 when the alarm can be heard."),
        ),
        "curr": (_sensor("curr_amps", "amperes", "Current."), _sensor("curr_alarm", "bool", _ALARM)),
        "power": (
            _sensor("power_watt", "watts", "Power."),
            _sensor("power_average_watt", "watts", "Mean power."),
            _sensor("power_cap_watt", "watts", "Power the hardware keeps to."),
            _sensor("power_alarm", "bool", _ALARM),
        ),
        "energy": (
            counter("energy_joule_total", "joules", "Energy used so far.", prom="node_hwmon_energy_joule_total"),
        ),
        "humidity": (_sensor("humidity", "ratio", "Relative humidity."),),
    }.items()
}
_GROUP_OF = {name: group for group in _KINDS.values() for name in group.names}

# Everything else a driver may have.
OTHERS = Group("hwmon", (
    gauge("*", "value", "The attribute of this name of a sensor.", prom="node_hwmon_*"),
), tags=("chip", "sensor"))  # fmt: skip
OTHER_COUNTERS = Group("hwmon_counter", (
    counter("*", "value", "The counter of this name of a sensor.", prom="node_hwmon_*"),
), tags=("chip", "sensor"))  # fmt: skip
CHIP_NAMES = Group("hwmon_chip_names", (
    gauge("info", "info", "Name of the chip for people, value always 1.", prom="node_hwmon_chip_names"),
), tags=("chip", "chip_name"))  # fmt: skip
SENSOR_LABEL = Group("hwmon_sensor_label", (
    gauge("info", "info", "Name of the sensor for people, value always 1.", prom="node_hwmon_sensor_label"),
), tags=("chip", "label", "sensor"))  # fmt: skip

_FILE = re.compile(
    r"(vrm|beep_enable|update_interval|in|cpu|fan|pwm|temp|curr|power|energy|humidity|intrusion)(\d*)(?:_(.+))?"
)
_NOT_IN_NAMES = re.compile(r"[^a-z0-9:_]")


def clean(name: str) -> str:
    """A name as node_exporter puts it into labels and metric names: `Core 0` is `core_0`."""
    return _NOT_IN_NAMES.sub("_", name.lower()).strip("_")


def split_file(name: str) -> tuple[str, str, str] | None:
    """Kind, sensor and attribute: `temp1_crit` is temp, temp1, crit; None for a file that is no sensor's."""
    match = _FILE.fullmatch(name)
    if match is None:
        return None
    kind, number, attribute = match.groups()
    return kind, f"{kind}{int(number) if number else 0}", attribute or ""


# Kinds of which every attribute has the same unit: what its name ends in, and by what the number is divided.
_UNITS = {"in": ("_volts", 1e3), "cpu": ("_volts", 1e3), "temp": ("_celsius", 1e3), "curr": ("_amps", 1e3),
          "energy": ("_joule_total", 1e6), "power": ("_watt", 1e6), "humidity": ("", 1e6)}  # fmt: skip
_WHOLE = {"vrm": ("voltage_regulator_version", 1.0), "update_interval": ("update_interval_seconds", 1e3),
          "beep_enable": ("beep_enabled", 1.0)}  # fmt: skip


def metric_of(kind: str, attribute: str, has_plain: bool) -> tuple[str, float]:
    """The metric without `node_hwmon_`, and by what the number is divided: temp, crit is temp_crit_celsius, 1000.

    `has_plain`: the sensor has a file without an attribute, too (`pwm1`), so that `input` keeps its name.
    """
    if kind in _WHOLE:
        return _WHOLE[kind]
    is_value = not attribute or (attribute == "input" and not has_plain)
    name = kind if is_value else f"{kind}_{clean(attribute)}"
    if attribute in ("fault", "alarm"):
        return name, 1.0
    if attribute == "beep":
        return f"{name}_enabled", 1.0
    if kind == "power" and attribute == "accuracy":
        return name, 1e6
    if kind == "power" and attribute.startswith("average_interval"):
        return f"{name}_seconds", 1e3
    if kind == "fan" and attribute in ("input", "min", "max", "target"):
        return f"{name}_rpm", 1.0
    if kind in _UNITS and not (kind == "temp" and attribute == "type"):
        suffix, divisor = _UNITS[kind]
        return f"{name}{suffix}", divisor
    return name, 1.0


@dataclass(slots=True)
class Hwmon:
    """Temperatures, fans, voltages and power of the hardware."""

    name: ClassVar[str] = "hwmon"
    groups: ClassVar[tuple[Group, ...]] = (
        TEMP, *_KINDS.values(), OTHERS, OTHER_COUNTERS, CHIP_NAMES, SENSOR_LABEL,
    )  # fmt: skip

    interval: Seconds = option(30.0, "Time between two readings.")
    host: Host = field(default_factory=Host)

    def collect(self) -> Iterator[Reading]:
        chips, zones = self._directories("class/hwmon", "hwmon"), self._directories("class/thermal", "thermal_zone")
        if not (chips or zones):
            raise SourceMissing(f"{self.host.sys('class/hwmon')}: no sensors")
        temperatures: dict[str, float] = {}
        for path in chips:
            sensors, chip, name = _read_sensors(path), chip_of(path), read_text(f"{path}/name") or ""
            yield from _readings(chip, sensors)
            if clean(name):
                yield CHIP_NAMES.row((chip, clean(name)), (1,))
            temperatures.update(_temperatures(name or _device_name(path), sensors))
        for sensor, celsius in (temperatures or _zone_temperatures(zones)).items():
            yield TEMP.row((sensor,), (celsius,))

    def _directories(self, root: str, prefix: str) -> list[str]:
        try:
            names = list_names(self.host.sys(root))
        except SourceError:
            return []
        return [f"{self.host.sys(root)}/{name}" for name in names if name.startswith(prefix)]


def _zone_temperatures(zones: list[str]) -> dict[str, float]:
    temperatures = {}
    for path in zones:
        name, millidegrees = read_text(f"{path}/type"), _number(read_text(f"{path}/temp"))
        if name and millidegrees is not None:
            temperatures[name] = millidegrees / 1000.0
    return temperatures


def chip_of(path: str) -> str:
    """The chip a hwmon directory belongs to, by where its device is: `platform_coretemp_0`.

    The number of the directory depends on the order in which drivers were loaded, so it is the last resort.
    """
    device = os.path.realpath(f"{path}/device")
    if os.path.isdir(device):
        bus, name = clean(as_text(os.path.basename(os.path.dirname(device)))), clean(as_text(os.path.basename(device)))
        if name:
            return f"{bus}_{name}" if bus else name
    return clean(read_text(f"{path}/name") or "") or clean(as_text(os.path.basename(os.path.realpath(path))))


def _device_name(path: str) -> str:
    try:
        return as_text(os.path.basename(os.readlink(f"{path}/device")))
    except OSError:
        return ""


_Sensors = dict[tuple[str, str], dict[str, str]]  # (kind, sensor) -> attribute -> text


def _read_sensors(path: str) -> _Sensors:
    """Every sensor's attributes; drivers of old kernels have their files one level down, in `device`."""
    sensors: _Sensors = defaultdict(dict)
    for directory in (path, f"{path}/device"):
        try:
            names = list_names(directory)
        except SourceError:
            continue
        for name in names:
            split = split_file(name)
            if split and (text := read_text(f"{directory}/{name}")) is not None:
                kind, sensor, attribute = split
                sensors[kind, sensor][attribute] = text
    return sensors


def _readings(chip: str, sensors: _Sensors) -> Iterator[Reading]:
    for (kind, sensor), attributes in sensors.items():
        if label := attributes.get("label"):
            yield SENSOR_LABEL.row((chip, label, sensor), (1,))
        by_group: dict[Group, dict[str, Value]] = defaultdict(dict)
        for attribute, text in attributes.items():
            number = _number(text)
            if number is None or attribute == "label":
                continue
            metric, divisor = metric_of(kind, attribute, "" in attributes)
            value = number / divisor if kind != "beep_enable" else float(number == 1)
            by_group[_GROUP_OF.get(metric) or (OTHER_COUNTERS if kind == "energy" else OTHERS)][metric] = value
        for group, values in by_group.items():
            if group is OTHERS or group is OTHER_COUNTERS:
                yield group.expand(values).row((chip, sensor), tuple(values.values()))
            else:
                yield group.row((chip, sensor), tuple(map(values.get, group.names)))


def _temperatures(name: str, sensors: _Sensors) -> dict[str, float]:
    """Telegraf's temperatures: `coretemp_core_0` by the name of the chip and the label of the sensor."""
    temperatures = {}
    for (kind, _), attributes in sensors.items():
        millidegrees = _number(attributes.get("input"))
        if kind == "temp" and millidegrees is not None:
            label = attributes.get("label", "").lower().replace(" ", "_")
            temperatures[f"{name}_{label}" if label else name] = millidegrees / 1000.0
    return temperatures


def _number(text: str | None) -> float | None:
    """The number a sensor gives; None for words, nothing, and what is not finite."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if abs(number) < 1e18 else None
