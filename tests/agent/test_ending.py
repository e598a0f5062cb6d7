from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from agent.ending import end_all


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
