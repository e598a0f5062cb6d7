"""How the parts of the agent run and end: side by side, so that none stops another or uses up its time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

import structlog

log = structlog.get_logger("agent")


class Running:
    """The parts that run. `fallen`: those that ended by a mistake of ours, and why."""

    def __init__(self) -> None:
        self.fallen: dict[str, str] = {}

    def begin(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a part beside the others. Should it end by an exception, people must see that it is gone."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._has_ended)
        return task

    def _has_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        name = task.get_name()
        self.fallen[name] = f"{type(error).__name__}: {error}"
        log.error("agent.part_ended", part=name, reason=self.fallen[name], exc_info=error,
                  consequence="it does nothing until the agent is restarted")  # fmt: skip


async def end_all(parts: Mapping[str, Coroutine[Any, Any, object]], within_s: float) -> None:
    """Let each part end. One that fails is said with its traceback, one that overstays is said and left behind."""
    names = {asyncio.create_task(work, name=f"end-{name}"): name for name, work in parts.items()}
    if not names:
        return
    ended, late = await asyncio.wait(names, timeout=within_s)
    for task in ended:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("agent.part_not_ended", part=names[task], reason=str(error), exc_info=error)
    for task in late:
        log.warning("agent.part_left", part=names[task], after_s=within_s)
        task.cancel()
