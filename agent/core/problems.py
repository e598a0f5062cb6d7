"""What is wrong with a configuration, and where."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from agent.core.errors import VigilhostError

MOST_PROBLEMS = 100  # a file that is wrong throughout need not be read to its end
_MOST_SHOWN = 60  # characters of a file's text repeated in a message
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,60}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a text stands; lines and columns count from 1, line 0 means the whole file."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Problem:
    """One error or warning. `path` is the option (`collectors.cpu.interval`), empty for the file itself."""

    place: Place
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.path}: {self.text}" if self.path else f"{self.place}: {self.text}"


class ConfigError(VigilhostError):
    """The configuration cannot be used; `errors` has every reason found, in the order of the files."""

    def __init__(self, errors: Iterable[Problem]) -> None:
        self.errors = list(errors)
        super().__init__("\n".join(map(str, self.errors)))


def shown(text: str, most: int = _MOST_SHOWN) -> str:
    """A text of the file, quoted on one line and cut to a length that a message bears."""
    return repr(text if len(text) <= most else text[: most - 3] + "...")


def shown_key(key: str) -> str:
    """A key for a message. `token:abc` (no space) is one YAML key, so what follows the colon may be a secret."""
    name, colon, _ = key.partition(":")
    return shown(name + ":..." if colon else key)


def join(path: str, key: str) -> str:
    """`collectors` and `cpu` as `collectors.cpu`; a key that is no plain word is quoted."""
    step = key if _PLAIN_KEY.fullmatch(key) else shown_key(key)
    return f"{path}.{step}" if path else step


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'interval'?` where one of `known` is close to `word`, else nothing."""
    # A word this long is no typing error, and comparing it would take long.
    if len(word) > _MOST_SHOWN:
        return ""
    import difflib  # needed only once something is wrong

    close = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
