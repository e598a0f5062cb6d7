"""The runner for a daemon without rights: each run is a process of its own, which systemd starts behind a socket.

Only the job's name goes there. What comes back are the worker's JSON lines, and last how it ended, which nobody on this
side could see: `{"event": "exit", "code": 0}`. A connection that is closed ends the run.
"""

from __future__ import annotations

import asyncio
import contextlib

from backup.runner import GRACE_S, MOST_LINE_BYTES, OnEvent, Outcome, Said, hear, outcome

CONNECT_S = 30.0
STOP = b"stop\n"  # anything after the request ends the run in good order, and this is its name
_ELSEWHERE = "see journalctl -u 'vigilhost-backup@*'"


class SocketRunner:
    """Runs jobs through the socket `path`. `verb`: what is done with them, `run` or `drill`."""

    def __init__(self, path: str, verb: str = "run", grace_s: float = GRACE_S) -> None:
        self._path = path
        self._verb = verb
        self._grace_s = grace_s

    async def run(self, job: str, on_event: OnEvent, deadline_s: float) -> Outcome:
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_unix_connection(self._path, limit=MOST_LINE_BYTES)
        except OSError as error:  # TimeoutError is one
            return Outcome("fail", f"{job}: the worker cannot be started: {self._path}: {_unreached(error)}", None)
        writer.write(f"{self._verb} {job}\n".encode())
        talk = asyncio.ensure_future(hear(reader, on_event))
        try:
            done, _ = await asyncio.wait((talk,), timeout=deadline_s)
        finally:
            # Cancelled or late or done: when this returns, the run has ended or nobody will ever hear of it again.
            await asyncio.shield(self._end(talk, writer))
        said = talk.result() if talk.done() and not talk.cancelled() else Said()
        return outcome(job, said.exit_code, said.result, _ELSEWHERE, None if done else deadline_s)

    async def _end(self, talk: asyncio.Future[Said], writer: asyncio.StreamWriter) -> None:
        if not talk.done():
            with contextlib.suppress(OSError):
                writer.write(STOP)
            await asyncio.wait((talk,), timeout=self._grace_s)
            talk.cancel()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _unreached(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "permission denied; only root and the agent's own user may have jobs run"
    reason = (error.strerror or str(error) or "it does not answer").lower()
    return f"{reason}; systemctl start vigilhost-backup.socket"
