"""The series of a unit-test file: `up{job="node"}` and `1+2x5 _x3 stale NaN`, in promtool's notation.

Facts: Prometheus' reference of unit tests for rules. Histograms, `{{...}}`, are refused: this agent keeps none.
"""

from __future__ import annotations

import re
from typing import Final

_NUMBER: Final = r"[+-]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|[iI][nN][fF]|[nN][aA][nN])"
_UNSIGNED: Final = r"(?:(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|[iI][nN][fF]|[nN][aA][nN])"
_ITEM: Final = re.compile(rf"({_NUMBER})(?:([+-])({_UNSIGNED}))?(?:x(\d+))?(?![\w.+-])|_(?:x(\d+))?(?!\w)|stale(?!\w)")
_MOST: Final = 1_000_000  # samples of one series


class Stale:
    """Stands for the marker that ends a series."""


STALE: Final = Stale()

Item = float | Stale | None  # None: no sample at this step


def parse_values(text: str) -> list[Item]:
    """One entry a step. Raise ValueError with the place and the right form."""
    found: list[Item] = []
    at = 0
    body = text.rstrip()
    while at < len(body):
        if body[at] in " \t":
            at += 1
            continue
        item = _ITEM.match(body, at)
        if item is None or (item.end() < len(body) and body[item.end()] not in " \t"):
            raise ValueError(_complaint(body, at))
        found += _expanded(item, body)
        if len(found) > _MOST:
            raise ValueError(f"more than {_MOST} samples")
        at = item.end()
    return found


def _expanded(item: re.Match[str], text: str) -> list[Item]:
    number, sign, increment, times, gaps = item.groups()
    if number is None:
        if item[0] == "stale":
            return [STALE]
        return [None] * _count(gaps or "1")
    if increment is None:
        return [float(number)] * (_count(times) + 1 if times is not None else 1)
    if times is None:
        raise ValueError(f"{item[0]!r}: {_complaint(text, item.start())}")
    start, by = float(number), float(increment) * (-1 if sign == "-" else 1)
    found: list[Item] = []
    value = start
    for _ in range(_count(times) + 1):  # added up one after another, as promtool does
        found.append(value)
        value += by
    return found


def _count(text: str) -> int:
    return min(int(text[:8]), _MOST)


def _complaint(text: str, at: int) -> str:
    if text.startswith("{{", at):
        return f"column {at + 1}: histograms are not kept here; write plain numbers"
    return f"column {at + 1}: found {text[at : at + 20]!r}; write it like 1 2.5 _ stale 1+1x10 0x5 _x3"
