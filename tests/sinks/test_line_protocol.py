from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.model import Group, Reading, Tick, Value, gauge
from collectors.influx_line import parse_influx_lines
from sinks.line_protocol import INT64_MAX, INT64_MIN, Encoder

NOW = 1_700_000_000_000_000_000
G = Group("m", (
    gauge("f", "value", "A float.", influx="f"),
    gauge("i", "count", "An int.", influx="i"),
    gauge("s", "text", "A text.", influx="s"),
    gauge("b", "bool", "A bool.", influx="b", type=bool),
    gauge("p", "value", "Only Prometheus has it.", prom="p"),
), ("t",))  # fmt: skip


def line(reading: Reading, **tags: str) -> str:
    lines = Encoder(tags).encode([Tick(NOW, "test", [reading])])
    assert len(lines) <= 1
    return lines[0].removesuffix(f" {NOW}") if lines else ""


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"f": 1.5}, "m,t=x f=1.5"),
        ({"f": 1e22, "i": 3}, "m,t=x f=1e+22,i=3i"),
        ({"i": 2**64 - 1}, f"m,t=x i={INT64_MAX}i"),
        ({"i": -(2**70)}, f"m,t=x i={INT64_MIN}i"),
        ({"b": True, "s": ""}, 'm,t=x s="",b=true'),
        ({"b": False}, "m,t=x b=false"),
        ({"s": 'a "b" \\c'}, 'm,t=x s="a \\"b\\" \\\\c"'),
        ({"s": "a\nb"}, 'm,t=x s="a\\nb"'),
        ({"f": math.nan}, ""),
        ({"f": math.inf, "i": 1}, "m,t=x i=1i"),
        ({"f": "text where a number was declared", "i": 1}, "m,t=x i=1i"),
        ({"p": 1.0}, ""),
        ({}, ""),
        ({"f": 1.7e308, "i": 1}, "m,t=x f=1.7e+308,i=1i"),
    ],
)
def test_values(values: dict[str, Value], expected: str) -> None:
    assert line(G.read("x", **values)) == expected


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("a b", "m,t=a\\ b f=1.0"),
        ("a,b=c", "m,t=a\\,b\\=c f=1.0"),
        ("C:\\", "m,t=C: f=1.0"),
        ("C:\\dir", "m,t=C:\\dir f=1.0"),
        ("a\\,b", "m,t=a\\\\\\,b f=1.0"),
        ("a\nb\tc", "m,t=a\\nb\\tc f=1.0"),
        ("", "m f=1.0"),
        ("\\", "m f=1.0"),
        ("größe 日本", "m,t=größe\\ 日本 f=1.0"),
    ],
)
def test_tag_values(tag: str, expected: str) -> None:
    assert line(G.read(tag, f=1.0)) == expected


def test_tags_stand_in_order_and_the_groups_own_wins() -> None:
    assert line(G.read("own", f=1.0), zone="eu", host="web 1", t="global") == "m,host=web\\ 1,t=own,zone=eu f=1.0"


def test_names_are_escaped() -> None:
    odd = Group("a b,c=d", (gauge("x", "value", "", influx="k 1,2=3%d"),))
    assert line(odd.read(x=1.0)) == "a\\ b\\,c=d k\\ 1\\,2\\=3%d=1.0"


def test_what_cannot_be_carried_is_counted() -> None:
    encoder = Encoder({})
    encoder.encode([Tick(NOW, "test", [G.read("x", f=math.nan, i=2**63), G.read("x", f=math.inf, i=-(2**63))])])
    assert (encoder.dropped_values, encoder.clamped_values) == (2, 1)


def test_absent_fields_leave_no_trace_whichever_they_are() -> None:
    encoder = Encoder({})
    readings = [G.read("x", f=1.0, i=2), G.read("x", i=2), G.read("x", f=1.0), G.read("x", f=1.0, i=2)]
    lines = encoder.encode([Tick(NOW, "test", readings)])
    assert [text.split(" ")[1] for text in lines] == ["f=1.0,i=2i", "i=2i", "f=1.0", "f=1.0,i=2i"]


def test_series_that_come_and_go_do_not_fill_memory() -> None:
    encoder = Encoder({})
    for at in range(120_000):
        encoder.encode([Tick(NOW, "test", [G.read(str(at), f=1.0)])])
    assert sum(len(group._prefixes) for group in encoder._groups.values()) <= 50_001


NAMES = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\t\n\f\r\0"), min_size=1, max_size=12)
# A trailing backslash cannot be written, and a pair of them is one to some parsers and two to others.
KEEPS = NAMES.filter(lambda text: not text.endswith("\\") and "\\\\" not in text)


@given(KEEPS, st.floats(allow_nan=False, allow_infinity=False), st.integers(INT64_MIN, INT64_MAX), NAMES, st.booleans())
def test_what_is_written_is_what_a_parser_reads(tag: str, f: float, i: int, s: str, b: bool) -> None:
    text = Encoder({"host": "h"}).encode([Tick(NOW, "test", [G.read(tag, f=f, i=i, s=s, b=b)])])[0]
    (point,) = parse_influx_lines(text.encode())
    assert dict(point.tags) == {"host": "h", "t": tag}
    assert dict(point.fields) == {"f": f, "i": i, "s": s, "b": b}
