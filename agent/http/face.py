"""The HTTP face of a running daemon: bound, replaced when its settings change, stopped."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from agent.core.clock import Clock
from agent.http.app import Agent, build
from agent.http.desk import Desk
from agent.http.exposure import check_exposure
from agent.http.faces import AlertsFace, HistoryFace
from agent.http.openapi import Operation
from agent.http.server import Server, bind
from agent.http.service import Endpoint, Service
from sinks.history.naming import Names
from sinks.prometheus import Exposition

if TYPE_CHECKING:
    from agent.config import Settings

log = structlog.get_logger("http")

_SHAPING = ("listen", "http", "hostname", "history")  # settings that a new server is needed for


class HttpFace:
    """One server at a time. `history` and `alerts` are given once they are open."""

    def __init__(self, agent: Agent, clock: Clock, *, is_insecure: bool = False) -> None:
        self.desk = Desk()
        self.alerts: AlertsFace | None = None
        self.more: Sequence[tuple[Operation, Endpoint]] = ()
        self._agent = agent
        self._is_insecure = is_insecure
        self._exposition = Exposition()
        self._service = Service(clock, self.desk, None)
        self._settings: Settings | None = None
        self._listener: socket.socket | None = None
        self._running: tuple[Server, asyncio.Task[None]] | None = None

    def remember(self, history: HistoryFace) -> None:
        """From now on queries are answered."""
        self._service.history = history

    def serve(self, settings: Settings) -> None:
        """Listen as the settings say; the server before ends once the new one is bound.

        Raise ListenError, ExposedError; what ran before then goes on.
        """
        if self._settings is not None and all(getattr(settings, s) == getattr(self._settings, s) for s in _SHAPING):
            return
        warning = check_exposure(settings.listen, settings.http, is_insecure=self._is_insecure)
        if self._listener is None or self._settings is None or settings.listen != self._settings.listen:
            listener = bind(settings.listen)
        else:
            listener = self._listener  # the same address: the new server takes over the very socket
        if warning:
            log.warning("http.exposed", message=warning)
        names = Names(settings.history.job, settings.history.instance or settings.hostname)
        app = build(
            self._agent, self._exposition, service=self._service, names=names, options=settings.http,
            alerts=self.alerts, hosts=[settings.hostname], more=self.more,
        )  # fmt: skip
        server = Server(app, listener.dup(), settings.http.tls)
        if self._running is not None:
            self._running[0].stop()
        if self._listener is not None and self._listener is not listener:
            self._listener.close()
        self._listener, self._settings = listener, settings
        self._running = server, asyncio.create_task(server.run_until_stopped(), name="http")

    async def stop(self) -> None:
        """Answer what is open, then end; queries that still run are left behind."""
        if self._running is not None:
            server, serving = self._running
            server.stop()
            await serving
        if self._listener is not None:
            self._listener.close()
        self.desk.close()
