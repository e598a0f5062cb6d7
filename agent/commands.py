"""The commands of the control socket that concern the agent, its journal, its history and its backups."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from agent import journal_metrics
from agent.config import ConfigError, Settings
from agent.control import Command, ControlError
from agent.http.exposure import url_of
from sinks.journal import Journal

if TYPE_CHECKING:
    from agent.backup_keeper import BackupKeeper
    from agent.history_keeper import HistoryKeeper

CHANGING: Final = frozenset({"reload", "purge", "backup_run"})


class Agent(Protocol):
    """What of the daemon the commands ask for or change."""

    @property
    def settings(self) -> Settings: ...

    @property
    def configured_at(self) -> float: ...

    @property
    def journal(self) -> Journal | None: ...

    @property
    def history(self) -> HistoryKeeper | None: ...

    @property
    def backups(self) -> BackupKeeper | None: ...

    def health(self) -> dict[str, Any]: ...

    def reload(self) -> dict[str, Any]: ...

    def left_behind(self) -> Sequence[str]: ...


class Commands:
    """`by_name` is what the control socket serves. Each raises ControlError where it cannot be done."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def by_name(self) -> Mapping[str, Command]:
        """Command name -> coroutine."""
        return {
            "status": self.status,
            "reload": self.reload,
            "drain": self.drain,
            "purge": self.purge,
            "history": self.history,
            "history_write": self.history_write,
            "backup_run": self.backup_run,
            "backup_list": self.backup_list,
        }

    async def status(self, _: Mapping[str, Any]) -> Any:
        """What /health says, and where the agent listens."""
        settings = self._agent.settings
        url = url_of(settings.listen, is_tls=settings.http.tls is not None)
        return {**self._agent.health(), "url": url, "configured_at": self._agent.configured_at}

    async def reload(self, _: Mapping[str, Any]) -> Any:
        """Take over an edited configuration."""
        try:
            return self._agent.reload()
        except ConfigError as error:
            raise ControlError("\n".join(str(problem) for problem in error.errors)) from error
        except Exception as error:
            raise ControlError(str(error)) from error

    async def drain(self, _: Mapping[str, Any]) -> Any:
        """How far each reader of the journal has come."""
        return journal_metrics.summary(self._journal)

    async def purge(self, request: Mapping[str, Any]) -> Any:
        """Let go what one reader of the journal, or every one, has not had."""
        journal, reader = self._journal, request.get("reader")
        if reader is not None and reader not in journal.readers():
            raise ControlError(f"no such reader: {reader}; there are {', '.join(journal.readers()) or 'none'}")
        lost = await asyncio.to_thread(journal.purge, reader)
        for name in self._agent.left_behind():
            if reader in (None, name):
                journal.remove(name)
        await asyncio.to_thread(journal.flush)  # the files of what was removed go before this is answered
        return lost

    async def history(self, _: Mapping[str, Any]) -> Any:
        """What is remembered, and what it takes."""
        return await self._history.look()

    async def history_write(self, _: Mapping[str, Any]) -> Any:
        """Put what is in memory on disk, for a command that reads the file."""
        return await self._history.write()

    async def backup_run(self, request: Mapping[str, Any]) -> Any:
        """Start a job now."""
        return await self._backups.commands()["backup_run"](request)

    async def backup_list(self, request: Mapping[str, Any]) -> Any:
        """The jobs, and how each last went."""
        return await self._backups.commands()["backup_list"](request)

    @property
    def _journal(self) -> Journal:
        if self._agent.journal is None:
            raise ControlError("the agent is still starting")
        return self._agent.journal

    @property
    def _history(self) -> HistoryKeeper:
        if self._agent.history is None:
            raise ControlError("history is turned off; `history: {enabled: true}` turns it on")
        return self._agent.history

    @property
    def _backups(self) -> BackupKeeper:
        if self._agent.backups is None:
            raise ControlError("the agent is still starting")
        return self._agent.backups
