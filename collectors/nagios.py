"""What a Nagios plugin says: its exit status, a line for people, and performance data.

The form is that of the Monitoring Plugins guidelines; the points are those of Telegraf's `nagios` parser.
"""

from __future__ import annotations

import re
from typing import NamedTuple

STATES = ("ok", "warning", "critical", "unknown")  # by exit status

_FIRST_SPLIT = re.compile(r"(?:'(?:[^']|'')*'|[^\s='][^=]*)=\S*")
_PERFDATA = re.compile(
    r"('(?:[^']|'')*'|[^=]+)=([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)([\w/%]*)"
    r"(?:;([-+0-9.eE:~@]*))?(?:;([-+0-9.eE:~@]*))?(?:;([-+0-9.eE]*))?(?:;([-+0-9.eE]*))?;*"
)
_MOST = 1.7976931348623157e308  # stands for an open end of a range


class PerfData(NamedTuple):
    """One measured value with its thresholds, by Telegraf's field names; what was not given is absent."""

    label: str
    unit: str
    fields: dict[str, float]


class PluginOutput(NamedTuple):
    """The text for people (its first line, and the lines after it) and the values."""

    text: str
    long_text: str
    perfdata: list[PerfData]


def parse_plugin_output(output: bytes) -> PluginOutput:
    """Split a plugin's output. Performance data that is not understood is left out, as the guidelines allow."""
    first, *more = output.decode(errors="replace").replace("\r\n", "\n").split("\n")
    text, _, perf = first.partition("|")
    perfs, long_text = [perf], []
    for at, line in enumerate(more):
        before, bar, perf = line.partition("|")
        long_text.append(before.strip())
        if bar:  # from here on all is performance data
            perfs += [perf, *more[at + 1 :]]
            break
    found = [parsed for perf in perfs for item in _FIRST_SPLIT.findall(perf) if (parsed := parse_perfdata(item))]
    return PluginOutput(text.strip(), "\n".join(long_text).strip("\n"), found)


def parse_perfdata(item: str) -> PerfData | None:
    """`'label'=1.5ms;10;20;0;100`; None when it is not of that form or the value is U (undetermined)."""
    match = _PERFDATA.fullmatch(item.strip())
    if match is None:
        return None
    label, value, unit, warning, critical, low, high = match.groups()
    fields: dict[str, float] = {}
    for name, text in (("value", value), ("min", low), ("max", high)):
        number = _number(text)
        if number is not None:
            fields[name] = number
    if "value" not in fields:
        return None
    fields |= _thresholds("warning", warning) | _thresholds("critical", critical)
    return PerfData(label.strip().strip("'"), unit, fields)


def _thresholds(name: str, text: str | None) -> dict[str, float]:
    """`10`, `10:`, `~:10`, `5:10` alert outside the range (`_lt`, `_gt`), `@5:10` inside it (`_le`, `_ge`).

    Telegraf cannot read the numbers of a range with `@` and gives 0 for the first; here they are read. It also writes
    5e-324 where a range is open below, which is above zero; here that is the lowest number there is.
    """
    if not text:
        return {}
    low_text, colon, high_text = text.removeprefix("@").partition(":")
    if not colon:
        low_text, high_text = "0", low_text
    low = -_MOST if low_text == "~" else _number(low_text or "0")
    high = _MOST if high_text == "" else _number(high_text)
    if low is None or high is None:
        return {}
    under, over = ("le", "ge") if text.startswith("@") else ("lt", "gt")
    return {f"{name}_{under}": low, f"{name}_{over}": high}


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
