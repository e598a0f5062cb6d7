from __future__ import annotations

import asyncio
import sqlite3

import pytest
from structlog.testing import capture_logs

from agent.core.clock import FakeClock
from agent.troubles import AFTER_A_FAULT_S, Troubles


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (sqlite3.OperationalError("disk I/O error"), "disk I/O error"),
        (TimeoutError("alerts: an earlier call has not come back"), "alerts: an earlier call has not come back"),
        (TimeoutError(), "alerts.cannot_tell: no answer in time"),
        (KeyError("gone"), "alerts.cannot_tell: it failed in itself: KeyError: 'gone'"),
    ],
)
def test_a_trouble_is_a_sentence(error: Exception, sentence: str) -> None:
    troubles = Troubles(FakeClock(), "alerting")
    troubles.fault("alerts.cannot_tell", error)
    assert list(troubles) == [sentence]


def test_the_same_of_several_is_said_and_logged_once_and_each_ends_for_itself() -> None:
    troubles = Troubles(FakeClock(), "alerting")
    with capture_logs() as logs:
        for group in ("disk", "cpu", "disk"):
            troubles.fault("rules.cannot_evaluate", OSError("no room"), group)
    assert (list(troubles), len(logs)) == (["no room"], 1)
    troubles.clear("rules.cannot_evaluate", "disk")
    assert list(troubles) == ["no room"]
    troubles.keep_only("rules.cannot_evaluate", {"disk"})
    assert not troubles


async def test_what_is_insisted_on_pauses_after_each_failure_and_ends_its_trouble() -> None:
    clock = FakeClock()
    troubles = Troubles(clock, "alerting")
    failures: list[Exception] = [OSError("no room"), ZeroDivisionError("division by zero")]
    tries: list[float] = []
    began = clock.monotonic()

    async def step() -> str:
        tries.append(clock.monotonic() - began)
        if failures:
            raise failures.pop(0)
        return "done"

    insisting = asyncio.create_task(troubles.insist("a.step", step))
    await clock.advance(AFTER_A_FAULT_S - 1)
    assert list(troubles) == ["no room"]
    await clock.advance(AFTER_A_FAULT_S + 1)
    assert (await insisting, tries) == ("done", [0.0, AFTER_A_FAULT_S, 2 * AFTER_A_FAULT_S])
    assert not troubles
