from __future__ import annotations

import math
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.model import Failed, Field, Group, Reading, Tag, Tick, Value, gauge
from sinks.journal import frame as frames
from sinks.journal.codec import Decoder, Encoder, Groups, Undecodable
from sinks.journal.frame import scan
from tests.sinks.journal.hosts import CPU, tick

_texts = st.text(max_size=12)
_values: st.SearchStrategy[Value] = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.floats(), st.booleans(), _texts, st.none()
)


@st.composite
def _groups(draw: st.DrawFn) -> Group:
    fields = [
        Field(name, draw(st.sampled_from(["gauge", "counter", "untyped"])), "count", draw(_texts),
              draw(st.sampled_from([int, float, bool, str])), draw(st.none() | _texts), draw(st.none() | _texts),
              draw(st.floats(allow_nan=False)), (("mode", draw(_texts)),), draw(st.none() | _texts))
        for name in draw(st.lists(_texts, min_size=1, max_size=4, unique=True))
    ]  # fmt: skip
    return Group(draw(_texts), fields, [Tag(draw(_texts), draw(_texts)) for _ in range(draw(st.integers(0, 2)))])


@st.composite
def _ticks(draw: st.DrawFn) -> Tick:
    groups = draw(st.lists(_groups(), max_size=3))
    readings = [
        Reading(group, tuple(draw(_texts) for _ in group.tags), tuple(draw(_values) for _ in group.fields))
        for group in groups
        for _ in range(draw(st.integers(1, 2)))
    ]
    failed = tuple(Failed(target, "gone") for target in draw(st.lists(_texts, max_size=2)))
    return Tick(draw(st.integers(-(2**63), 2**63 - 1)), draw(_texts), readings, failed)


class Wire:
    """An encoder and a decoder with a file between them."""

    def __init__(self) -> None:
        self.groups = Groups()
        self.encoder = Encoder(self.groups)
        self.decoder = Decoder(self.groups)

    def send(self, tick: Tick, number: int = 1) -> Tick:
        encoded = self.encoder.encode(number, tick)
        for definition in encoded.needs:
            (frame,) = scan(definition.record)
            self.decoder.define(frame)
        (frame,) = scan(encoded.record)
        assert (frame.number, frame.time_ns, frame.points) == (number, tick.time_ns, len(tick.readings))
        return self.decoder.tick(frame)


def exactly(value: Value) -> object:
    """Equal for equal values of the same type, NaN and -0.0 included."""
    return (type(value), struct.pack("<d", value) if isinstance(value, float) and not math.isnan(value) else str(value))


def told(tick: Tick) -> object:
    rows = [
        (r.group.measurement, r.group.tags, r.group.fields, r.tags, [exactly(v) for v in r.values])
        for r in tick.readings
    ]
    return tick.time_ns, tick.collector, rows, tick.failed


@given(_ticks())
def test_a_tick_comes_back_as_it_went(tick: Tick) -> None:
    wire = Wire()
    for time in range(3):  # whole, then with its shape defined, then by its shape
        assert told(wire.send(tick)) == told(tick), f"time {time}"


def test_series_said_twice_are_written_once() -> None:
    encoder = Encoder(Groups())
    first, second, third = (len(encoder.encode(n, tick(n, rows=40)).record) for n in range(3))
    assert second == third < first - 40 * len("cpu00")


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (2**64, 2**64 - 1),
        (-(2**63) - 1, -(2**63)),
        (10**30, 2**64 - 1),
        ("a\udcffb", "a\ufffdb"),
    ],
)
def test_what_has_no_binary_form_becomes_the_nearest_that_has(value: Value, stored: Value) -> None:
    group = Group("m", [gauge("f", "count", "x", influx="f")], ["t"])
    again = Wire().send(Tick(1, "c\udcff", [group.row(("t\udcff",), (value,))], (Failed("\udcff", "x"),)))
    assert again.readings[0].values == (stored,)
    assert again.readings[0].tags == ("t\ufffd",)
    assert (again.collector, again.failed) == ("c\ufffd", (Failed("\ufffd", "x"),))


def test_the_same_declaration_is_one_group_across_segments() -> None:
    groups = Groups()
    encoded = Encoder(groups).encode(1, tick(1))
    twin = Group(CPU.measurement, CPU.fields, CPU.tags)
    again = Encoder(groups).encode(2, Tick(2, "cpu", [twin.row(("a",), (1.0, 2.0, 3.0))]))
    assert [d.id for d in again.needs] == [d.id for d in encoded.needs][:1]
    seen = set()
    for segment in (encoded, again):
        decoder = Decoder(groups)
        for record in (*(d.record for d in segment.needs), segment.record):
            (frame,) = scan(record)
            if frame.number in (1, 2):
                seen.add(decoder.tick(frame).readings[0].group)
            else:
                decoder.define(frame)
    assert seen == {CPU}


def test_a_tick_without_its_definitions_is_not_guessed() -> None:
    encoder = Encoder(Groups())
    for number in (1, 2):
        (frame,) = scan(encoder.encode(number, tick(number)).record)
        with pytest.raises(Undecodable):
            Decoder(Groups()).tick(frame)


def test_fields_added_by_a_later_minor_version_are_passed_over() -> None:
    payload = msgspec.msgpack.encode(("cpu", [], [], [], [], {"later": 1}))
    (frame,) = scan(frames.build(frames.TICK_WHOLE, 5, 9, 0, payload))
    assert Decoder(Groups()).tick(frame) == Tick(9, "cpu", [])
