"""What one piece of a benchmark costs, noted beside the whole."""

from __future__ import annotations

from pytest_benchmark.fixture import BenchmarkFixture


def note_each(benchmark: BenchmarkFixture, piece: str, pieces: int) -> None:
    """Put `us_per_<piece>` with the results; nothing while measuring is turned off."""
    if benchmark.stats is not None:
        benchmark.extra_info[f"us_per_{piece}"] = benchmark.stats.stats.median * 1e6 / pieces
