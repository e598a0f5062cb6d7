"""The daemon's part of backups: waits for the next slot, has its job run, and remembers how that went.

One job at a time. A slot is remembered as done only after its run succeeded; whatever dies in between is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from agent.core.clock import NS, Clock
from agent.core.waiting import sleep_unless
from backup import histories
from backup.errors import BackupError
from backup.job import Job
from backup.runner import Outcome, Runner
from backup.schedule import History, Run, next_run

log = structlog.get_logger("backup")

LOOK_AGAIN_S = 60.0  # the wall clock may be set while we wait

OnEvent = Callable[[Mapping[str, Any]], None]
OnOutcome = Callable[[str, Outcome], None]


class Scheduler:
    """Runs the jobs of `jobs`; `on_outcome` gets the name and outcome of each run, `on_event` what workers say.

    `problem`: why histories cannot be kept, or a result not shown, for the health page; None while all is well.
    """

    def __init__(self, jobs: Mapping[str, Job], runner: Runner, state_file: str, clock: Clock, *,
                 on_event: OnEvent, on_outcome: OnOutcome) -> None:  # fmt: skip
        self.running: str | None = None
        self.problem: str | None = None
        self._runner = runner
        self._state_file = state_file
        self._clock = clock
        self._on_event = on_event
        self._on_outcome = on_outcome
        self._requested: list[str] = []
        self._changed = asyncio.Event()
        self._jobs: dict[str, Job] = {}
        self._histories, damage = histories.load(state_file)
        self.reload(jobs)
        if damage is not None:
            self.problem = damage

    def reload(self, jobs: Mapping[str, Job]) -> None:
        """Take other jobs from now on; a run that is on goes on. The histories of jobs that are gone are kept."""
        now = self._now()
        self._jobs = dict(jobs)
        for name in jobs:
            self._histories.setdefault(name, History(now))
        self._save()
        self._changed.set()

    def request(self, name: str) -> None:
        """Run a job as soon as no other runs, whatever its schedule. Raise BackupError for a name that is no job's."""
        if name not in self._jobs:
            raise BackupError(f"{name}: no such job; there are: {', '.join(self._jobs) or 'none'}")
        if name not in self._requested:
            self._requested.append(name)
        self._changed.set()

    def next_runs(self) -> dict[str, Run | None]:
        """When each job runs next; None for one that is off or never runs by itself."""
        now = self._now()
        return {
            name: next_run(job.times, self._histories[name], now, name) if job.enabled else None
            for name, job in self._jobs.items()
        }

    async def run(self) -> None:
        """Go on until cancelled; a run that is on is ended then."""
        while True:
            self._changed.clear()
            if self._requested:
                await self._do(self._requested.pop(0), None)
                continue
            planned = [(run.at, name, run) for name, run in self.next_runs().items() if run is not None]
            due = min(planned, default=None, key=lambda one: one[:2])
            wait_s = LOOK_AGAIN_S if due is None else due[0] - self._now()
            if due is not None and wait_s <= 0:
                await self._do(due[1], due[2])
            else:
                await self._sleep(min(wait_s, LOOK_AGAIN_S))

    async def _sleep(self, seconds: float) -> None:
        """Until then, or until something was changed or requested."""
        await sleep_unless(self._changed, self._clock, self._clock.monotonic() + seconds)

    async def _do(self, name: str, run: Run | None) -> None:
        """Run a job. `run` None: because somebody asked, which leaves its schedule as it is."""
        job = self._jobs.get(name)
        if job is None:
            return  # it went in a reload after somebody had asked for it
        self.running = name
        try:
            outcome = await self._runner.run(name, self._on_event, job.patience_s)
        except Exception as error:  # a bug; the other jobs go on
            log.exception("backup.run_broke", job=name)
            outcome = Outcome("fail", f"{name}: cannot be run: {error!r}", None)
        finally:
            self.running = None
        if run is not None:
            self._histories[name] = self._after(self._histories[name], run.slot, outcome)
            self._save()
        try:
            self._on_outcome(name, outcome)
        except Exception as error:
            # What a newer worker says may be new to us: its copies are there, and only we do not show them.
            log.exception("backup.outcome_lost", job=name)
            self.problem = f"{name}: the result of its last run is not understood ({error!r}); restart the agent"

    def _after(self, history: History, slot: float, outcome: Outcome) -> History:
        if outcome.is_slot_done:
            return history.succeeded(slot)
        if outcome.status == "busy":
            return history.put_off(slot, self._now())
        return history.failed(slot, self._now())

    def _save(self) -> None:
        try:
            histories.save(self._state_file, self._histories)
        except BackupError as error:
            # The memory goes on; after a restart a slot may be run twice, which harms nothing.
            self.problem = str(error)
        else:
            self.problem = None

    def _now(self) -> float:
        return self._clock.wall_ns() / NS
