"""A Debian to install packages in and throw away: this machine's own root under an overlay, in a mount namespace.

Nothing that happens in it reaches the machine. There is no service manager in it: what the package does under a real
systemd is tested where one is booted.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.servers.http_call import answers_ok
from tests.servers.process import LOOPBACK, free_port, listens, wait_until
from tests.servers.programs import lacking, need, need_root

# The overlay's upper layer is in memory: a file system that is an overlay itself cannot hold one.
_LAY = """
set -e
mount --make-rprivate /
mount -t tmpfs -o size=1g tmpfs "$0"
mkdir "$0/upper" "$0/work" "$0/root"
mount -t overlay -o "lowerdir=/,upperdir=$0/upper,workdir=$0/work" overlay "$0/root"
mount -t proc proc "$0/root/proc"
mount -t sysfs -o ro sysfs "$0/root/sys"
mount --rbind /dev "$0/root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$0/root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$0/root/run"
"""
_ENVIRON = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive",
            "LC_ALL": "C.UTF-8", "HOME": "/root", "TERM": "dumb"}  # fmt: skip


def need_overlay() -> None:
    """Skip (with CI=true, fail) where this user may not mount and change its root."""
    need("dpkg", "unshare", "nsenter", "setpriv")
    need_root("an overlay of this machine's root needs root")
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "x", "/mnt"]).returncode != 0:
        lacking("an overlay of this machine's root needs the right to mount")


class Root:
    """`with Root(directory) as root: root.run("dpkg", "-i", ...)`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._agent: subprocess.Popen[bytes] | None = None
        self._keeper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        script = _LAY + 'touch "$0/ready"; exec sleep infinity'
        self._keeper = subprocess.Popen(["unshare", "-m", "sh", "-c", script, str(self.directory)])
        wait_until(lambda: self._inside_exists("ready") or self._keeper_ended(), "the overlay to be mounted")
        assert self._keeper.poll() is None, "the overlay cannot be mounted"
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_agent()
        assert self._keeper is not None
        self._keeper.kill()  # the mounts go with the last process of the namespace
        self._keeper.wait()

    def path(self, inside: str) -> Path:
        """A path of the root, as this process sees it."""
        assert self._keeper is not None
        return Path(f"/proc/{self._keeper.pid}/root{self.directory}/root{inside}")

    def put(self, source: Path) -> str:
        """Copy a file to /tmp of the root. Return its path there."""
        shutil.copy(source, self.path("/tmp"))
        return f"/tmp/{source.name}"

    def argv(self, *argv: str, user: str | None = None) -> list[str]:
        """What runs a command in the root, as the same process all the way."""
        assert self._keeper is not None
        who = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"] if user else []
        enter = ["nsenter", f"--target={self._keeper.pid}", "--mount", "--"]
        return [*enter, "chroot", f"{self.directory}/root", *who, *argv]

    def run(
        self, *argv: str, user: str | None = None, code: int = 0, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command in the root, with its output; it has to end with `code`."""
        done = subprocess.run(
            self.argv(*argv, user=user), env={**_ENVIRON, **(environ or {})}, capture_output=True, text=True,
            timeout=600, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == code, (argv, done.returncode, done.stdout, done.stderr)
        return done

    def start_agent(self, *options: str) -> str:
        """Run the installed agent as the service does, and wait until it is ready. Return its address."""
        self.run("install", "-d", "-o", "vigilhost", "-g", "vigilhost", "-m", "0700", "/var/lib/vigilhost")
        port = free_port()
        address = f"{LOOPBACK}:{port}"
        argv = self.argv("/usr/bin/vigilhost", "run", f"--listen={address}", *options, user="vigilhost")
        self._agent = subprocess.Popen(argv, env={"PATH": _ENVIRON["PATH"]}, cwd="/")
        wait_until(lambda: listens(port), "the installed agent to listen", deadline=120)
        wait_until(lambda: answers_ok(f"http://{address}/-/ready"), "the installed agent to be ready", deadline=120)
        return f"http://{address}"

    @property
    def agent_pid(self) -> int:
        assert self._agent is not None
        return self._agent.pid

    def stop_agent(self) -> None:
        if self._agent is not None:
            self._agent.send_signal(signal.SIGTERM)
            assert self._agent.wait(60) == 0
            self._agent = None

    def _inside_exists(self, name: str) -> bool:
        assert self._keeper is not None
        return Path(f"/proc/{self._keeper.pid}/root{self.directory}/{name}").exists()

    def _keeper_ended(self) -> bool:
        assert self._keeper is not None
        return self._keeper.poll() is not None
