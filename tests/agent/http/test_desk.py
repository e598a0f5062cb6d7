from __future__ import annotations

import asyncio
import os
import threading

import pytest

from agent.http.desk import Desk


def nice_of(is_rule: bool) -> int:
    """The priority of the thread that answers."""

    async def ask() -> int:
        own = lambda _: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())  # noqa: E731
        return await Desk().ask(own, 20.0, is_rule=is_rule)

    return asyncio.run(ask())


def test_people_give_way_to_collecting_and_rules_do_not() -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert nice_of(is_rule=True) == own
    assert nice_of(is_rule=False) > own


def test_where_a_sandbox_forbids_to_give_way_people_are_answered_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setpriority", forbidden)
    assert nice_of(is_rule=False) == os.getpriority(os.PRIO_PROCESS, 0)
