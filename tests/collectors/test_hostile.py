"""Damaged hosts: whatever the files hold, a collector gives readings or a SourceError, and both dialects take them.

Every file of the fixture tree may be cut short, emptied, overwritten with noise, replaced by something that cannot be
read, or taken away. What was damaged is repaired afterwards, and the collector that saw it works again.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.config.tables import COLLECTORS
from agent.core.errors import SourceError
from agent.core.model import Failed, Reading, Tick
from collectors.influx_line import parse_influx_lines
from sinks.line_protocol import Encoder
from sinks.prometheus import Exposition
from tests.collectors import every
from tests.collectors.hosts import HostTree

ROUNDS = {"small": 10, "big": 2, "container": 10}
SEED = int(os.environ.get("HOSTILE_SEED", "1"))  # another one, and HOSTILE_ROUNDS, search elsewhere and for longer
FACTOR = int(os.environ.get("HOSTILE_ROUNDS", "1"))

_WORDS = (b"\n", b" ", b":", b"\0", b"-1", b"9" * 25, b"nan", b"0x1f", b"1e309", b"\xff\xfe", b'"', b"\\", b"{}", b"=",
          b"%s", "é\u2028".encode(), b"\x1b[31m", b"cpu", b"99999999999999999999999999", b"\t", b"\r\n")  # fmt: skip


def _cut(text: bytes, rng: random.Random) -> bytes:
    return text[: rng.randrange(len(text) + 1)]


def _noise(text: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(1, 300))


def _words(text: bytes, rng: random.Random) -> bytes:
    return b" ".join(rng.choice(_WORDS) for _ in range(rng.randrange(1, 40)))


def _spliced(text: bytes, rng: random.Random) -> bytes:
    """The file with some of its bytes replaced, which keeps most of its form."""
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(_WORDS) + text[at + rng.randrange(12) :]
    return text


def _shuffled(text: bytes, rng: random.Random) -> bytes:
    words = text.split(b" ")
    rng.shuffle(words)
    return b" ".join(words)


def _repeated(text: bytes, rng: random.Random) -> bytes:
    return text * 3


def _empty(text: bytes, rng: random.Random) -> bytes:
    return b""


CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _cut, _cut, _noise, _words, _spliced, _spliced, _spliced, _shuffled, _repeated, _empty,
)  # fmt: skip


def _unreadable(path: Path) -> None:
    """EISDIR for whoever reads it; file modes would not stop root."""
    path.unlink()
    path.mkdir()


def _looping(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


REPLACEMENTS: tuple[Callable[[Path], None], ...] = (_unreadable, _looping, Path.unlink)


@contextmanager
def damaged(tree: HostTree, rng: random.Random, share: float) -> Iterator[None]:
    """About this share of the files broken, each in its own way, and whole again afterwards."""
    files = [path for path in sorted(tree.path.rglob("*")) if path.is_file() and not path.is_symlink()]
    originals: dict[Path, bytes] = {}
    try:
        for path in files:
            if rng.random() > share:
                continue
            originals[path] = path.read_bytes()
            if rng.random() < 0.2:
                rng.choice(REPLACEMENTS)(path)
            else:
                path.write_bytes(rng.choice(CHANGES)(originals[path], rng))
        yield
    finally:
        for path, content in originals.items():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.is_symlink():
                path.unlink()
            path.write_bytes(content)


def speaks_both_dialects(tick: Tick) -> None:
    """Every line and every sample can be read back."""
    lines = Encoder({"host": "hostile"}).encode([tick])
    assert len(parse_influx_lines("\n".join(lines).encode())) == len(lines)
    page = Exposition().render([tick])
    page.encode()
    read = sum(len(family.samples) for family in text_string_to_metric_families(page))
    assert read == sum(not line.startswith("#") for line in page.split("\n")[:-1])


@pytest.mark.parametrize("host", sorted(ROUNDS))
@pytest.mark.parametrize("share", [0.2, 0.9])
def test_a_damaged_host_gives_readings_or_a_source_error(host: str, share: float, tmp_path: Path) -> None:
    tree = HostTree(host, tmp_path)
    every.settle_files(tree)
    clock = every.Clock()
    with every.same_everywhere():
        for turn in range(ROUNDS[host] * FACTOR):
            seed = f"{SEED}/{host}/{share}/{turn}"
            built = [every.build(name, tree.host, clock) for name in every.NAMES]
            healthy = {tick.collector for tick in every.run(built, clock).ticks}
            with damaged(tree, random.Random(seed), share):
                for _ in range(2):
                    clock.passed += every.LATER_S
                    for collector in built:
                        try:
                            items = list(collector.collect())
                        except SourceError as error:
                            assert str(error)  # noqa: PT017  # any other exception fails the test by itself
                            continue
                        except Exception as error:
                            error.add_note(f"{collector.name}, seed {seed}")
                            raise
                        assert {type(item) for item in items} <= {Reading, Failed}
                        speaks_both_dialects(Tick(1, collector.name, [i for i in items if isinstance(i, Reading)]))
            clock.passed += 60
            again = every.run(built, clock)
            assert {tick.collector for tick in again.ticks} == healthy, seed
            for collector in built:
                every.close(collector)


NAMES_WITH_NUL = [
    ("bonding", "sys/class/net/bonding_masters", b"bo\0nd\n", "of a bond"),
    ("bonding", "sys/class/net/bond0/bonding/slaves", b"en\0o1 eno2\n", "of a part of a bond"),
    ("disk", "proc/1/mountinfo", b"28 1 25\0:1 / /mnt/a\\000b\\012 rw - ext4 /dev/mapper/x\\000y rw\n", "of a mount"),
    ("diskio", "proc/diskstats", b"8 \x000 s\0da 1 2 3 4 5 6 7 8 9 10 11\n", "of a disk"),
    ("mdadm", "proc/mdstat", b"md\x000 : active raid1 sda[0] sdb[1]\n      1024 blocks [2/2] [UU]\n\n", "of an array"),
    ("net", "proc/net/dev", b"\n\n et\0h0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n", "of an interface"),
]


@pytest.mark.parametrize(("name", "file", "content", "what"), NAMES_WITH_NUL, ids=[row[3] for row in NAMES_WITH_NUL])
def test_a_nul_in_a_name_breaks_nothing(name: str, file: str, content: bytes, what: str, tmp_path: Path) -> None:
    """Such a name comes from a file that is no longer what it was, and then no file can be called so."""
    tree = HostTree("big", tmp_path)
    tree.write(file, content)
    collector = COLLECTORS.find(name)(host=tree.host)
    try:
        speaks_both_dialects(every.tick_of(collector, every.Clock()))
    except SourceError as error:
        print(f"{what}: {error}")  # an answer as good as readings without it
    finally:
        every.close(collector)
