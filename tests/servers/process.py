"""A real server as a child process: started on a free loopback port, polled until it answers, stopped by pid."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Self, TypeVar

import psutil

from tests.servers.programs import program

T = TypeVar("T")

LOOPBACK = "127.0.0.1"
START_DEADLINE = 60.0  # seconds; a healthy server needs one or two, a loaded CI machine several times that
STOP_DEADLINE = 15.0  # seconds between the polite signal and SIGKILL
PORT_RACES = 5  # starts to try when another process takes the free port first


class ServerError(RuntimeError):
    """A server did not start or does not answer; the message ends with its log."""


def wait_until(holds: Callable[[], T], what: str, deadline: float = 20.0, every: float = 0.01) -> T:
    """Poll until `holds()` is truthy and return that. Raise TimeoutError naming `what` after `deadline` seconds."""
    end = time.monotonic() + deadline
    while not (found := holds()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {deadline:g} s for {what}; last seen: {found!r}")
        time.sleep(every)
    return found


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now; another process may still take it first."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """True when something accepts connections on that loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((LOOPBACK, port)) == 0


def alive(pid: int) -> bool:
    """True while a process of that id exists and is not a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def run(*argv: str | Path, user: str | None = None, stdin: str | None = None, deadline: float = 60.0) -> str:
    """Run one short command, as `user` where we are root. Return its output; raise ServerError with it on failure."""
    command = ["setpriv", *identity(user), "--", program(str(argv[0])), *map(str, argv[1:])]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=deadline, check=False, cwd="/")
    if done.returncode != 0:
        raise ServerError(f"{argv[0]} exited {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def identity(user: str | None) -> list[str]:
    """The options of setpriv(1) that make a command run as `user`; none where we are not root and so are someone."""
    if user is None or os.geteuid() != 0:
        return []
    return ["--reuid", user, "--regid", user, "--clear-groups"]


def _family(pid: int) -> set[psutil.Process]:
    """A process and its descendants: sessions of sshd and PostgreSQL's workers leave the process group."""
    try:
        return {psutil.Process(pid), *psutil.Process(pid).children(recursive=True)}
    except psutil.NoSuchProcess:
        return set()


def _runs(process: psutil.Process) -> bool:
    """True while it does, and not when a stranger got its id: with 32768 ids and a busy machine that happens."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Server:
    """One server in one temporary directory. A subclass says what to run and how to tell that it is ready.

    Start it in a thread that lives as long as it does: the kernel ends the server when that thread is gone, so that
    a killed test run leaves nothing behind.
    """

    name: ClassVar[str]  # the program
    user: ClassVar[str | None] = None  # who it runs as where the tests run as root
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    start_deadline: ClassVar[float] = START_DEADLINE

    port: int
    data_dir: Path

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._not_ready: Exception | None = None  # why it was not ready when last asked

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the server; it leads its own process group. Raise ServerError when it is not running."""
        if self._child is None:
            raise ServerError(f"{self.name} is not running")
        return self._child.pid

    @property
    def log(self) -> str:
        """All it has written to stdout and stderr."""
        return (self.data_dir / "log").read_text(encoding="utf-8", errors="replace")

    # What a subclass says.

    def prepare(self) -> None:
        """Write what does not depend on the port (keys, empty databases), once, before the first start."""

    def command(self) -> Sequence[str | Path]:
        """The command line for the current `port`; writes the configuration file first where there is one."""
        raise NotImplementedError

    def ready(self) -> bool:
        """True when it answers. Called again and again; may raise OSError until then."""
        return listens(self.port)

    # Life.

    def __enter__(self) -> Self:
        self.data_dir = Path(tempfile.mkdtemp(prefix=f"vh-{self.name}-"))
        try:
            self.data_dir.chmod(0o755)
            if self.user and os.geteuid() == 0:
                shutil.chown(self.data_dir, self.user, self.user)
            self.prepare()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def start(self, port: int | None = None) -> None:
        """Run it and wait until it is ready, on `port` or a free one. Also starts it again after `stop`."""
        for _ in range(1 if port else PORT_RACES):
            self.port = port or free_port()
            if self._started():
                return
        raise ServerError(f"{self.name}: port {self.port} is taken{self._log_tail()}")

    def _started(self) -> bool:
        """False when another process was faster to bind the port."""
        argv = [str(word) for word in self.command()]
        with open(self.data_dir / "log", "ab") as log:
            self._child = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *identity(self.user), "--", program(argv[0]), *argv[1:]],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.data_dir, start_new_session=True,
            )  # fmt: skip
        try:
            wait_until(self._ready_or_dead, f"{self.name} to answer", self.start_deadline)
        except TimeoutError as error:
            raise ServerError(f"{error}; {self._not_ready}{self._log_tail()}") from error
        if self._child.poll() is None:
            return True
        status, self._child = self._child.returncode, None
        if "ddress already in use" in self._log_tail():
            return False
        raise ServerError(f"{self.name} exited {status} at once{self._log_tail()}")

    def _ready_or_dead(self) -> bool:
        if self._child is None or self._child.poll() is not None:
            return True
        try:
            return self.ready()
        except (OSError, ServerError) as error:
            self._not_ready = error
            return False

    def stop(self) -> None:
        """End it and all its descendants, politely first; the data stay until the `with` block ends."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """End it as a crash would, with SIGKILL. `start(self.port)` brings it back."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        family = _family(child.pid)
        child.send_signal(how)
        try:
            child.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            family |= _family(child.pid)  # it had its time, in which it may have started others
        for process in family:
            try:
                process.kill()  # psutil compares start times: never a stranger that got the same id
            except psutil.NoSuchProcess:
                pass  # the usual case: it went with its parent
        child.wait()
        wait_until(lambda: not any(map(_runs, family)), f"{self.name}'s processes to end")

    def _log_tail(self, size: int = 4000) -> str:
        return f"\n--- the end of its log:\n{self.log[-size:]}"
