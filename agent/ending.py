"""How the agent ends: its parts side by side, for what one waits for must not use up the time of another."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

import structlog

log = structlog.get_logger("agent")


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
