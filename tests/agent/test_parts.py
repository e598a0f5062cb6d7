from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from agent.parts import Running, end_all


async def test_what_one_part_waits_for_holds_up_no_other() -> None:
    ended = []

    async def hang() -> None:
        await asyncio.Event().wait()

    async def fail() -> None:
        raise OSError("no space left on device")

    async def end(name: str) -> None:
        await asyncio.sleep(0)
        ended.append(name)

    with capture_logs() as logs:
        await end_all({"alerting": hang(), "sinks": end("sinks"), "history": fail(), "server": end("server")}, 0.2)
    assert sorted(ended) == ["server", "sinks"]
    said = {entry["part"]: (entry["event"], entry.get("reason")) for entry in logs}
    assert said == {
        "alerting": ("agent.part_left", None),
        "history": ("agent.part_not_ended", "no space left on device"),
    }


async def test_nothing_to_end_is_no_wait() -> None:
    await end_all({}, 60)


async def test_a_part_that_ends_by_a_mistake_is_said_and_remembered() -> None:
    running = Running()

    async def broken() -> None:
        raise ZeroDivisionError("division by zero")

    async def fine() -> None: ...

    with capture_logs() as logs:
        tasks = [running.begin("history", broken()), running.begin("control", fine())]
        await asyncio.wait(tasks)
        await asyncio.sleep(0)  # for what is called when they are done
    assert running.fallen == {"history": "ZeroDivisionError: division by zero"}
    assert [(entry["event"], entry["part"]) for entry in logs] == [("agent.part_ended", "history")]
