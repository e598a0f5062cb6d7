"""What every test may ask for: the real servers, the stand-ins, and the rules they all keep.

A server starts when the first test asks for it and lives to the end of the run, so tests that share one use names
of their own (databases, measurements). A test that changes how a server runs starts it itself:
`with PostgreSQL({"archive_mode": "on"}) as server:` after `need("postgresql")`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import hypothesis
import pytest

from tests.packaging.built import built_deb
from tests.servers.alertmanager import Alertmanager
from tests.servers.certificates import Certificate, make_certificate
from tests.servers.influxdb1 import InfluxDB1
from tests.servers.loopback_only import LoopbackOnly
from tests.servers.mariadb import MariaDB
from tests.servers.nginx import Nginx
from tests.servers.node_exporter import NodeExporter
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import Server
from tests.servers.programs import need, need_root
from tests.servers.prometheus import Prometheus
from tests.servers.redis import Redis
from tests.servers.scripted_http import ScriptedHttp
from tests.servers.smtp_sink import SmtpSink
from tests.servers.sshd import Sshd
from tests.servers.victoriametrics import VictoriaMetrics

S = TypeVar("S", bound=Server)

# `HYPOTHESIS_PROFILE=long pytest` searches for a while; CI draws the same examples each time
hypothesis.settings.register_profile("short", deadline=None, max_examples=50)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=100, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("long", deadline=None, max_examples=5000)
hypothesis.settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") == "true" else "short")
)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.server("postgresql")`, `@pytest.mark.root("why")`: no test without it."""
    for marker in item.iter_markers("server"):
        need(*marker.args)
    for marker in item.iter_markers("root"):
        need_root(*marker.args)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Scores that tests have recorded (`record_property("score", text)`) are shown, passed or not."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                if name == "score":
                    terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {value}")


@pytest.fixture(scope="session")
def loopback_only() -> Iterator[LoopbackOnly]:
    guard = LoopbackOnly()
    guard.install()
    yield guard
    guard.remove()


@pytest.fixture(autouse=True)
def _no_test_calls_out(loopback_only: LoopbackOnly) -> Iterator[None]:
    yield
    offences = loopback_only.offences[:]
    loopback_only.offences.clear()
    assert not offences, "the test reached beyond this machine"


def started(server: S) -> Iterator[S]:
    need(server.name)
    with server:
        yield server


@pytest.fixture(scope="session")
def victoriametrics() -> Iterator[VictoriaMetrics]:
    yield from started(VictoriaMetrics())


@pytest.fixture(scope="session")
def influxdb1() -> Iterator[InfluxDB1]:
    yield from started(InfluxDB1())


@pytest.fixture(scope="session")
def prometheus() -> Iterator[Prometheus]:
    """Scrapes nothing; takes remote writes and answers queries."""
    yield from started(Prometheus())


@pytest.fixture(scope="session")
def alertmanager() -> Iterator[Alertmanager]:
    yield from started(Alertmanager())


@pytest.fixture(scope="session")
def node_exporter() -> Iterator[NodeExporter]:
    """With its default collectors and those whose names we carry too, where they need nothing but /proc and /sys."""
    yield from started(NodeExporter(["--collector.processes", "--collector.interrupts", "--collector.tcpstat"]))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    yield from started(PostgreSQL())


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    yield from started(Redis())


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    yield from started(MariaDB())


@pytest.fixture(scope="session")
def nginx() -> Iterator[Nginx]:
    yield from started(Nginx())


@pytest.fixture(scope="session")
def sshd() -> Iterator[Sshd]:
    need("ssh", "ssh-keygen")
    yield from started(Sshd())


@pytest.fixture(scope="session")
def promtool() -> None:
    """For tests that use `tests.servers.promtool`."""
    need("promtool", "amtool")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    need("openssl")
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def expired_certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    need("openssl")
    return make_certificate(tmp_path_factory.mktemp("expired"), expired=True)


@pytest.fixture(scope="session")
def package() -> Path:
    """The .deb of this checkout, or that of $VIGILHOST_DEB."""
    need("dpkg-deb", "dpkg-shlibdeps", "strip")
    return Path(os.environ["VIGILHOST_DEB"]) if "VIGILHOST_DEB" in os.environ else built_deb()


@pytest.fixture
def scripted_http() -> Iterator[ScriptedHttp]:
    """A stand-in, not a server: answers what the test scripts."""
    with ScriptedHttp() as server:
        yield server


@pytest.fixture
def smtp_sink() -> Iterator[SmtpSink]:
    with SmtpSink() as server:
        yield server


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Tests written as coroutines run on asyncio, as the daemon does."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """The worker and the daemon make theirs strict; run within a test it must not outlast it."""
    before = os.umask(0o022)
    yield
    os.umask(before)
