"""What every collector says of the fixture hosts is what the golden files say: names, types, tags, labels, values."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from collectors.influx_line import parse_influx_lines
from tests.collectors import every
from tests.collectors.hosts import NAMES, HostTree
from tests.golden.update import DIALECTS, HERE, golden_files

HOW = "if the change is meant: python -m tests.golden.update, and read the diff"
FILES = [f"{host}.{dialect}" for host in NAMES for dialect in DIALECTS]


@pytest.fixture(scope="module")
def now() -> dict[str, str]:
    return golden_files()


@pytest.mark.parametrize("name", FILES)
def test_the_golden_file_is_what_the_collectors_say(now: dict[str, str], name: str) -> None:
    expected, found = HERE.joinpath(name).read_text().splitlines(), now[name].splitlines()
    # only what differs, or pytest would show two hundred kilobytes
    assert {"gone": set(expected) - set(found), "new": set(found) - set(expected)} == {"gone": set(), "new": set()}, HOW
    assert expected == found, f"the same lines in another order; {HOW}"


def test_nothing_of_this_machine_is_in_them(now: dict[str, str]) -> None:
    text = "".join(now.values())
    uname = os.uname()
    assert f'nodename="{uname.nodename}"' not in text
    assert f'version="{uname.version}"' not in text
    assert tempfile.gettempdir() not in text


@pytest.mark.parametrize("host", NAMES)
def test_every_line_is_read_back(now: dict[str, str], host: str) -> None:
    lines = [line for line in now[f"{host}.influx"].splitlines() if not line.startswith("#")]
    points = parse_influx_lines("\n".join(lines).encode())
    assert len(points) == len(lines)
    assert {point.time_ns for point in points} == {(every.FIRST_SLOT_S + every.LATER_S) * 10**9}


def test_the_time_zone_and_the_page_size_of_the_machine_do_not_matter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    monkeypatch.setattr("collectors.sockstat._PAGE_BYTES", 65536)
    monkeypatch.setattr("collectors.cpu._TICKS_PER_S", 1000)
    names = ["sockstat", "cpu", "time", "processes"]
    _, here = every.run_twice(HostTree("small", tmp_path / "here"), names)
    monkeypatch.undo()
    _, there = every.run_twice(HostTree("small", tmp_path / "there"), names)
    assert [tick.readings for tick in here.ticks] == [tick.readings for tick in there.ticks]
