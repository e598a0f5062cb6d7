from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proof.agents import FEW_COLLECTORS, Agent, in_namespace_of, own_disk, read_only_host, seen_by
from tests.proof.samples import in_victoriametrics, missed, missing_in_victoriametrics, printed_points, slots, values_of
from tests.servers.http_call import call
from tests.servers.influxdb1 import InfluxDB1
from tests.servers.process import wait_until
from tests.servers.tcp_proxy import TcpProxy
from tests.servers.victoriametrics import VictoriaMetrics

HOST = "full"
SINKS = (
    "sinks: {{stdout: {{flush_interval: 1s}}, store: {{type: influxdb, url: '{url}', bucket: b, flush_interval: 1s}}}}"
)
SMALL = """\
journal: {min_free_bytes: 0B, segment_bytes: 64KiB, max_bytes: 4MiB, memory_bytes: 4MiB, recent_bytes: 0B}
history: {enabled: false}
"""


class OwnDiskAgent(Agent):
    """Its state directory is a small file system of its own, which the tests fill and remount."""

    def __init__(self, config: str) -> None:
        super().__init__(config)
        self.options_of_disk = "size=1m"

    def command(self) -> list[str | Path]:
        self.state_dir.mkdir(exist_ok=True)
        self.wrapper = own_disk(self.state_dir, self.options_of_disk)
        return super().command()

    @property
    def disk(self) -> Path:
        return seen_by(self, self.state_dir)

    def fill(self) -> None:
        with open(self.disk / "ballast", "wb", buffering=0) as ballast:
            try:
                while ballast.write(bytes(4096)):
                    pass
            except OSError:
                pass  # full

    def remount(self, how: str) -> None:
        """Read-only is refused while a file is open for writing, which is so for a moment at each try of the agent."""

        def is_done() -> bool:
            return in_namespace_of(self, "mount", "-o", f"remount,{how}", str(self.state_dir))

        wait_until(is_done, f"remount {how}", every=0.05)

    def refusals(self) -> str:
        """Which calls the file system refused, and how."""
        return " ".join(self.health()["journal"]["errors"])

    def newest_printed(self) -> int:
        """The second of the newest reading that was printed, the first of which may still be on its way."""
        wait_until(lambda: slots(printed_points(self.log), "mem"), "a reading")
        return slots(printed_points(self.log), "mem")[-1]

    def journal_state(self) -> str:
        state: str = self.health()["journal"]["state"]
        return state


class ReadOnlyHostAgent(Agent):
    """Nothing it sees can be written."""

    def command(self) -> list[str | Path]:
        self.state_dir.mkdir(exist_ok=True)
        self.wrapper = read_only_host()
        return super().command()


@pytest.fixture
def agent(victoriametrics: VictoriaMetrics) -> Iterator[OwnDiskAgent]:
    victoriametrics.delete(f'{{host="{HOST}"}}')
    config = f"hostname: {HOST}\n{SMALL}\n{FEW_COLLECTORS}\n{SINKS.format(url=victoriametrics.url)}\n"
    with OwnDiskAgent(config) as agent:
        agent.settled("cpu", "memory")
        yield agent
        assert not agent.complaints()


def all_arrives_without_a_gap(agent: Agent, store: VictoriaMetrics) -> None:
    points = printed_points(agent.log.rpartition("\n")[0])
    assert missed(slots(points, "mem"), agent.skipped("memory")) == 0
    wanted = values_of(points)
    wait_until(
        lambda: not missing_in_victoriametrics(wanted, in_victoriametrics(store, f'{{host="{HOST}"}}')),
        "all that was measured in the store",
        every=0.3,
    )


@pytest.mark.server("victoriametrics")
@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_disk_that_takes_nothing_for_a_while_costs_nothing(
    agent: OwnDiskAgent, victoriametrics: VictoriaMetrics, fault: str
) -> None:
    agent.fill()
    wait_until(lambda: "ENOSPC" in agent.refusals(), "the journal to fail", 20, every=0.1)
    if fault == "read-only":  # nobody may have a file open for writing: it is the full disk that had the agent close it
        agent.remount("ro")
        wait_until(lambda: "EROFS" in agent.refusals(), "the journal to fail", 20, every=0.1)
    assert "journal" in agent.health()["failing"]
    failed_at = agent.newest_printed()
    wait_until(lambda: agent.newest_printed() >= failed_at + 3, "readings all the same")
    assert agent.health()["journal"]["dropped_records"] == 0
    if fault == "read-only":
        agent.remount("rw")
    (agent.disk / "ballast").unlink()
    wait_until(lambda: agent.journal_state() == "ok", "the journal to recover by itself", 30, every=0.1)
    all_arrives_without_a_gap(agent, victoriametrics)
    assert "journal.cannot_write" in agent.log
    assert "journal.recovered" in agent.log


@pytest.mark.server("victoriametrics")
def test_an_outage_on_a_full_disk_is_remembered_as_far_as_memory_goes(victoriametrics: VictoriaMetrics) -> None:
    victoriametrics.delete(f'{{host="{HOST}"}}')
    with TcpProxy(victoriametrics.port) as proxy:
        config = f"hostname: {HOST}\n{SMALL}\n{FEW_COLLECTORS}\n{SINKS.format(url=proxy.url)}\n"
        with OwnDiskAgent(config) as agent:
            agent.settled("cpu", "memory")
            proxy.refuse()
            agent.fill()
            wait_until(lambda: agent.journal_state() == "failing", "the journal to fail", 20, every=0.1)
            first = agent.newest_printed()
            wait_until(lambda: agent.newest_printed() >= first + 3, "some slots")
            proxy.pass_through()
            wait_until(lambda: agent.health()["sinks"]["store"]["state"] == "ok", "the sink to be back", 30)
            assert agent.journal_state() == "failing"
            all_arrives_without_a_gap(agent, victoriametrics)


def test_it_starts_on_a_full_disk_and_writes_as_soon_as_there_is_room() -> None:
    agent = OwnDiskAgent(f"{SMALL}\n{FEW_COLLECTORS}\n{SINKS.format(url='http://127.0.0.1:9')}")
    agent.options_of_disk = "nr_inodes=3"  # the directory itself, the lock and the journal's directory
    with agent:
        wait_until(lambda: slots(printed_points(agent.log), "mem")[1:], "readings")
        assert agent.journal_state() == "failing"
        assert "control.no_socket" in agent.log
        agent.remount("nr_inodes=100")
        wait_until(lambda: agent.journal_state() == "ok", "the journal to recover by itself", 30, every=0.1)
        agent.signal(signal.SIGTERM)
        assert agent.ended(10) == 0
        assert not agent.complaints()


@pytest.mark.server("influxdb")
def test_it_starts_in_a_read_only_state_directory_and_delivers(influxdb1: InfluxDB1) -> None:
    influxdb1.create_database("readonly")
    sink = f"{{influxdb: {{url: '{influxdb1.url}', version: '1', database: readonly, flush_interval: 1s}}}}"
    agent = OwnDiskAgent(f"{FEW_COLLECTORS}\nsinks: {sink}")
    agent.options_of_disk = "ro"
    with agent:
        wait_until(lambda: agent.health()["sinks"]["influxdb"]["lines"] > 30, "lines in the store")
        assert agent.log.count("journal.temporary") == 1
        agent.signal(signal.SIGTERM)
        assert agent.ended(10) == 0
        assert not agent.complaints()


def test_it_runs_on_a_host_where_nothing_can_be_written() -> None:
    """What the kernel leaves of a host whose disk gave errors; readings, rules and queries go on in memory."""
    with ReadOnlyHostAgent(f"{FEW_COLLECTORS}\nsinks: {{stdout: {{flush_interval: 1s}}}}") as agent:
        wait_until(lambda: len(slots(printed_points(agent.log), "mem")) > 2, "readings")
        assert not list(agent.state_dir.iterdir())
        assert agent.log.count("journal.in_memory") == 1
        health = agent.health()
        assert health["journal"]["state"] == "failing"
        assert health["history"]["state"] == "failing"
        query = {"query": "count_over_time(node_memory_MemFree_bytes[1m]) > 1"}
        wait_until(
            lambda: call(f"{agent.url}/api/v1/query", params=query).json()["data"]["result"], "history in memory"
        )
        agent.signal(signal.SIGTERM)
        assert agent.ended(10) == 0
        assert not agent.complaints()


def test_a_state_directory_that_cannot_be_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = Agent.cli("run", "--state-dir", str(tmp_path / "file" / "state"), "--listen", "127.0.0.1:0")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"vigilhost: state_dir: {tmp_path}/file/state: not a directory; choose another")


@pytest.mark.parametrize("damage", ["noise", "zeros", "cut", "flips", "empty"])
def test_it_starts_whatever_its_files_hold(damage: str) -> None:
    rng = random.Random(damage)
    with Agent(f"{FEW_COLLECTORS}\nsinks: {{stdout: {{flush_interval: 1s}}}}") as agent:
        agent.settled("cpu", "memory")
        wait_until(lambda: agent.health()["sinks"]["stdout"]["lines"] > 0, "lines")
        agent.kill()
        seen = len(agent.log)
        for path in sorted((agent.state_dir / "journal").iterdir()):
            path.write_bytes(damaged(path.read_bytes(), damage, rng))
        agent.start()
        wait_until(lambda: slots(printed_points(agent.log[seen:]), "mem")[1:], "readings as if nothing had been")
        told = agent.health()["journal"]
        assert told["state"] == "ok"
        if damage in ("noise", "zeros"):
            assert told["set_aside"]
        assert not agent.complaints()


def damaged(content: bytes, how: str, rng: random.Random) -> bytes:
    match how:
        case "noise":
            return rng.randbytes(len(content))
        case "zeros":
            return bytes(len(content))
        case "cut":
            return content[: rng.randrange(len(content))]
        case "empty":
            return b""
    flipped = bytearray(content)
    for _ in range(20):
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return bytes(flipped)
