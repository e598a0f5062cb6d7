from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host
from agent.core.model import Value
from collectors.system import (
    System,
    count_cores,
    format_uptime,
    parse_cpu_list,
    parse_loadavg,
    parse_uptime,
    parse_utmp,
)
from tests.collectors.hosts import readings
from tests.collectors.part_of_host import PartOfHost, fixed_host


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (59, " 0:00"),
        (11 * 3600 + 7 * 60, "11:07"),
        (86400, "1 day,  0:00"),
        (14 * 86400 + 11 * 3600 + 7 * 60 + 59, "14 days, 11:07"),
    ],
)
def test_uptime_is_written_as_telegraf_writes_it(seconds: int, text: str) -> None:
    assert format_uptime(seconds) == text


@pytest.mark.parametrize(
    ("listed", "count"),
    [(b"0\n", 1), (b"0-63\n", 64), (b"0-3,8,10-11\n", 7), (b"", 0), (b"\n", 0), (b"all\n", 0), (b"0-", 1), (b"9-3", 0)],
)
def test_cpus_of_a_list_are_counted(listed: bytes, count: int) -> None:
    assert parse_cpu_list(listed) == count


def record(type: int, user: bytes, size: int) -> bytes:
    return struct.pack("=hhi32s4s32s", type, 0, 1, b"pts/0", b"ts/0", user).ljust(size, b"\0")


@pytest.mark.parametrize("size", [384, 400])
def test_only_sessions_count_as_users(size: int) -> None:
    full = b"x" * 32  # a name that fills its field has no zero behind it
    records = b"".join(
        record(type, user, size) for type, user in ((2, b"reboot"), (7, b"ada"), (8, b"gone"), (7, full))
    )
    assert parse_utmp(records + b"torn", size) == [b"ada", full]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("small", {"load1": 0.31, "load5": 0.18, "load15": 0.12, "n_cpus": 2, "n_physical_cpus": 2,
                   "n_users": 3, "n_unique_users": 2}),
        ("big", {"load1": 11.52, "load5": 9.87, "load15": 9.03, "n_cpus": 64, "n_physical_cpus": 32,
                 "n_users": 1, "n_unique_users": 1}),
        ("container", {"load1": 0.0, "load5": 0.01, "load15": 0.05, "n_cpus": 4}),
    ],
)  # fmt: skip
def test_three_points_as_telegraf_splits_them(host: str, expected: dict[str, Value]) -> None:
    first, second, third = readings(System(host=fixed_host(host)).collect())
    assert first == ("system", (), expected)
    assert list(second[2]) == ["uptime"]
    assert list(third[2]) == ["uptime_format"]


def test_uptime_moves_on_and_stays_an_integer(tmp_path: Path) -> None:
    tree = PartOfHost("small", tmp_path, "proc/loadavg", "proc/uptime", "run", "sys/devices/system/cpu")
    system = System(host=tree.host)
    assert readings(system.collect())[1][2] == {"uptime": 864000}
    tree.later()
    assert readings(system.collect())[1:] == [
        ("system", (), {"uptime": 864005}),
        ("system", (), {"uptime_format": "10 days,  0:00"}),
    ]


def test_a_cpu_that_goes_offline_is_counted_out(tmp_path: Path) -> None:
    tree = PartOfHost("big", tmp_path, "proc/loadavg", "proc/uptime", "run", "sys/devices/system/cpu")
    system = System(host=tree.host)
    list(system.collect())
    tree.write("sys/devices/system/cpu/online", "0-31\n")
    for cpu in range(16):  # leave no core of the first package
        for sibling in (cpu, cpu + 32):
            (tree.path / f"sys/devices/system/cpu/cpu{sibling}/topology/thread_siblings_list").unlink()
    point = readings(system.collect())[0][2]
    assert (point["n_cpus"], point["n_physical_cpus"]) == (32, 16)


def test_cores_are_counted_once_for_their_hyper_threads() -> None:
    threads = [f"processor : {n}\nphysical id : 0\ncore id : {n % 2}\n" for n in range(4)]
    assert count_cores("\n".join(threads).encode()) == (4, 2)
    assert count_cores(b"processor : 0\nprocessor : 1\n") == (2, None)


@pytest.mark.parametrize("file", ["loadavg", "uptime"])
def test_garbage_names_the_file(tmp_path: Path, file: str) -> None:
    tree = PartOfHost("small", tmp_path, "proc/loadavg", "proc/uptime", "run", "sys/devices/system/cpu")
    tree.write(f"proc/{file}", "busy busy busy\n")
    with pytest.raises(SourceError, match=f"/proc/{file}: found b'busy"):
        list(System(host=tree.host).collect())


def test_a_host_without_proc_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="loadavg: no such file"):
        list(System(host=Host(proc_root=str(tmp_path))).collect())


@given(st.binary(max_size=900))
def test_any_bytes_give_counts(noise: bytes) -> None:
    assert parse_cpu_list(noise) >= 0
    assert all(isinstance(user, bytes) for user in parse_utmp(noise))
    assert count_cores(noise)[0] >= 0


@pytest.mark.parametrize("parse", [parse_loadavg, parse_uptime])
@given(noise=st.binary(max_size=60) | st.from_regex(rb"[-+0-9a-z.]+( [0-9.]+)*"))
def test_any_bytes_give_numbers_or_a_source_error(parse: Callable[[bytes], object], noise: bytes) -> None:
    try:
        found = parse(noise)
    except SourceError:
        return
    assert isinstance(found, tuple | int)


def test_agrees_with_psutil_on_this_host() -> None:
    point = next(iter(System().collect())).as_dict()
    assert point["n_cpus"] == psutil.cpu_count()
    assert point["n_physical_cpus"] == psutil.cpu_count(logical=False)
    assert (point["load1"], point["load15"]) == pytest.approx(psutil.getloadavg()[::2], abs=0.5)
