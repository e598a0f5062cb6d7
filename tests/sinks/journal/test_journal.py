from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sinks.journal import Journal, JournalError, Limits
from tests.sinks.journal.hosts import START_NS, HandClock, drain, fill, numbers, tick

KIB = 1024


@pytest.fixture
def clock() -> HandClock:
    return HandClock(START_NS / 1e9)


@pytest.fixture
def make(tmp_path: Path, clock: HandClock) -> Iterator[object]:
    opened: list[Journal] = []

    def open_journal(**limits: float) -> Journal:
        opened.append(Journal(str(tmp_path), clock, Limits(**{"min_free_bytes": 0, **limits})))  # type: ignore[arg-type]
        return opened[-1]

    yield open_journal
    for journal in opened:
        try:
            journal.close()
        except OSError:
            pass  # the test closed it


def files(directory: Path, suffix: str) -> list[str]:
    return sorted(name for name in os.listdir(directory) if name.endswith(suffix))


def test_a_reader_gets_what_is_appended_even_before_it_is_written(make, tmp_path) -> None:
    journal = make()
    reader = journal.reader("influx")
    ticks = [tick(number) for number in range(5)]
    for one in ticks:
        journal.append(one)
    batch = reader.read(3)
    assert batch is not None
    assert all(got is sent for got, sent in zip(batch.ticks, ticks, strict=False)), "from memory, not decoded"
    assert len(batch.ticks) == 3
    assert files(tmp_path, ".seg") == []
    reader.commit(batch.next_position)
    assert numbers(drain(reader)) == [3, 4]
    assert reader.read() is None


def test_a_disk_that_gives_no_answer_for_seconds_is_a_failing_one(make, clock) -> None:
    journal = make()
    for number in range(30):  # written each second, however long that goes on
        journal.append(tick(number))
        clock.pass_time(1)
        assert not journal.stats.is_failing
        journal.flush()
    clock.pass_time(3600)
    journal.append(tick(30))
    clock.pass_time(9)
    assert not journal.stats.is_failing
    clock.pass_time(2)
    assert journal.stats.is_failing, "nothing was written for eleven seconds, and nothing refused"
    assert journal.until_written(32, 30) == 32, "a reader does not wait for it"
    journal.flush()
    assert not journal.stats.is_failing


def test_a_reader_may_have_what_is_written_and_what_it_has_waited_for(make) -> None:
    journal = make()
    fill(journal, 0, 4)
    journal.flush()
    reader = journal.reader("influx", start="oldest")
    fill(journal, 4, 6)
    asked = []
    journal.want_written = lambda: asked.append("now")
    batch = reader.read_written(3, 64 * KIB, 0.0)
    assert batch is not None
    assert (numbers(batch.ticks), asked) == ([0, 1, 2], []), "what it can take is written, so nobody is asked"
    reader.commit(batch.next_position)
    journal.want_written = journal.flush
    batch = reader.read_written(50, 64 * KIB, 30.0)
    assert batch is not None
    assert numbers(batch.ticks) == [3, 4, 5]
    reader.commit(batch.next_position)
    fill(journal, 6, 7)
    journal.want_written = lambda: asked.append("now")
    batch = reader.read_written(50, 64 * KIB, 0.01)
    assert batch is not None
    assert (numbers(batch.ticks), asked) == ([6], ["now"]), "nobody writes, and it goes out all the same"


def test_what_is_not_committed_is_given_again(make) -> None:
    journal = make()
    reader = journal.reader("influx")
    fill(journal, 0, 4)
    first, again = reader.read(), reader.read()
    assert first == again
    assert first is not None
    assert reader.read(after=first.next_position) is None, "reading ahead is possible without a commit"
    reader.commit(first.next_position)
    assert reader.read() is None


def test_a_restart_goes_on_where_the_reader_was(make) -> None:
    journal = make()
    reader = journal.reader("influx")
    fill(journal, 0, 10)
    batch = reader.read(6)
    assert batch is not None
    reader.commit(batch.next_position)
    journal.close()
    journal = make()
    fill(journal, 10, 12)
    assert numbers(drain(journal.reader("influx"))) == [6, 7, 8, 9, 10, 11]


def test_a_new_reader_starts_where_it_is_told(make) -> None:
    journal = make()
    fill(journal, 0, 3)
    journal.flush()
    late, all_of_it = journal.reader("late"), journal.reader("all", "oldest")
    fill(journal, 3, 4)
    assert numbers(drain(late)) == [3]
    assert numbers(drain(all_of_it)) == [0, 1, 2, 3]
    assert journal.readers() == ["all", "late"]
    with pytest.raises(ValueError, match="not a usable name"):
        journal.reader("")


def test_decoded_ticks_carry_the_groups_that_were_appended(make) -> None:
    journal = make(recent_bytes=0)
    reader = journal.reader("influx")
    sent = [tick(number) for number in range(3)]
    for one in sent:
        journal.append(one)
    assert drain(reader, commit=False) == sent, "from records not written yet"
    journal.flush()
    assert drain(reader) == sent, "from the file"


def test_the_limits_of_a_read_hold_and_one_record_always_fits(make) -> None:
    journal = make()
    fill(journal, 0, 20)
    reader = journal.reader("a", "oldest")
    for source in ("memory", "file"):
        assert len(reader.read(7).ticks) == 7, source
        assert len(reader.read(100, 1).ticks) == 1, source
        assert 1 < len(reader.read(100, 500).ticks) < 20, source
        journal.close()
        journal = make()
        reader = journal.reader("a")


def test_a_closed_segment_is_compressed_and_reads_the_same(make, clock, tmp_path) -> None:
    journal = make(segment_age=600, recent_bytes=0)
    reader = journal.reader("influx")
    fill(journal, 0, 300)
    journal.flush()
    size = (tmp_path / files(tmp_path, ".seg")[0]).stat().st_size
    clock.pass_time(601)
    fill(journal, 300, 310)
    journal.flush()
    journal.tidy()
    assert [len(files(tmp_path, suffix)) for suffix in (".seg", ".segz")] == [1, 1]
    assert (tmp_path / files(tmp_path, ".segz")[0]).stat().st_size < size / 3
    assert numbers(drain(reader)) == list(range(310))


def test_a_file_compressed_under_a_reader_changes_nothing_for_it(make, clock) -> None:
    journal = make(recent_bytes=0)
    reader = journal.reader("influx")
    fill(journal, 0, 50)
    journal.flush()
    got = reader.read(10)
    clock.pass_time(601)
    fill(journal, 50, 60)
    journal.flush()
    journal.tidy()
    reader.commit(got.next_position)
    assert numbers(got.ticks + drain(reader)) == list(range(60))


def test_compression_and_appending_go_on_while_readers_read(make) -> None:
    journal = make(segment_bytes=8 * KIB, recent_bytes=2 * KIB, keep=0, max_bytes=1024 * KIB)
    got: dict[str, list[int]] = {"one": [], "two": []}
    readers = {name: journal.reader(name) for name in got}
    done = threading.Event()

    def read(name: str) -> None:
        while not done.is_set() or journal.stats.cursors[name].lag.records:
            got[name] += numbers(drain(readers[name], most=7))

    def tidy() -> None:
        while not done.is_set():
            journal.tidy()

    threads = [threading.Thread(target=read, args=(name,)) for name in got] + [threading.Thread(target=tidy)]
    for thread in threads:
        thread.start()
    for number in range(3000):
        journal.append(tick(number))
        if number % 5 == 0:
            journal.flush()
    journal.sync()
    done.set()
    for thread in threads:
        thread.join(30)
    assert got == {"one": list(range(3000)), "two": list(range(3000))}


def test_a_segment_goes_when_every_reader_has_had_it_and_history_needs_it_no_more(make, clock, tmp_path) -> None:
    journal = make(keep=900)
    fast, slow = journal.reader("fast"), journal.reader("slow")
    for start in range(0, 4000, 700):
        fill(journal, start, start + 2)
        journal.flush()
        clock.pass_time(700)
    drain(fast)
    journal.tidy()
    assert len(files(tmp_path, ".segz")) == 5, "slow wants them all"
    drain(slow)
    journal.tidy()
    assert len(files(tmp_path, ".segz")) == 0 + len([s for s in range(0, 3500, 700) if s + 1 >= 4200 - 900])
    stats = journal.stats
    assert stats.tally.dropped_records == 0


@pytest.mark.parametrize("cap", ["max_bytes", "max_age", "min_free_bytes"])
def test_a_cap_drops_the_oldest_and_counts_it_for_whom_it_hurts(make, clock, cap: str) -> None:
    limits = {
        "max_bytes": {"max_bytes": 64 * KIB},
        "max_age": {"max_age": 3600},
        "min_free_bytes": {"min_free_bytes": 1 << 60},
    }
    journal = make(segment_bytes=8 * KIB, recent_bytes=0, keep=0, **limits[cap])
    behind, up_to_date = journal.reader("behind"), journal.reader("up_to_date")
    for number in range(2400):
        journal.append(tick(number, rows=1 + number * 7919 % 13))  # packs badly, as the shape changes each time
        if number % 20 == 0:
            journal.flush()
            drain(up_to_date)
    journal.sync()
    drain(up_to_date)
    journal.sync()
    clock.pass_time(7200)
    journal.append(tick(2400))
    journal.flush()
    journal.tidy()
    state = journal.stats.cursors["behind"]
    assert state.lost_records > 0
    assert state.lost_points > state.lost_records
    left = numbers(drain(behind))
    assert left == list(range(state.lost_records, 2401)), "what is left is whole and in order"
    assert journal.stats.tally.dropped_records == state.lost_records
    assert journal.stats.cursors["behind"].damaged_records == 0
    assert journal.stats.cursors["up_to_date"].lost_records == 0
    if cap == "max_bytes":
        assert journal.stats.bytes <= 64 * KIB
        assert left[0] < 2000, "no more than needed"


def test_lag_tells_records_bytes_and_age(make, clock) -> None:
    journal = make(recent_bytes=0)
    reader = journal.reader("influx")
    assert reader.lag() == (0, 0, 0.0)
    clock.pass_time(100)
    fill(journal, 0, 100)
    assert reader.lag().records == 100
    assert reader.lag().oldest_age_s == 100
    in_memory = reader.lag().bytes
    journal.flush()
    assert reader.lag().bytes > in_memory > 100 * 40
    batch = reader.read(60)
    reader.commit(batch.next_position)
    assert reader.lag().records == 40
    assert 40 <= reader.lag().oldest_age_s <= 41
    drain(reader)
    assert reader.lag() == (0, 0, 0.0)


def test_the_backlog_can_be_forked_off_so_that_neither_waits(make) -> None:
    journal = make(recent_bytes=0)
    live = journal.reader("influx")
    fill(journal, 0, 30)
    backlog = live.fork("influx backlog")
    fill(journal, 30, 35)
    assert numbers(drain(live)) == list(range(30, 35))
    assert backlog.lag().records == 30
    batch = backlog.read(10)
    backlog.commit(batch.next_position)
    with pytest.raises(ValueError, match="exists already"):
        live.fork("influx backlog")
    journal.close()
    journal = make()
    backlog = journal.reader("influx backlog")
    assert not backlog.is_done
    assert numbers(drain(backlog)) == list(range(10, 30))
    assert backlog.is_done
    assert backlog.lag() == (0, 0, 0.0)
    journal.remove("influx backlog")
    assert journal.readers() == ["influx"]
    journal.close()
    assert make().readers() == ["influx"]


def test_ticks_since_rebuilds_what_came_after_a_moment(make, clock) -> None:
    journal = make()
    for start in range(0, 1400, 100):
        fill(journal, start, start + 100)
        journal.flush()
        journal.tidy()
        clock.pass_time(100)
    journal.close()
    journal = make()
    assert numbers(list(journal.ticks_since(START_NS + 500 * 10**9))) == list(range(500, 1400))
    assert list(journal.ticks_since(START_NS + 10**15)) == []


def test_purge_forgets_for_one_or_for_all(make, tmp_path) -> None:
    journal = make()
    one, two = journal.reader("one"), journal.reader("two")
    fill(journal, 0, 10)
    journal.flush()
    assert journal.purge("one") == 10
    assert one.read() is None
    assert two.lag().records == 10
    assert journal.purge() == 10
    assert two.read() is None
    assert files(tmp_path, ".seg") == files(tmp_path, ".segz") == []
    fill(journal, 10, 12)
    assert numbers(drain(one)) == numbers(drain(two)) == [10, 11]


def test_two_processes_never_share_a_journal(make, tmp_path, clock) -> None:
    make()
    with pytest.raises(JournalError, match="another process has it open; stop that one"):
        Journal(str(tmp_path), clock)


def test_a_place_that_cannot_be_a_directory_is_an_error_that_says_so(tmp_path, clock) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="give a directory the agent may write"):
        Journal(str(tmp_path / "file"), clock)


def test_restarts_in_a_row_go_on_in_the_same_file(make, tmp_path) -> None:
    for start in range(0, 30, 3):
        journal = make()
        journal.reader("a", "oldest")
        fill(journal, start, start + 3)
        journal.close()
    assert len(files(tmp_path, ".seg")) == 1
    assert numbers(drain(make().reader("a"))) == list(range(30))


def test_a_wall_clock_that_jumps_back_does_not_confuse_order(make, clock) -> None:
    journal = make(recent_bytes=0)
    reader = journal.reader("a")
    fill(journal, 100, 110)
    journal.flush()
    clock.step_wall(-86400)
    fill(journal, 0, 10)
    journal.sync()
    journal.tidy()
    assert numbers(drain(reader)) == [*range(100, 110), *range(10)]
    assert reader.lag().oldest_age_s == 0


def test_memory_holds_little_when_every_reader_is_up_to_date(make) -> None:
    journal = make()
    reader = journal.reader("a")
    for number in range(1000):
        journal.append(tick(number))
        journal.flush()
        drain(reader)
    assert len(list(journal._recent._kept)) <= 1
    assert journal.stats.waiting_records == 0
