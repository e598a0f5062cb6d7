"""Fill the place a journal lives in, go on appending, make room, and check that everything is there.

    python -m tests.sinks.journal.filled DIRECTORY (ballast|limit)

`ballast`: DIRECTORY is on a file system of 64 KiB, filled by another file. `limit`: no file may pass 2,500 bytes.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable

from sinks.journal import Journal, Limits
from tests.sinks.journal.hosts import HandClock, drain, numbers, tick


def fill_with_ballast(directory: str) -> Callable[[], None]:
    path = os.path.join(directory, "ballast")
    with open(path, "wb") as ballast:
        ballast.write(bytes(36 * 1024))
    return lambda: os.unlink(path)


def limit_file_size(directory: str) -> Callable[[], None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2500, hard))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def main(directory: str, how: str) -> None:
    clock = HandClock()
    make_room = {"ballast": fill_with_ballast, "limit": limit_file_size}[how](directory)
    journal = Journal(os.path.join(directory, "journal"), clock, Limits(min_free_bytes=0, recent_bytes=0))
    reader = journal.reader("sink")
    refused = 0
    for number in range(400):
        journal.append(tick(number))
        refused += not journal.flush()
        clock.pass_time(1)
        if number == 300:
            assert refused, "the place was not full"
            make_room()
    assert not journal.stats.is_failing, "did not recover"
    assert numbers(drain(reader, commit=False)) == list(range(400))
    journal.close()
    journal = Journal(os.path.join(directory, "journal"), clock)
    assert numbers(drain(journal.reader("sink"))) == list(range(400)), "after a restart"
    print(f"refused {refused} times, {dict(journal.tally.errors)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
