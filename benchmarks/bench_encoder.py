"""Line protocol: microseconds a point, and what compressing it costs."""

from __future__ import annotations

import zlib

from pytest_benchmark.fixture import BenchmarkFixture

from agent.core.model import Tick
from benchmarks.each import note_each
from sinks.line_protocol import Encoder

TAGS = {"host": "bench", "env": "prod"}
GZIP_WINDOW = 31  # zlib: 15 bits of window, +16 for a gzip header


def test_encoding_a_snapshot(benchmark: BenchmarkFixture, snapshot: list[Tick]) -> None:
    encoder = Encoder(TAGS)
    lines = benchmark(encoder.encode, snapshot)
    note_each(benchmark, "point", len(lines))


def test_encoding_a_snapshot_the_first_time(benchmark: BenchmarkFixture, snapshot: list[Tick]) -> None:
    lines = benchmark(lambda: Encoder(TAGS).encode(snapshot))
    note_each(benchmark, "point", len(lines))


def test_compressing_a_snapshot_at_level_1(benchmark: BenchmarkFixture, snapshot: list[Tick]) -> None:
    lines = Encoder(TAGS).encode(snapshot)
    body = "\n".join(lines).encode()

    def compress() -> bytes:
        packer = zlib.compressobj(1, zlib.DEFLATED, GZIP_WINDOW)
        return packer.compress(body) + packer.flush()

    packed = benchmark(compress)
    note_each(benchmark, "point", len(lines))
    benchmark.extra_info["ratio"] = len(body) / len(packed)
