"""Choosing values by position, in C where it pays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

Picker = Callable[[Sequence[Any]], tuple[Any, ...]]


def picker(places: Sequence[int], length: int = -1) -> Picker:
    """A function that gives the values at `places` as a tuple; `length`: of the whole, where it may be all of them."""
    if len(places) == length:
        return tuple
    if not places:
        return lambda _: ()
    if len(places) == 1:
        only = places[0]
        return lambda values: (values[only],)
    return itemgetter(*places)
