"""What on this host could be backed up: servers that listen, by the kernel's tables and where Debian keeps their data.

Seen are servers in our own network namespace. Whose TCP port it is only their owner and root can see.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_ACCEPTS = 0x10000  # SO_ACCEPTCON in the flags of /proc/net/unix
_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp
# What the socket of a server is called, and the group that is its port.
_SOCKETS: Final = (
    ("PostgreSQL", "postgresql", re.compile(r".*/\.s\.PGSQL\.(\d+)")),
    ("MySQL or MariaDB", "mysql", re.compile(r".*/mysqld?\.sock()")),
    ("Redis", "redis", re.compile(r".*/redis[^/]*\.sock()")),
    ("LXD", "lxd", re.compile(r".*/lxd/unix\.socket()")),
)
# What a server's process is called.
_PROGRAMS: Final[Mapping[str, tuple[str, str]]] = {
    "postgres": ("PostgreSQL", "postgresql"),
    "mariadbd": ("MySQL or MariaDB", "mysql"),
    "mysqld": ("MySQL or MariaDB", "mysql"),
    "redis-server": ("Redis", "redis"),
}
# Where sockets and data are on a Debian host, for what the tables do not show: it is down, or in a container.
_FILES: Final = (
    ("PostgreSQL", "postgresql", "/run/postgresql/.s.PGSQL.[0-9]*[0-9]"),
    ("MySQL or MariaDB", "mysql", "/run/mysqld/mysqld.sock"),
    ("Redis", "redis", "/run/redis/*.sock"),
    ("Redis", "redis", "/var/lib/redis/dump.rdb"),
    ("LXD", "lxd", "/var/snap/lxd/common/lxd/unix.socket"),
    ("LXD", "lxd", "/var/lib/lxd/unix.socket"),
    ("libvirt domains", "vm_image", "/etc/libvirt/qemu/*.xml"),
    ("docker volumes", "docker_volume", "/var/lib/docker/volumes/*/_data"),
)


@dataclass(slots=True)
class Thing:
    """Something that a source of that name can back up, with the addresses it is known by."""

    what: str
    source: str
    ports: set[int] = field(default_factory=set)
    paths: set[str] = field(default_factory=set)

    @property
    def where(self) -> str:
        ports = [f"port {port}" for port in sorted(self.ports)]
        paths = sorted(self.paths)
        more = [f"{len(paths) - 1} more"] if len(paths) > 1 else []
        return " and ".join([*ports, *paths[:1], *more])

    def is_covered_by(self, source: str, options: Mapping[str, Any]) -> bool:
        """Whether a job with this source and these options backs it up, as far as its address tells."""
        if source != self.source:
            return False
        if not self.ports:
            return True  # one of its kind is all that can be told apart
        socket = str(options.get("socket") or "")
        if socket and os.path.realpath(socket) in {os.path.realpath(path) for path in self.paths}:
            return True
        return options.get("port", _DEFAULT_PORTS.get(source)) in self.ports and is_here(str(options.get("server", "")))


_DEFAULT_PORTS: Final[Mapping[str, int]] = {"postgresql": 5432, "mysql": 3306, "redis": 6379}


def is_here(server: str) -> bool:
    """Whether a server's address is this host: a socket's directory, a loopback address, or none."""
    return server in {"", "localhost", "::1", os.uname().nodename} or server.startswith(("/", "127."))


def found(root: str = "/") -> list[Thing]:
    """Each server once; `root`: where the files and tables of the host are, another directory in tests."""
    things: list[Thing] = []
    for what, source, port, path in (*_by_socket(root), *_by_port(root)):
        known = next((one for one in things if one.source == source and (port in one.ports or path in one.paths)), None)
        if known is None:
            known = Thing(what, source)
            things.append(known)
        known.ports.update(() if port is None else (port,))
        known.paths.update(() if path is None else (path,))
    for what, source, pattern in _FILES:
        paths = glob.glob(os.path.join(root, pattern.lstrip("/")))
        if paths and not any(one.source == source for one in things):
            things.append(Thing(what, source, paths=set(paths)))
    return things


def _by_socket(root: str) -> Iterator[tuple[str, str, int | None, str | None]]:
    for line in _lines(root, "proc/net/unix"):
        words = line.split(maxsplit=7)
        if len(words) < 8 or not int(words[3], 16) & _ACCEPTS:
            continue
        for what, source, pattern in _SOCKETS:
            if match := pattern.fullmatch(words[7]):
                yield what, source, int(match[1]) if match[1] else None, words[7]


def _by_port(root: str) -> Iterator[tuple[str, str, int | None, str | None]]:
    ports: dict[str, int] = {}
    for table in ("proc/net/tcp", "proc/net/tcp6"):
        for line in _lines(root, table):
            words = line.split()
            if words[3] == _LISTEN:
                ports[f"socket:[{words[9]}]"] = int(words[1].rpartition(":")[2], 16)
    for pid in _pids(root):
        program = next(iter(_lines(root, f"proc/{pid}/comm", header=0)), "")
        if program in _PROGRAMS:
            for socket in _open(root, pid) & ports.keys():
                yield (*_PROGRAMS[program], ports[socket], None)


def _lines(root: str, table: str, header: int = 1) -> list[str]:
    try:
        with open(os.path.join(root, table), encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()[header:]
    except OSError:
        return []  # no such table, or the process has ended


def _pids(root: str) -> list[str]:
    try:
        return [name for name in os.listdir(os.path.join(root, "proc")) if name.isdecimal()]
    except OSError:
        return []


def _open(root: str, pid: str) -> set[str]:
    """What a process has open, as far as we may see."""
    links: set[str] = set()
    directory = os.path.join(root, "proc", pid, "fd")
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            with contextlib.suppress(OSError):
                links.add(os.readlink(os.path.join(directory, name)))
    return links
