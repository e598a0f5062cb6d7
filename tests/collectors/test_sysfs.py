from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceMissing
from collectors.sysfs import as_text, compiled, list_names, list_some, parse_int, read_int, read_text


@pytest.mark.parametrize(
    ("content", "number", "why"),
    [
        (b"42\n", 42, "decimal with the kernel's newline"),
        (b"-1\n", -1, "speed of a link that is down"),
        (b"0x1003\n", 0x1003, "flags are hexadecimal"),
        (b"", None, "an empty file tells nothing"),
        (b"unknown\n", None, "a word is no number"),
        (b"9" * 40, None, "no kernel counter has more than 64 bits"),
    ],
)
def test_a_number_is_read_or_not_known(tmp_path: Path, content: bytes, number: int | None, why: str) -> None:
    (tmp_path / "attribute").write_bytes(content)
    assert read_int(str(tmp_path / "attribute")) == number, why


@given(st.binary(max_size=60))
def test_any_bytes_give_a_number_or_none(noise: bytes) -> None:
    number = parse_int(noise)
    assert number is None or abs(number) < 1 << 64


def test_what_is_absent_or_a_directory_is_not_known(tmp_path: Path) -> None:
    assert read_text(str(tmp_path / "gone")) is None
    assert read_text(str(tmp_path)) is None


def test_bytes_that_are_not_utf8_come_through_as_text(tmp_path: Path) -> None:
    (tmp_path / "label").write_bytes(b"CPU \xff \n")
    assert read_text(str(tmp_path / "label")) == "CPU \ufffd"
    assert as_text(b"eth\xff".decode("utf-8", "surrogateescape")) == "eth\ufffd"


def test_listing_tells_a_missing_directory_from_an_empty_one(tmp_path: Path) -> None:
    assert list_names(str(tmp_path)) == []
    with pytest.raises(SourceMissing, match="gone: no such file"):
        list_names(str(tmp_path / "gone"))
    with pytest.raises(SourceMissing, match="no batteries"):
        list_some(str(tmp_path), "no batteries")


def test_a_bad_pattern_names_its_option() -> None:
    with pytest.raises(ValueError, match=r"device_exclude: '\(' is not a regular expression"):
        compiled("device_exclude", "(")
