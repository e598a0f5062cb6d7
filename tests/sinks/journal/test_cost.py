"""What a day costs, from twenty minutes of a host as it is by default."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sinks.journal import Journal, Limits
from tests.sinks.journal.hosts import START_NS, HandClock, host_seconds

SECONDS = 1201  # two segments and the second that closes the second one
DAY = 86400 / 1200
MB = 1_000_000


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journal]:
    clock = HandClock(START_NS / 1e9)
    journal = Journal(str(tmp_path_factory.mktemp("host")), clock, Limits(min_free_bytes=0))
    journal.reader("down")
    for ticks in host_seconds(SECONDS):
        for tick in ticks:
            journal.append(tick)
        journal.flush()
        clock.pass_time(1)
    journal.tidy()
    yield journal
    journal.close()


def test_the_host_is_one_of_about_634_series() -> None:
    ticks = next(host_seconds(1))
    assert 620 < sum(len(reading.values) for tick in ticks for reading in tick.readings) < 650


def test_an_outage_of_a_day_takes_no_more_than_100_mb(journal: Journal) -> None:
    packed = journal.stats.bytes - journal._shelf.segments[-1].size
    assert journal.stats.segments == 3
    assert packed * DAY < 100 * MB


def test_a_day_writes_no_more_than_400_mb(journal: Journal) -> None:
    assert (journal.tally.written_bytes + journal.tally.packed_bytes) * DAY < 400 * MB
