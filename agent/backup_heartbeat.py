"""Tells a service that watches over a backup job how its runs, or its drills, go, at healthchecks' addresses.

The service raises the alarm when a run fails and when none comes. A ping that is lost is said, and harms nothing. It is
the process of the run that pings: under systemd nobody else may read the address.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

from agent.core.errors import Rejected, Retryable
from agent.healthchecks import address
from alerting.notify.http import check, request
from backup.relay import write_all
from backup.worker import BUSY, FAILED
from backup.worker import work as run_job

if TYPE_CHECKING:
    from agent.core.secrets import Secret
    from backup.job import Heartbeat, Job

Kind = Literal["start", "success", "fail"]

_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 15.0
_MOST_BYTES = 10_000  # of what is sent along; healthchecks keeps the first 100 kB


def url_of(options: Heartbeat, kind: Kind) -> tuple[str, tuple[Secret, ...]] | None:
    """The address for such a ping and the secrets in it; None where the service has none."""
    own = {"start": options.start, "success": None, "fail": options.fail}[kind]
    if own is not None:
        return own.reveal(), (own,)
    if kind != "success" and not options.suffixes:
        return None
    return address(options.url.reveal(), "" if kind == "success" else kind), (options.url,)


def ping(options: Heartbeat, kind: Kind, text: str, given_up: threading.Event | None = None) -> str:
    """Send one ping, again where that helps; why it did not arrive, "" when it did. Blocking, `deadline` at most.

    `given_up`: set it, and it is not tried again.
    """
    found = url_of(options, kind)
    if found is None:
        return ""
    url, secrets = found
    ends_at = time.monotonic() + options.deadline
    patience, wait = given_up or threading.Event(), _FIRST_WAIT_S
    while True:
        left = ends_at - time.monotonic()
        try:
            answer = request("POST", url, text.encode("utf-8", "replace")[:_MOST_BYTES],
                             {"User-Agent": "vigilhost"}, max(left, 0.1))  # fmt: skip
            check("heartbeat", answer, secrets)
        except Rejected as error:
            return _said(error)
        except Retryable as error:
            pause = error.after if error.after is not None else wait
            if time.monotonic() + pause >= ends_at or patience.wait(pause):
                return _said(error)
            wait = min(2 * wait, _LONGEST_WAIT_S)
        else:
            return ""


def _said(error: Exception) -> str:
    text = str(error)
    return text if text.startswith("heartbeat: ") else f"heartbeat: {text}"


class Beats:
    """The pings of one run, from what its worker says. They are sent beside it; `finish` waits for the last one.

    `noun`: what runs, a backup or a drill. `begins`: the phase with which it does, after it has waited for its turn.
    """

    def __init__(self, options: Heartbeat, noun: str, begins: str) -> None:
        self._options = options
        self._noun = noun
        self._begins = begins
        self._sender = ThreadPoolExecutor(1, "heartbeat")
        self._start: Future[str] | None = None
        self._is_over = threading.Event()
        self._result: Mapping[str, Any] = {}

    def heard(self, event: Mapping[str, Any]) -> None:
        """Take an event of the worker."""
        if event.get("phase") == self._begins and self._start is None:
            text = f"{self._noun} {event.get('job')} began"
            self._start = self._sender.submit(ping, self._options, "start", text, self._is_over)
        elif event.get("event") == "result":
            self._result = event

    def finish(self) -> str:
        """Tell how it ended, and why a ping was lost; "" when none was."""
        self._is_over.set()  # news of the start is not tried again, so that nobody waits for both
        status = self._result.get("status", "fail")
        text = f"{self._noun} {self._result.get('job')}: {self._result.get('error') or status}"
        end = self._sender.submit(ping, self._options, "success" if status in ("ok", "warn") else "fail", text)
        lost = [one.result() for one in (self._start, end) if one is not None]
        self._sender.shutdown()
        return next(filter(None, lost), "")


def work(job: Job, *, host: str, state_dir: str, output: int = 1) -> int:
    """Run a job as backup.worker.work does, and tell its heartbeat; the last event says what came of that."""
    if job.heartbeat is None:
        return run_job(job, host=host, state_dir=state_dir, output=output)
    beats = Beats(job.heartbeat, "backup", "sweep")
    return beating(beats, job.name, lambda: run_job(job, host=host, state_dir=state_dir, output=output,
                                                    heard=beats.heard), output)  # fmt: skip


def beating(beats: Beats, job: str, do: Callable[[], int], output: int) -> int:
    """Do it, which `beats` hears of, and say last what came of the pings. What `do` returned: an exit code."""
    code = FAILED
    try:
        code = do()
    finally:
        # Also when it broke in a way that nobody thought of: a failure that is not told is the worst of all.
        if code != BUSY:
            _tell_end(beats, job, code, output)
    return code


def _tell_end(beats: Beats, job: str, code: int, output: int) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        # The run is over and told: whoever ends us now must not take it for one that failed.
        signal.signal(number, lambda *_: os._exit(code))
    said = {"event": "heartbeat", "job": job, "error": beats.finish() or None}
    try:
        write_all(output, json.dumps(said).encode() + b"\n")
    except OSError:
        pass  # who started the run has gone
