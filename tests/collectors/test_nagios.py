from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.nagios import PerfData, PluginOutput, parse_perfdata, parse_plugin_output

MOST = 1.7976931348623157e308


@pytest.mark.parametrize(
    ("item", "expected", "why"),
    [
        ("load=0.5", PerfData("load", "", {"value": 0.5}), "only the value is needed"),
        ("load1=0.5;5;10;0;100", PerfData("load1", "", {
            "value": 0.5, "min": 0, "max": 100, "warning_lt": 0, "warning_gt": 5, "critical_lt": 0, "critical_gt": 10,
        }), "a single threshold is the end of a range from zero"),
        ("'/ free'=12.5%;@10:20;~:30", PerfData("/ free", "%", {
            "value": 12.5, "warning_le": 10, "warning_ge": 20, "critical_lt": -MOST, "critical_gt": 30,
        }), "@ alerts inside; ~ is open below; quotes go"),
        ("rta=2.7ms;100:;;0", PerfData("rta", "ms", {"value": 2.7, "warning_lt": 100, "warning_gt": MOST, "min": 0}),
         "an open end; an empty threshold"),
        ("size=-1e3B;", PerfData("size", "B", {"value": -1000}), "exponents and a last semicolon"),
        ("x=U", None, "undetermined is no value"),
        ("x=1.2.3", None, "not a number"),
        ("x=1;a;b", None, "rubbish"),
        ("=1", None, "no name"),
    ],
)  # fmt: skip
def test_performance_data_is_read_as_telegraf_names_it(item: str, expected: PerfData | None, why: str) -> None:
    assert parse_perfdata(item) == expected, why


@pytest.mark.parametrize(
    ("output", "expected", "why"),
    [
        ("PING OK\n", PluginOutput("PING OK", "", []), "a line for people"),
        ("", PluginOutput("", "", []), "nothing"),
        ("OK | a=1 b=2s\n", PluginOutput("OK", "", [PerfData("a", "", {"value": 1}), PerfData("b", "s", {"value": 2})]),
         "values after the bar"),
        ("DISK OK | /=2643MB\n/ 15272 MB;\n/boot 68 MB; | /boot=68MB\n'/home dir'=5MB\n",
         PluginOutput("DISK OK", "/ 15272 MB;\n/boot 68 MB;", [
             PerfData("/", "MB", {"value": 2643}), PerfData("/boot", "MB", {"value": 68}),
             PerfData("/home dir", "MB", {"value": 5}),
         ]), "long text, and values on further lines"),
        ("OK | = good=2 x=\n", PluginOutput("OK", "", [PerfData("good", "", {"value": 2})]), "bad values are skipped"),
    ],
)  # fmt: skip
def test_a_plugins_output_is_split(output: str, expected: PluginOutput, why: str) -> None:
    assert parse_plugin_output(output.encode()) == expected, why


@given(st.binary(max_size=200))
def test_any_output_is_taken(output: bytes) -> None:
    said = parse_plugin_output(b"OK | a=1\n" + output)
    assert said.text == "OK"
    assert said.perfdata[0] == PerfData("a", "", {"value": 1})
