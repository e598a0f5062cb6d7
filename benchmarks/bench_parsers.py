"""The files that are read each second or in great number, parsed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.snapshot import fixture_host
from collectors.cpu import parse_stat
from collectors.diskio import parse_diskstats
from collectors.interrupts import parse_interrupts
from collectors.memory import parse_meminfo
from collectors.net import parse_net_dev
from collectors.nstat import parse_table
from collectors.processes import parse_stat as parse_process
from collectors.softirqs import parse_softirqs
from collectors.vmstat import parse_vmstat

PARSERS: list[tuple[str, Callable[[bytes], object]]] = [
    ("stat", parse_stat),
    ("meminfo", parse_meminfo),
    ("diskstats", parse_diskstats),
    ("net/dev", parse_net_dev),
    ("net/netstat", parse_table),
    ("vmstat", parse_vmstat),
    ("interrupts", parse_interrupts),
    ("softirqs", parse_softirqs),
    ("1/stat", parse_process),
]


@pytest.mark.parametrize(("file", "parse"), PARSERS, ids=[file for file, _ in PARSERS])
def test_parsing(benchmark: BenchmarkFixture, file: str, parse: Callable[[bytes], object]) -> None:
    text = Path(fixture_host().proc(file)).read_bytes()
    benchmark(parse, text)
    benchmark.extra_info["bytes"] = len(text)
