from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceMissing
from agent.core.host import Host
from agent.core.model import Reading
from collectors.uname import DMI, OS, OS_SUPPORT, OS_VERSION, UNAME, Uname, parse_day, parse_os_release, parse_version
from tests.collectors.part_of_host import PartOfHost, fixed_host


def labels(reading: Reading) -> dict[str, str]:
    return {tag.prom: value for tag, value in zip(reading.group.tags, reading.tags, strict=True) if value}


@pytest.mark.parametrize(
    ("line", "value", "why"),
    [
        ("NAME=Fedora", "Fedora", "a bare word"),
        ('NAME="Debian GNU/Linux"', "Debian GNU/Linux", "quotes are taken off"),
        ("NAME='it is'", "it is", "of both kinds"),
        (r'NAME="a \"b\" \$c"', 'a "b" $c', "a backslash protects what a shell would take"),
        ("NAME=", "", "nothing is nothing"),
        ("# NAME=x", None, "a comment is no line"),
        ('NAME="open', None, "an open quote is no value"),
        ("NAME=two words", None, "neither are two words"),
    ],
)
def test_an_assignment_is_read_as_a_shell_reads_it(line: str, value: str | None, why: str) -> None:
    assert parse_os_release(line.encode()).get("name") == value, why


@pytest.mark.parametrize(
    ("text", "version"),
    [("12", 12.0), ("22.04", 22.04), ("3.21.2", 3.21), ("7.", 7.0), ("", None), ("rolling", None), ("0", None)],
)
def test_a_version_is_its_first_two_parts(text: str, version: float | None) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize(("day", "seconds"), [("2027-06-01", 1811808000), ("soon", None), ("", None)])
def test_a_day_is_its_midnight_in_utc(day: str, seconds: int | None) -> None:
    assert parse_day(day) == seconds


def test_the_big_host_has_everything() -> None:
    found = {reading.group: reading for reading in Uname(host=fixed_host("big")).collect()}
    assert found.keys() == {UNAME, OS, OS_VERSION, OS_SUPPORT, DMI}
    assert labels(found[UNAME]) == {
        "sysname": "Linux", "nodename": "db-big", "release": "5.15.0-130-generic", "machine": "x86_64",
        "version": "#140-Ubuntu SMP Wed Dec 18 17:59:53 UTC 2024", "domainname": "example.net",
    }  # fmt: skip
    assert labels(found[OS])["pretty_name"] == "Ubuntu 22.04.5 LTS"
    assert (labels(found[OS_VERSION]), found[OS_VERSION].values) == (
        {"id": "ubuntu", "id_like": "debian", "name": "Ubuntu"}, (22.04,),
    )  # fmt: skip
    assert found[OS_SUPPORT].values == (1811808000,)
    dmi = labels(found[DMI])
    assert (dmi["system_vendor"], dmi["bios_version"]) == ("Example Computers", "2.14.2")
    assert "board_serial" not in dmi


def test_a_container_has_no_hardware() -> None:
    found = [reading.group for reading in Uname(host=fixed_host("container")).collect()]
    assert found == [UNAME, OS, OS_VERSION]


def test_os_release_is_looked_for_in_both_places(tmp_path: Path) -> None:
    tree = PartOfHost("small", tmp_path, "proc/sys/kernel", "etc", "usr/lib/os-release")
    (tree.path / "etc/os-release").unlink()
    assert [labels(r)["id"] for r in Uname(host=tree.host).collect() if r.group is OS] == ["debian"]


def test_a_renamed_host_is_noticed(tmp_path: Path) -> None:
    tree = PartOfHost("small", tmp_path, "proc/sys/kernel", "etc", "usr/lib/os-release")
    uname = Uname(host=tree.host)
    list(uname.collect())
    tree.write("proc/sys/kernel/hostname", b'evil"\\\n\xff\n')
    assert labels(next(iter(uname.collect())))["nodename"] == 'evil"\\\n�'


def test_a_kernel_that_does_not_tell_its_architecture_is_that_of_this_one(tmp_path: Path) -> None:
    tree = PartOfHost("small", tmp_path, "proc/sys/kernel", "etc", "usr/lib/os-release")
    (tree.path / "proc/sys/kernel/arch").unlink()
    assert labels(next(iter(Uname(host=tree.host).collect())))["machine"] == os.uname().machine


def test_a_host_that_tells_nothing_says_so(tmp_path: Path) -> None:
    empty = str(tmp_path)
    with pytest.raises(SourceMissing, match="none of them can be read"):
        list(Uname(host=Host(proc_root=empty, sys_root=empty, root=empty)).collect())


@given(st.binary(max_size=200))
def test_any_bytes_give_text(noise: bytes) -> None:
    values = parse_os_release(noise)
    assert all(isinstance(value, str) for value in values.values())
    version = parse_version(values.get("version_id", ""))
    assert version is None or version > 0


def test_agrees_with_uname_on_this_host() -> None:
    mine, theirs = labels(next(iter(Uname().collect()))), os.uname()
    assert {key: mine[key] for key in ("sysname", "nodename", "release", "machine", "version")} == {
        "sysname": theirs.sysname, "nodename": theirs.nodename, "release": theirs.release,
        "machine": theirs.machine, "version": theirs.version,
    }  # fmt: skip
