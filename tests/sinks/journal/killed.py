"""Kill a process that works on a journal, again and again, and check after each kill what it had promised.

    python -m tests.sinks.journal.killed DIRECTORY ROUNDS [SEED]

Prints what was done; exits with 1 and the broken promise when there is one.
"""

from __future__ import annotations

import os
import random
import re
import select
import signal
import sys
import time
from dataclasses import dataclass, field

from agent.core.clock import SystemClock
from sinks.journal import Journal, Limits
from tests.sinks.journal.hosts import drain, number_of, numbers, tick

_LIMITS = Limits(min_free_bytes=0, max_age=1e10, keep=0, segment_bytes=8192, recent_bytes=4096)
_LONGEST_LIFE_S = 0.02  # from the first thing it has written
_LEFT_ALONE = 4  # one life in so many is killed without waiting for that: while it opens the journal
_FIRST_WORD_S = 60.0
_SAID = re.compile(rb"([FDC])(\d+)\n")  # flushed up to, delivered, durably committed up to


def open_journal(directory: str) -> Journal:
    return Journal(directory, SystemClock(), _LIMITS)


def live(directory: str, start: int, say: int) -> None:
    """Append, write, deliver and commit until killed, and say each promise once it is made."""
    journal = open_journal(directory)
    sink = journal.reader("sink", "oldest")
    journal.reader("check", "oldest")
    number = start
    while True:
        for _ in range(random.randrange(1, 8)):
            journal.append(tick(number, rows=1 + number % 3))
            number += 1
        if journal.flush():
            os.write(say, b"F%d\n" % (number - 1))
        chance = random.random()
        if chance < 0.5 and (batch := sink.read(10)) is not None:
            os.write(say, b"".join(b"D%d\n" % number_of(one) for one in batch.ticks))
            sink.commit(batch.next_position)
            if chance < 0.2 and journal.sync():
                os.write(say, b"C%d\n" % number_of(batch.ticks[-1]))
        if chance > 0.9:
            journal.tidy()


@dataclass
class Ledger:
    """What was promised so far."""

    start: int = 0  # of the next life
    flushed: set[int] = field(default_factory=set)
    written: int = 0  # records in all
    delivered: set[int] = field(default_factory=set)
    committed: int = -1
    checked: int = -1

    def note(self, said: bytes) -> None:
        """Read what a life said before it ended. Raise AssertionError when it delivered what was committed."""
        first = self.start
        for kind, text in _SAID.findall(said):
            number = int(text)
            if kind == b"F":
                self.flushed.update(range(first, number + 1))
                self.written += number + 1 - first
                first = number + 1
            elif kind == b"D":
                assert number > self.committed, f"{number} delivered again after the commit of {self.committed}"
                self.delivered.add(number)
            else:
                self.committed = number

    def check(self, got: list[int]) -> None:
        """Compare with what a reader of its own found in the files."""
        assert got == sorted(set(got)), "records are out of order or come twice"
        assert not got or got[0] > self.checked, f"{got[0]} came again"
        missing = sorted(n for n in self.flushed - set(got) if n > self.checked)
        assert not missing, f"written and lost: {missing}"
        self.flushed -= {n for n in self.flushed if n in self.delivered}
        self.checked = max(got, default=self.checked)


def one_round(directory: str, ledger: Ledger, rng: random.Random) -> None:
    hear, say = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(hear)
            random.seed(rng.random())
            live(directory, ledger.start, say)
        finally:
            os._exit(3)
    os.close(say)
    if rng.randrange(_LEFT_ALONE):
        said_something, _, _ = select.select([hear], [], [], _FIRST_WORD_S)
        assert said_something, f"nothing written within {_FIRST_WORD_S:g} s"
    time.sleep(rng.random() * _LONGEST_LIFE_S)  # how long a life lasts is what varies here
    os.kill(child, signal.SIGKILL)
    with open(hear, "rb") as heard:
        said = heard.read()
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"it ended by itself with {status}"
    ledger.note(said)
    journal = open_journal(directory)
    got = numbers(drain(journal.reader("check", "oldest")))
    assert not journal.tally.damaged_records, "a kill damages nothing"
    ledger.start = max([ledger.start, *ledger.flushed, *ledger.delivered, *got]) + 1000
    ledger.check(got)
    journal.close()


def run(directory: str, rounds: int, seed: int = 1) -> str:
    """What was done. Raise SystemExit naming the promise that was broken."""
    rng = random.Random(seed)
    ledger = Ledger()
    for done in range(rounds):
        try:
            one_round(directory, ledger, rng)
        except AssertionError as broken:
            sys.exit(f"round {done} of seed {seed}: {broken}")
    journal = open_journal(directory)
    delivered = ledger.delivered | set(numbers(drain(journal.reader("sink", "oldest"))))
    journal.close()
    if not ledger.flushed <= delivered:
        sys.exit(f"written and never delivered: {sorted(ledger.flushed - delivered)[:20]}")
    if ledger.written < rounds // 2:
        sys.exit(f"only {ledger.written} records were written in {rounds} lives: that proves nothing")
    counts = f"{rounds} kills, {ledger.written} records written, {len(delivered)} delivered"
    return f"{counts}, none lost, none again after a commit"


if __name__ == "__main__":
    print(run(sys.argv[1], int(sys.argv[2]), *map(int, sys.argv[3:])))
