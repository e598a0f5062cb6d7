"""Metrics that another program on this host already publishes: its /metrics page, scraped.

In line protocol they look as Telegraf's `prometheus` input writes them (metric_version = 1, tag `url`); on /metrics
and in history they keep their names and types and get the label `target`. Timestamps of the page are not used: what
was read counts for the slot it was read in.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import parse_qs, urlsplit

from agent.core.errors import SourceError
from agent.core.labels import Predicate, predicate
from agent.core.model import Failed, Group, Reading, Tag, gauge, tag
from agent.core.options import option, required
from agent.core.secrets import Secret
from agent.core.units import Bytes, Seconds, format_duration, format_size
from collectors.each_alone import EachAlone, rounds
from collectors.prom_text import Family, parse_prom_text
from collectors.samples import SampleGroups

if TYPE_CHECKING:
    from urllib3.connection import HTTPConnection

TARGET = Tag("url", "target")

SCRAPE = Group("vigilhost_scrape", (
    gauge("up", "bool", "1 when the target's page was read and understood.", type=int,
          influx="up", prom="vigilhost_scrape_up"),
    gauge("duration", "seconds", "Time the scrape took; absent when it failed.", influx="duration_seconds",
          prom="vigilhost_scrape_duration_seconds"),
    gauge("samples", "count", "Samples kept after filtering; absent when the scrape failed.",
          influx="samples", prom="vigilhost_scrape_samples"),
), tags=(tag("url", prom="target"),))  # fmt: skip

_ACCEPT = "text/plain;version=0.0.4;q=1,*/*;q=0.1"
_RESERVED = ("job", "instance")  # history attaches these itself


@dataclass(slots=True)
class Target:
    """One page of metrics."""

    url: str = required("Address of the page: http://, https:// or unix:///path/to/socket?path=/metrics.",
                        example="http://127.0.0.1:9187/metrics")  # fmt: skip
    timeout: Seconds = option(5.0, "The whole scrape must be done in this time.", minimum=0.05)
    include: str = option("", "Only metrics whose whole name matches this pattern; empty takes all.")
    exclude: str = option("", "Without metrics whose whole name matches this pattern.")
    username: str = option("", "Name for basic authentication.")
    password: Secret | None = option(None, "Password for basic authentication.")
    token: Secret | None = option(None, "Bearer token.")
    ca_file: str = option("", "Certificates to trust for https instead of the system's.")

    def __post_init__(self) -> None:
        """Raise ValueError for an address that cannot be scraped."""
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https", "unix"}:
            raise ValueError(f"url: {parts.scheme or self.url!r} is not http, https or unix")
        if parts.username is not None or parts.password is not None:
            raise ValueError("url: holds a password, which would be shown as a label; use username and password")
        if not (parts.path if parts.scheme == "unix" else parts.hostname):
            raise ValueError(f"url: {self.url!r} names no host; write it like http://127.0.0.1:9187/metrics")
        _ = parts.port  # raises ValueError when out of range
        for pattern in (self.include, self.exclude):
            predicate(pattern)


@dataclass(slots=True)
class Prometheus:
    """Metrics of local exporters and services, scraped from their /metrics pages."""

    name: ClassVar[str] = "prometheus"
    groups: ClassVar[tuple[Group, ...]] = (SCRAPE,)
    own_lane: ClassVar[bool] = True

    interval: Seconds = option(30.0, "Time between two scrapes.")
    targets: list[Target] = option(list[Target], "Pages to scrape; none by default.",
                                   example="[{url: http://127.0.0.1:9187/metrics}]")  # fmt: skip
    max_size: Bytes = option(16 << 20, "A larger page is not read.", minimum=1024)
    max_samples: int = option(20_000, "A page with more samples counts as failed.", minimum=1)
    timeout: Seconds = field(init=False)
    _series: SampleGroups = field(init=False)
    _each: EachAlone[Target, tuple[list[Family], float]] = field(init=False)
    _now: Callable[[], float] = field(init=False, default=time.monotonic)

    def __post_init__(self) -> None:
        """Raise ValueError when two targets have one address."""
        if len({target.url for target in self.targets}) < len(self.targets):
            raise ValueError("targets: two of them have the same url")
        longest = rounds(len(self.targets)) * max((target.timeout for target in self.targets), default=0.0)
        self.timeout = longest + 2.0
        self._each = EachAlone(self._scrape, self.targets, self.timeout - 1.0)
        self._series = SampleGroups((TARGET,), _RESERVED)

    def collect(self) -> Iterator[Reading | Failed]:
        """Every target's series; a target that cannot be read is Failed and its series are held."""
        for target, outcome in self._each.outcomes():
            if isinstance(outcome, SourceError):
                yield SCRAPE.row((target.url,), (0, None, None))
                yield Failed(target.url, str(outcome))
                continue
            families, took = outcome
            yield SCRAPE.row((target.url,), (1, took, sum(len(family.samples) for family in families)))
            yield from self._series.readings(families, (target.url,))
        self._series.forget_unused()

    def _scrape(self, target: Target) -> tuple[list[Family], float]:
        """The wanted families of one target and the seconds it took. Raise SourceError."""
        started = self._now()
        page = fetch(target, self.max_size)
        wanted = _wanted(target)
        families = [family for family in parse_prom_text(page, self.max_samples) if wanted(family.name)]
        return families, self._now() - started


def _wanted(target: Target) -> Predicate:
    included = predicate(target.include) if target.include else None
    excluded = predicate(target.exclude) if target.exclude else None
    return lambda name: (included is None or included(name)) and not (excluded is not None and excluded(name))


def fetch(target: Target, most_bytes: int) -> bytes:
    """The page, within the target's timeout however slowly it comes. Raise SourceError."""
    from http.client import HTTPException

    from urllib3.exceptions import HTTPError

    connection, path = _connection(target)
    deadline = _Deadline(target.timeout)
    try:
        connection.connect()
        deadline.watch(connection.sock)
        connection.request("GET", path, headers=_headers(target), preload_content=False)
        response = connection.getresponse()
        if response.status != 200:
            raise SourceError(f"answered {response.status} {response.reason or ''}".rstrip())
        chunks, size = [], 0
        while chunk := response.read(65536):
            size += len(chunk)
            if size > most_bytes:
                raise SourceError(f"the page is larger than {format_size(most_bytes)}")
            chunks.append(chunk)
    except (HTTPException, HTTPError, OSError, ValueError) as error:
        # A dumb peer runs into the socket's own timeout, of the same length, as often as into the deadline.
        if deadline.has_passed or isinstance(error.__cause__ or error, TimeoutError):
            raise SourceError(f"no whole answer within {format_duration(target.timeout)}") from error
        raise SourceError(_reason(error)) from error
    finally:
        deadline.cancel()
        connection.close()
    if deadline.has_passed:  # an answer that ends with its connection looks whole when it was cut
        raise SourceError(f"no whole answer within {format_duration(target.timeout)}")
    return b"".join(chunks)


def _reason(error: Exception) -> str:
    """The cause without urllib3's object addresses."""
    text = re.sub(r"^<[^>]*>: |^\w+\([^)]*\): ", "", str(error))
    return f"{type(error).__name__}: {text}".rstrip(": ").lower()


class _Deadline:
    """Cuts the connection when its time is up: a socket's timeout alone starts anew with every byte received."""

    def __init__(self, seconds: float) -> None:
        self.has_passed = False
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self._timer.start()

    def watch(self, connected: socket.socket | None) -> None:
        """Cut this socket. It is kept here, for http.client lets go of it while the answer is still being read."""
        self._socket = connected
        if self.has_passed:
            raise TimeoutError

    def _cut(self) -> None:
        self.has_passed = True
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it is closed already, which is what was wanted

    def cancel(self) -> None:
        self._timer.cancel()


def _headers(target: Target) -> dict[str, str]:
    headers = {"Accept": _ACCEPT, "User-Agent": "vigilhost"}
    if target.token is not None:
        headers["Authorization"] = f"Bearer {target.token.reveal()}"
    elif target.username:
        password = target.password.reveal() if target.password is not None else ""
        headers["Authorization"] = "Basic " + b64encode(f"{target.username}:{password}".encode()).decode()
    return headers


def _connection(target: Target) -> tuple[HTTPConnection, str]:
    """A connection not yet made, and the path to ask for."""
    # Imported here: 4 MB that a host without targets need not carry.
    from urllib3.connection import HTTPConnection, HTTPSConnection

    parts = urlsplit(target.url)
    if parts.scheme == "unix":
        return _unix_connection(parts.path, target.timeout), parse_qs(parts.query).get("path", ["/metrics"])[0]
    path = (parts.path or "/metrics") + (f"?{parts.query}" if parts.query else "")
    host = parts.hostname or ""
    if parts.scheme == "https":
        secure = HTTPSConnection(host, parts.port, timeout=target.timeout, ca_certs=target.ca_file or None)
        return secure, path
    return HTTPConnection(host, parts.port, timeout=target.timeout), path


def _unix_connection(socket_path: str, timeout: float) -> HTTPConnection:
    from urllib3.connection import HTTPConnection

    class UnixConnection(HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(timeout)
            self.sock.connect(socket_path)

    return UnixConnection("localhost", timeout=timeout)
