"""Damage done on purpose, and what must be left after it. Used by the tests and, for longer, by campaign.py."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from agent.core.model import Tick
from sinks.journal import Journal, Limits
from sinks.journal.frame import scan
from sinks.journal.segment import DEFINITIONS, TICKS, unpack
from tests.sinks.journal.disk import Disk, Inode
from tests.sinks.journal.hosts import START_NS, HandClock, drain, numbers, tick, told

LIMITS = Limits(min_free_bytes=0, recent_bytes=0, segment_bytes=5 * 1024)
READER = "influx"


def open_on(disk: Disk, clock: HandClock | None = None, limits: Limits = LIMITS) -> Journal:
    return Journal(disk.directory, clock or HandClock(START_NS / 1e9), limits, files=disk)


@dataclass
class Sample:
    """A journal that was written without trouble."""

    files: dict[str, bytes]
    ticks: list[Tick]  # record number 1 is ticks[0]

    def on(self, disk: Disk) -> None:
        disk.names = {name: Inode(bytearray(content), content) for name, content in self.files.items()}
        disk.durable_names = dict(disk.names)


def make_sample(directory: str, count: int = 90, *, rows: int = 3, limits: Limits = LIMITS) -> Sample:
    """A journal of `count` Ticks, packed and plain segments, with a cursor at the oldest."""
    disk = Disk(directory)
    clock = HandClock(START_NS / 1e9)
    journal = open_on(disk, clock, limits)
    journal.reader(READER)
    ticks = [tick(n, collector=f"c{n % 3}", rows=rows if n % 40 else rows + 2) for n in range(count)]
    for number, one in enumerate(ticks):
        journal.append(one)
        if number % 4 == 3:
            journal.flush()
        if number == count // 2:
            journal.tidy()
    journal.close()
    return Sample({name: disk.content(name) for name in disk.names}, ticks)


def damaged_numbers(name: str, content: bytes, offset: int) -> set[int]:
    """The records that a change at `offset` of a segment may cost."""
    for outer in scan(content):
        if outer.start <= offset < outer.stop and outer.kind not in DEFINITIONS:
            return {record.number for record in unpack(outer) if record.kind in TICKS}
    return set()


def flip(sample: Sample, disk: Disk, rng: random.Random) -> str:
    """Flip one bit anywhere, open, read; raise AssertionError unless exactly the damaged records are missing."""
    sample.on(disk)
    name = rng.choices(list(sample.files), [len(content) for content in sample.files.values()])[0]
    offset, bit = rng.randrange(len(sample.files[name])), rng.randrange(8)
    disk.names[name].data[offset] ^= 1 << bit
    lost = damaged_numbers(name, sample.files[name], offset) if ".seg" in name else set()
    what = f"bit {bit} of byte {offset} of {name}"
    wanted = [told(one) for number, one in enumerate(sample.ticks, 1) if number not in lost]
    journal = open_on(disk)
    got = [told(one) for one in drain(journal.reader(READER, "oldest"))]
    assert got == wanted, what
    assert journal.stats.cursors[READER].damaged_records in (len(lost), 0), what  # at the very end none is known
    journal.append(tick(10_000))
    assert journal.sync(), what
    assert numbers(drain(journal.reader(READER))) == [10_000], what
    journal.close()
    return what


def truncate(sample: Sample, disk: Disk, name: str, size: int) -> None:
    """Cut the newest segment to `size` bytes; every record whole before that must come, and new ones after them."""
    sample.on(disk)
    content = sample.files[name]
    del disk.names[name].data[size:]
    lost = {f.number for f in scan(content) if f.kind in TICKS and f.stop > size}
    journal = open_on(disk)
    reader = journal.reader(READER, "oldest")
    journal.append(tick(10_000))
    assert journal.sync()
    got = [told(one) for one in drain(reader)]
    whole = [one for number, one in enumerate(sample.ticks, 1) if number not in lost]
    assert got == [told(one) for one in (*whole, tick(10_000))], f"cut at {size}"
    journal.close()


class Script:
    """A journal's ordinary life, short: appends, writes, syncs, closes files, packs, deletes, reads and commits."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.clock = HandClock(START_NS / 1e9)
        self.appended = 0
        self.flushed = 0  # appended before a flush that said yes
        self.synced = 0
        self.got: list[Tick] = []
        self.committed = 0  # durably: what must not come again
        self.journal: Journal | None = None

    def run(self) -> None:
        limits = Limits(min_free_bytes=0, recent_bytes=1500, segment_bytes=4096, keep=3)
        self.journal = journal = Journal(self.disk.directory, self.clock, limits, files=self.disk)
        reader = journal.reader(READER, "oldest")
        journal.reader("slow", "oldest")
        for number in range(60):
            journal.append(tick(number))
            self.appended += 1
            if number % 2:
                self._flush(journal)
            if number % 5 == 4:
                self._sync(journal)
            if number % 7 == 6:
                batch = reader.read(5)
                if batch is not None:
                    self.got += batch.ticks
                    reader.commit(batch.next_position)
            if number % 10 == 9:
                journal.tidy()
            self.clock.pass_time(1)

    def finish(self) -> None:
        """Let the disk be well again and the retries come due."""
        assert self.journal is not None
        self.clock.pass_time(20)
        self.journal.tidy()
        assert self.journal.sync(), "recovers by itself"
        self.got += drain(self.journal.reader(READER))

    def _flush(self, journal: Journal) -> None:
        if journal.flush():
            self.flushed = self.appended

    def _sync(self, journal: Journal) -> None:
        committed = journal.stats.cursors[READER].position - 1
        if journal.sync():
            self.flushed = self.synced = self.appended
            self.committed = max(self.committed, committed)


def script_calls(directory: str) -> int:
    disk = Disk(directory)
    script = Script(disk)
    script.run()
    disk.die()
    return len(disk.calls)


def at_call(disk: Disk, nth: int, do: Callable[[], None], *, every: bool = False) -> Callable[[str], None]:
    """A hook that acts at the nth call from now (and at every later one)."""
    start = len(disk.calls)

    def hook(call: str) -> None:
        made = len(disk.calls) - start
        if made == nth or (every and made > nth):
            do()

    return hook
