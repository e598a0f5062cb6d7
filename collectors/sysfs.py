"""Reading the small files of sysfs and procfs, of which any may be absent, empty or refuse to be read."""

from __future__ import annotations

import os
import re

from agent.core.errors import SourceMissing
from agent.core.host import source_error

_MOST_BYTES = 4096  # sysfs gives one page per attribute


def read_attribute(path: str) -> bytes | None:
    """The content of one attribute, at most a page; None when it is absent or the driver refuses.

    A driver answers EINVAL, EAGAIN, EIO or ENODATA for what it cannot tell now, so each of them means "not known".
    """
    try:
        # Without O_NONBLOCK a sensor whose hardware sleeps would hold the whole collector.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):  # ValueError: a damaged file gave a name with a NUL, and no file is called so
        return None
    try:
        return os.read(fd, _MOST_BYTES)
    except OSError:
        return None
    finally:
        os.close(fd)


def read_text(path: str) -> str | None:
    """An attribute as text without the blanks around it; None when it cannot be read."""
    content = read_attribute(path)
    return None if content is None else content.decode("utf-8", "replace").strip("\n\t\0 ")


def read_int(path: str) -> int | None:
    """A decimal (or `0x` hexadecimal) attribute; None when it cannot be read or is no number."""
    content = read_attribute(path)
    return None if content is None else parse_int(content)


def parse_int(text: bytes) -> int | None:
    """The number in `text`, None when there is none or it has more than 64 bits, which no counter has."""
    try:
        number = int(text, 16) if text.startswith(b"0x") else int(text)
    except ValueError:
        return None
    return number if -(1 << 63) <= number < 1 << 64 else None


def list_names(path: str) -> list[str]:
    """The entries of a directory, sorted. Raise SourceMissing when it does not exist, SourceError when unreadable."""
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        raise source_error(error) from error


def list_some(path: str, missing: str) -> list[str]:
    """Like `list_names`, and raise SourceMissing with the text `missing` when the directory is empty."""
    names = list_names(path)
    if not names:
        raise SourceMissing(f"{path}: {missing}")
    return names


def as_text(name: str) -> str:
    """A file name from the kernel as text that can be sent on: bytes that are not UTF-8 become U+FFFD."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "replace")


def compiled(option: str, pattern: str) -> re.Pattern[str]:
    """The pattern of an option. Raise ValueError naming the option when it is not a regular expression."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{option}: {pattern!r} is not a regular expression: {error}") from error
