from __future__ import annotations

import contextlib
import errno
import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.core.clock import NS
from sinks.journal import Journal, Limits, segment
from sinks.journal.frame import build, scan
from tests.sinks.journal.damage import (
    READER,
    Sample,
    Script,
    at_call,
    flip,
    make_sample,
    open_on,
    script_calls,
    truncate,
)
from tests.sinks.journal.disk import Crash, Disk
from tests.sinks.journal.hosts import START_NS, HandClock, drain, fill, numbers, tick


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return make_sample(str(tmp_path_factory.mktemp("sample")))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(str(tmp_path))


def test_the_sample_has_every_kind_of_file(sample: Sample) -> None:
    kinds = {name.rsplit(".", 1)[1] for name in sample.files}
    assert kinds == {"seg", "segz", "cursor"}


def test_after_any_flipped_bit_exactly_the_damaged_records_are_missing(sample: Sample, disk: Disk) -> None:
    rng = random.Random(7)
    for _ in range(2000):
        flip(sample, disk, rng)


def test_after_a_cut_at_any_place_every_whole_record_comes(tmp_path: Path) -> None:
    """Every offset near the edges of records, and every 37th between; campaign.py takes every single one."""
    big = make_sample(str(tmp_path), 60)
    name = max(n for n in big.files if n.endswith(".seg"))
    content = big.files[name]
    edges = {f.start + d for f in scan(content) for d in range(-2, 35)}
    disk = Disk(str(tmp_path))
    for size in sorted({s for s in edges if 0 <= s <= len(content)} | set(range(0, len(content), 37))):
        truncate(big, disk, name, size)


def test_every_cut_of_a_64_kib_tail_leaves_exactly_the_whole_records(tmp_path: Path) -> None:
    disk = Disk(str(tmp_path))
    journal = open_on(disk, limits=Limits(min_free_bytes=0))
    for number in range(55):
        journal.append(tick(number, rows=40))
    journal.close()
    (name,) = (n for n in disk.names if n.endswith(".seg"))
    content = disk.content(name)
    assert len(content) >= 64 * 1024
    stops = [f.stop for f in scan(content) if f.kind in segment.TICKS]
    for size in range(len(content) - 64 * 1024, len(content)):
        tail_start = max((stop for stop in stops if stop <= size), default=0)
        # Up to `tail_start` nothing is cut; what matters is that nothing is made of the piece behind it.
        assert next(scan(content[tail_start:size]), None) is None or tail_start == 0
        if size in stops or size % 4096 == 0:
            found = segment.inspect(name, 1, content[:size])
            assert found.good_bytes == (tail_start or found.good_bytes)
            assert (found.segment.end - 1 if found.segment else 0) == sum(stop <= size for stop in stops)


_FAULTS: dict[str, Callable[[Disk, int], None]] = {}


def _fault(name: str) -> Callable[[Callable[[Disk, int], None]], Callable[[Disk, int], None]]:
    def add(function: Callable[[Disk, int], None]) -> Callable[[Disk, int], None]:
        _FAULTS[name] = function
        return function

    return add


def _error(code: int) -> Callable[[], None]:
    def fail() -> None:
        raise OSError(code, "injected")

    return fail


@_fault("EIO once")
def _eio(disk: Disk, nth: int) -> None:
    disk.before = at_call(disk, nth, _error(errno.EIO))


@_fault("ENOSPC for a while")
def _enospc(disk: Disk, nth: int) -> None:
    hook = at_call(disk, nth, _error(errno.ENOSPC), every=True)

    def before(call: str) -> None:
        if len(disk.calls) < nth + 40 and call in ("open", "write", "rename"):
            hook(call)

    disk.before = before


@_fault("read-only for a while")
def _erofs(disk: Disk, nth: int) -> None:
    hook = at_call(disk, nth, _error(errno.EROFS), every=True)
    disk.before = lambda call: hook(call) if len(disk.calls) < nth + 40 else None


@_fault("short write, then ENOSPC")
def _short(disk: Disk, nth: int) -> None:
    writes = 0

    def short() -> bool:
        nonlocal writes
        writes += len(disk.calls) + 1 >= nth
        return writes == 1

    disk.short = short

    def before(call: str) -> None:
        if writes == 2 and call == "write":
            raise OSError(errno.ENOSPC, "injected")

    disk.before = before


@_fault("failed sync loses what was written")
def _lossy(disk: Disk, nth: int) -> None:
    def before(call: str) -> None:
        if len(disk.calls) >= nth and call == "sync" and not disk.lost_pages:
            disk.lose_pages()
            raise OSError(errno.EIO, "injected")

    disk.before = before


@pytest.mark.parametrize("fault", list(_FAULTS))
def test_a_call_that_fails_loses_nothing_wherever_it_is(fault: str, tmp_path: Path) -> None:
    for nth in range(1, script_calls(str(tmp_path)) + 1):
        disk = Disk(str(tmp_path))
        script = Script(disk)
        _FAULTS[fault](disk, nth)
        script.run()
        disk.before, disk.short = (lambda call: None), (lambda: False)
        script.finish()
        assert numbers(script.got) == list(range(60)), f"{fault} at call {nth}"
        assert script.journal is not None
        script.journal.close()
        journal = open_on(disk)
        assert numbers(drain(journal.reader("slow"))) == list(range(60)), f"{fault} at call {nth}, after a restart"
        assert journal.stats.cursors["slow"].damaged_records == 0
        journal.close()


@pytest.mark.parametrize("moment", ["before", "after", "half way"])
@pytest.mark.parametrize("end", ["killed", "power lost"])
def test_a_crash_at_any_call_loses_nothing_that_was_promised(moment: str, end: str, tmp_path: Path) -> None:
    def die() -> None:
        raise Crash

    for nth in range(1, script_calls(str(tmp_path)) + 1):
        disk = Disk(str(tmp_path))
        script = Script(disk)
        if moment == "half way":
            disk.short = lambda disk=disk, nth=nth: len(disk.calls) + 1 == nth  # type: ignore[misc]
        if moment == "before":
            disk.before = at_call(disk, nth, die)
        else:
            disk.after = at_call(disk, nth, die)
        with pytest.raises(Crash):
            script.run()
        disk.die() if end == "killed" else disk.lose_power()
        promised = script.flushed if end == "killed" else script.synced
        journal = open_on(disk)
        where = f"{end} {moment} call {nth}"
        reader = journal.reader(READER, "oldest")
        assert reader.position > script.committed, where
        fill(journal, 60, 63)
        assert journal.sync(), where
        rest = numbers(drain(reader))
        assert rest == sorted(set(rest)), f"{where}: in order, none twice"
        missing = set(range(promised)) - set(numbers(script.got)) - set(rest)
        assert not missing, where
        assert rest[-3:] == [60, 61, 62], where
        journal.close()


def test_numbers_a_reader_had_before_a_kill_are_not_given_out_again(disk: Disk) -> None:
    journal = open_on(disk, limits=Limits(min_free_bytes=0))
    reader = journal.reader(READER)
    fill(journal, 0, 5)
    assert numbers(drain(reader)) == list(range(5)), "delivered from memory, before any flush"
    journal.tidy()
    disk.die()
    journal = open_on(disk)
    fill(journal, 5, 8)
    assert numbers(drain(journal.reader(READER))) == [5, 6, 7]
    journal.close()


def test_a_new_reader_is_remembered_through_a_power_loss_before_any_later_record_is(disk: Disk) -> None:
    journal = open_on(disk)
    journal.reader("first")
    fill(journal, 0, 3)
    assert journal.sync()
    known = len(disk.calls)
    journal.reader(READER, "oldest")
    assert len(disk.calls) == known, "whoever asks for a reader does not wait for a disk"
    fill(journal, 3, 4)
    assert journal.flush()
    disk.lose_power()
    journal = open_on(disk)
    assert journal.readers() == ["first", READER]
    assert numbers(drain(journal.reader(READER))) == [0, 1, 2]
    journal.close()


@pytest.mark.parametrize("is_refused_first", [False, True], ids=["a power loss", "an error, then a power loss"])
def test_a_backlog_that_is_handed_over_is_delivered_wherever_that_breaks_off(
    tmp_path: Path, is_refused_first: bool
) -> None:
    for call in itertools.count():
        directory = tmp_path / str(call)
        directory.mkdir()
        disk = Disk(str(directory))
        journal = open_on(disk)
        live = journal.reader(READER)
        fill(journal, 0, 10)
        assert journal.sync()
        known = len(disk.calls)
        live.fork("backlog")
        assert len(disk.calls) == known, "who hands over does not wait for a disk"
        seen = itertools.count()

        def break_off(_: str, at: int = call, seen: Iterator[int] = seen) -> None:
            number = next(seen)
            if number == 0 and is_refused_first:
                raise OSError(errno.EIO, "I/O error")
            if number == at:
                raise Crash

        disk.before = break_off
        with contextlib.suppress(Crash):
            journal.sync()
        disk.lose_power()
        journal = open_on(disk)
        delivered = [number for name in journal.readers() for number in numbers(drain(journal.reader(name)))]
        assert set(delivered) == set(range(10)), f"call {call}"
        journal.close()
        if next(seen) <= call:  # it did not break off
            assert delivered == list(range(10)), "once"
            break
    assert call > 5


def test_what_every_reader_has_had_is_not_lost_when_memory_is_full(disk: Disk) -> None:
    """On a host whose disk takes nothing for days, sinks that are up to date lose nothing, and no alert says so."""
    disk.before = _always(errno.EROFS)
    journal = open_on(disk, limits=Limits(min_free_bytes=0, memory_bytes=64 * 1024))
    reader = journal.reader(READER)
    for number in range(1000):
        fill(journal, number, number + 1)
        journal.flush()
        drain(reader)
    assert journal.stats.waiting_bytes < 66 * 1024
    assert (journal.tally.dropped_records, journal.stats.cursors[READER].lost_records) == (0, 0)
    fill(journal, 1000, 2000)
    lost = journal.stats.cursors[READER].lost_records
    assert 500 < lost == journal.tally.dropped_records < 1000
    disk.before = lambda _: None
    journal.close()


def test_a_reader_that_is_gone_leaves_no_file_and_its_name_can_be_had_anew(disk: Disk) -> None:
    journal = open_on(disk)
    journal.reader(READER)
    fill(journal, 0, 3)
    assert journal.sync()
    known = len(disk.calls)
    journal.remove(READER)
    assert len(disk.calls) == known
    assert journal.flush()
    assert not [name for name in disk.names if name.endswith(".cursor")]
    journal.reader(READER)
    journal.remove(READER)
    journal.reader(READER)
    fill(journal, 3, 5)
    journal.close()
    journal = open_on(disk)
    assert numbers(drain(journal.reader(READER))) == [3, 4]
    journal.close()


def test_nothing_is_deleted_for_a_place_that_could_not_be_made_durable(disk: Disk) -> None:
    clock = HandClock(START_NS / 1e9)
    journal = open_on(disk, clock, Limits(min_free_bytes=0, keep=0, segment_bytes=4096))
    reader = journal.reader(READER)
    for number in range(100):
        fill(journal, number, number + 1)
        journal.flush()
    drain(reader)
    clock.pass_time(1000)
    disk.before = _failing_at("open", errno.EIO)  # as cursors are opened to be written
    journal.tidy()
    disk.die()
    journal = open_on(disk)
    assert numbers(drain(journal.reader(READER))) == list(range(100)), "given again, as the commit was lost"
    journal.close()


def test_records_of_unknown_kinds_are_skipped_and_counted(disk: Disk) -> None:
    journal = open_on(disk)
    journal.reader(READER)
    fill(journal, 0, 3)
    journal.close()
    (name,) = (n for n in disk.names if n.endswith(".seg"))
    disk.names[name].data += build(99, 4, 0, 0, b"from a later version")
    journal = open_on(disk)
    fill(journal, 3, 5)
    journal.flush()
    assert numbers(drain(journal.reader(READER))) == [0, 1, 2, 3, 4]
    assert journal.tally.unknown_records == 1
    assert journal.tally.damaged_records == 0
    journal.close()


def test_files_of_a_newer_version_are_left_alone_and_told(disk: Disk) -> None:
    journal = open_on(disk)
    journal.reader(READER)
    fill(journal, 0, 3)
    journal.close()
    newer = b"vigilhost-journal\n" + (2).to_bytes(2, "little") + b"something else entirely"
    names = (segment.name_of(4), segment.name_of(900, packed=True))
    for name in names:
        fd = disk.open(name, 0o101)
        disk.write(fd, newer)
    journal = open_on(disk)
    assert sorted(journal.tally.newer) == sorted(names)
    fill(journal, 3, 5)
    journal.sync()
    journal.tidy()
    assert numbers(drain(journal.reader(READER))) == [0, 1, 2, 3, 4]
    assert journal.tally.damaged_records == 0, "numbers left free are not damage"
    assert all(disk.content(name) == newer for name in names)
    journal.close()


def test_a_file_that_cannot_be_read_is_set_aside_by_name(disk: Disk) -> None:
    told: list[tuple[str, object]] = []
    fd = disk.open(segment.name_of(1), 0o101)
    disk.write(fd, b"not a journal" * 100)
    clock = HandClock(START_NS / 1e9)
    journal = Journal(
        disk.directory, clock, files=disk, tell=lambda event, **facts: told.append((event, facts["file"]))
    )
    aside = f"{segment.name_of(1)}.corrupt-{START_NS // NS}"
    assert aside in disk.names
    assert journal.tally.set_aside == [aside]
    assert [(event, str(file).endswith(aside)) for event, file in told] == [("journal.set_aside", True)]
    fill(journal, 0, 2)
    assert journal.sync()
    assert numbers(drain(journal.reader(READER, "oldest"))) == [0, 1]
    journal.close()


def test_a_segment_that_becomes_unreadable_costs_only_itself(disk: Disk) -> None:
    journal = open_on(disk, limits=Limits(min_free_bytes=0, recent_bytes=0, segment_bytes=4096))
    reader = journal.reader(READER)
    for number in range(100):
        fill(journal, number, number + 1)
        journal.flush()
    first, second = sorted(n for n in disk.names if n.endswith(".seg"))[:2]
    read = disk.read
    disk.read = lambda path, size=-1: _error(errno.EIO)() if path.endswith(second) else read(path, size)  # type: ignore
    got = numbers(drain(reader))
    lost = set(range(100)) - set(got)
    assert lost == set(range(min(lost), max(lost) + 1))
    assert 0 not in lost
    assert 99 not in lost
    assert journal.stats.cursors[READER].damaged_records == len(lost) > 0
    assert any(second in name for name in journal.tally.set_aside)
    assert first in disk.names
    journal.close()


def test_memory_is_bounded_while_the_disk_takes_nothing_and_order_is_kept_after(disk: Disk) -> None:
    clock = HandClock(START_NS / 1e9)
    journal = open_on(disk, clock, Limits(min_free_bytes=0, recent_bytes=0, memory_bytes=64 * 1024))
    reader = journal.reader(READER)
    told: list[str] = []
    journal._shelf.tell = lambda event, **facts: told.append(event)
    fill(journal, 0, 5)
    assert journal.flush()
    disk.before = _always(errno.EROFS)
    for number in range(5, 1000):
        journal.append(tick(number))
        journal.flush()
        clock.pass_time(1)
    stats = journal.stats
    assert stats.is_failing
    assert stats.waiting_bytes <= 64 * 1024
    assert told == ["journal.write_failed"], "said once"
    lost = stats.cursors[READER].lost_records
    assert lost == stats.tally.dropped_records > 0
    disk.before = lambda call: None
    clock.pass_time(15)
    assert journal.flush()
    assert told == ["journal.write_failed", "journal.write_recovered"]
    assert numbers(drain(reader)) == [*range(5), *range(5 + lost, 1000)]
    assert journal.stats.cursors[READER].damaged_records == 0, "counted once, as lost"
    journal.close()


def test_a_disk_filled_by_the_journal_itself_gives_way_oldest_first(disk: Disk) -> None:
    clock = HandClock(START_NS / 1e9)
    journal = open_on(disk, clock, Limits(min_free_bytes=0, recent_bytes=0, segment_bytes=8192))
    reader = journal.reader(READER)
    room = 60_000

    def before(call: str) -> None:
        if call == "write" and sum(len(i.data) for i in disk.names.values()) > room:
            raise OSError(errno.ENOSPC, "full")

    disk.before = before
    disk.room = room
    for number in range(3000):
        journal.append(tick(number, rows=2 + number * 7 % 5))
        journal.flush()
        clock.pass_time(1)
        if number % 10 == 0:
            journal.tidy()
    disk.room = 1 << 40
    disk.before = lambda call: None
    clock.pass_time(20)
    assert journal.sync()
    lost = journal.stats.cursors[READER].lost_records
    assert 0 < lost < 2900
    assert numbers(drain(reader)) == list(range(lost, 3000))
    journal.close()


def _failing_at(name: str, code: int) -> Callable[[str], None]:
    def hook(call: str) -> None:
        if call == name:
            raise OSError(code, "injected")

    return hook


def _always(code: int) -> Callable[[str], None]:
    def hook(call: str) -> None:
        raise OSError(code, "injected")

    return hook
