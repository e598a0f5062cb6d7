"""Runs as root in a mount namespace of its own: a disk of 512 KiB fills up under history, then grows.

`filling.py DIRECTORY`; prints `ok` when everything held.
"""

from __future__ import annotations

import random
import subprocess
import sys

from tests.sinks.history.small import Clock, at, opened, samples


def main(directory: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", directory], check=True)
    clock, rng = Clock(), random.Random(1)
    history = opened(directory, clock)
    taken: dict[int, float] = {}
    second, refused = 0, 0
    while refused < 5:
        for _ in range(30):
            taken[second] = rng.random()
            history.append(at(second, {"a": taken[second], **{f"n{n}": rng.random() for n in range(50)}}))
            second += 10
        clock.be_at(second)
        refused += not history.write()
        assert second < 100_000, "the disk never filled up"
    assert "full" in history.status().trouble, history.status().trouble
    assert dict(samples(history, "a")) == taken, "what the disk refused is in memory"
    subprocess.run(["mount", "-o", "remount,size=16m", directory], check=True)
    assert history.write(), history.status().trouble
    assert history.status().trouble == ""
    history.close()
    subprocess.run(["mount", "-o", "remount,ro", directory], check=True)
    read_only = opened(directory, clock)
    assert read_only.status().trouble
    read_only.append(at(second, {"a": 1.0}))
    assert not read_only.write()
    assert samples(read_only, "a") == [(second, 1.0)]
    subprocess.run(["mount", "-o", "remount,rw", directory], check=True)
    assert read_only.write(), read_only.status().trouble
    assert dict(samples(read_only, "a")) == {**taken, second: 1.0}
    read_only.close()
    print("ok")


if __name__ == "__main__":
    main(sys.argv[1])
