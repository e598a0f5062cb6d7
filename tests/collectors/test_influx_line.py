from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.influx_line import InfluxLineError, Point, parse_influx_lines


@pytest.mark.parametrize(
    ("line", "point", "why"),
    [
        ("m f=1", Point("m", (), (("f", 1.0),), None), "a bare number is a float"),
        ("m f=1i 1700000000000000000", Point("m", (), (("f", 1),), 1700000000000000000), "i makes it an integer"),
        ("m f=18446744073709551615u", Point("m", (), (("f", 2**64 - 1),), None), "u is unsigned"),
        ("m,b=2,a=1 f=-1.5e3", Point("m", (("a", "1"), ("b", "2")), (("f", -1500.0),), None), "tags are sorted"),
        ("m a=t,b=F,c=True,d=FALSE", Point("m", (), (("a", True), ("b", False), ("c", True), ("d", False)), None),
         "booleans have ten spellings"),
        (r'm s="a \"b\" \\ c, d=e"', Point("m", (), (("s", 'a "b" \\ c, d=e'),), None), "quotes hide everything"),
        ('m s="two\nlines",f=2', Point("m", (), (("s", "two\nlines"), ("f", 2.0)), None), "a string may span lines"),
        (r"my\ m\,x,t\=a\ g=v\,1 f\ 1=1", Point("my m,x", (("t=a g", "v,1"),), (("f 1", 1.0),), None),
         "escapes work in names, tags and keys"),
        (r"m\n,t=C:\dir f=1", Point("m\\n", (("t", "C:\\dir"),), (("f", 1.0),), None), "other backslashes stay"),
        ("m f=1  \r", Point("m", (), (("f", 1.0),), None), "blanks and a carriage return may end a line"),
        ("m f=.5", Point("m", (), (("f", 0.5),), None), "a number may begin with its point"),
        ("zürich f=1", Point("zürich", (), (("f", 1.0),), None), "names may be in any language"),
    ],
)  # fmt: skip
def test_a_line_is_understood(line: str, point: Point, why: str) -> None:
    assert parse_influx_lines(line.encode()) == [point], why


def test_blank_lines_and_comments_are_passed_over() -> None:
    assert len(parse_influx_lines(b"# head\n\n  m f=1\n#m f=2\nm f=3\r\n")) == 2
    assert parse_influx_lines(b"") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m f=1\nrubbish\n", "line 2: a space and a field expected, found the end of the line"),
        ("m\n", "line 1: a space and a field expected"),
        ("m f=one", "line 1: a field (key=1.5, key=1i, key=true or key=\"text\") expected, found 'f=one'"),
        ("m f=1x", "found 'f=1x'"),
        ("m f=1_0", "found 'f=1_0'"),
        ("m f=nan", "found 'f=nan'"),
        ('m f="open', "found 'f=\"open'"),
        ("m f=1,", "found the end of the line"),
        (",t=1 f=1", "a measurement expected"),
        ("m,t f=1", "a tag (key=value) expected, found 't f=1'"),
        ("m,t= f=1", "a tag with a value (key=value) expected"),
        ("m,t=1,t=2 f=1", "line 1: tag 't' is given twice"),
        ("m f=9223372036854775808i", "does not fit 64 bits"),
        ("m f=" + "9" * 5000 + "i", "does not fit 64 bits"),
        ("m f=-1u", "does not fit 64 bits"),
        ("m f=1 soon", "a timestamp in nanoseconds or the end of the line expected, found 'soon'"),
        ("m f=1 9999999999999999999", "timestamp 9999999999999999999 does not fit 64 bits"),
        ("\n\nm f=\xff", "line 3: not valid UTF-8"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(text: str, message: str) -> None:
    with pytest.raises(InfluxLineError) as error:
        parse_influx_lines(text.encode("latin-1"))
    assert message in str(error.value)


def test_the_number_of_points_is_bounded() -> None:
    with pytest.raises(InfluxLineError, match="line 3: more than 2 points"):
        parse_influx_lines(b"m f=1\nm f=2\nm f=3\n", most_points=2)


@given(st.binary(max_size=120))
def test_any_bytes_give_points_or_an_error_with_a_line(noise: bytes) -> None:
    try:
        points = parse_influx_lines(b"m f=1\n" + noise)
    except InfluxLineError as error:
        said = str(error)
    else:
        assert points[0] == Point("m", (), (("f", 1.0),), None)
        return
    assert said.startswith("line ")


@given(st.text(st.sampled_from('m,= \\"\n1itf#.'), max_size=30))
def test_any_mix_of_the_special_characters_gives_points_or_an_error(text: str) -> None:
    try:
        points = parse_influx_lines(text.encode())
    except InfluxLineError:
        return
    assert all(point.fields for point in points)
