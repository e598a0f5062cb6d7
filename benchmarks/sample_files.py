"""Files to back up, such as hosts have: half programs and texts, a quarter logs, a quarter photographs.

The half is copied from /usr of this machine, files as they are and in the sizes that they have. The logs are a web
server's, made up; the photographs are random bytes, because what is compressed cannot be compressed again.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

MIB = 1 << 20
FOUND_IN = ("/usr/bin", "/usr/lib", "/usr/share")  # a third of the half from each, or as much as there is
LOG_MIB, PHOTOGRAPH_MIB = 32, 4
_LINES = 20_000  # of a log, made at once
_STATUSES = {200: 88, 304: 6, 404: 4, 302: 1, 500: 1}
_PAGES, _CLIENTS, _AGENTS = 3000, 8000, 80


def fill_files(directory: Path, megabytes: int) -> None:
    """About so many MiB; the same ones wherever /usr is the same."""
    chance = random.Random(1)
    for place in FOUND_IN:
        copy_files(place, directory / "usr" / Path(place).name, megabytes * MIB // 2 // len(FOUND_IN))
    (directory / "logs").mkdir(parents=True)
    for number, text in zip(range(max(1, megabytes // 4 // LOG_MIB)), logs(chance, LOG_MIB * MIB), strict=False):
        (directory / "logs" / f"access.log.{number}").write_text(text)
    (directory / "photographs").mkdir()
    for number in range(megabytes // 4 // PHOTOGRAPH_MIB):
        (directory / "photographs" / f"{number}.jpg").write_bytes(chance.randbytes(PHOTOGRAPH_MIB * MIB))


def copy_files(place: str, to: Path, size: int) -> None:
    """The regular files below a directory, by name, until they are so many bytes; one that has several names once."""
    seen: set[int] = set()
    for parent, directories, names in os.walk(place):
        directories.sort()
        for name in sorted(names):
            file = Path(parent, name)
            if file.is_symlink() or not file.is_file() or (found := file.stat()).st_ino in seen:
                continue
            seen.add(found.st_ino)
            size -= found.st_size
            if size < 0:
                return
            copied = to / file.relative_to(place)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, copied)


def logs(chance: random.Random, size: int) -> Iterator[str]:
    """Logs in nginx's format `combined`, of about so many characters each: some clients and pages are frequent."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    clients = [f"{chance.randrange(1, 224)}.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(256)}"
               for _ in range(_CLIENTS)]  # fmt: skip
    agents = [f"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
              f"Chrome/{chance.randrange(80, 130)}.0.{chance.randrange(6000)}.{chance.randrange(200)} Safari/537.36"
              for _ in range(_AGENTS)]  # fmt: skip
    pages = [f"/{chance.choice(('orders', 'items', 'static', 'api/v1/users'))}/{chance.randrange(10**6)}"
             for _ in range(_PAGES)]  # fmt: skip

    def often(what: list[str]) -> list[str]:
        """Zipf's law: the nth is seen 1/n as often as the first."""
        weights = list(itertools.accumulate(1 / n for n in range(1, len(what) + 1)))
        return chance.choices(what, cum_weights=weights, k=_LINES)

    text: list[str] = []
    while True:
        statuses = chance.choices(list(_STATUSES), list(_STATUSES.values()), k=_LINES)
        for client, page, status, from_page, agent in zip(
            often(clients), often(pages), statuses, often(pages), often(agents), strict=True
        ):
            at += timedelta(seconds=chance.expovariate(5.0))
            text.append(f'{client} - - [{at:%d/%b/%Y:%H:%M:%S} +0000] "GET {page} HTTP/1.1" {status} '
                        f'{chance.randrange(200, 40_000)} "https://shop.example.org{from_page}" "{agent}"'
                        "\n")  # fmt: skip
        if len(text) * len(text[0]) >= size:
            yield "".join(text)
            text = []
