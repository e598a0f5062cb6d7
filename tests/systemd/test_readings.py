"""The sandbox falsifies nothing: the service's readings beside those of an agent without one, on the same machine."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from math import isnan

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.config.tables import COLLECTORS
from tests.servers.process import wait_until
from tests.systemd.installed import AGENT_PORT, CONFIG, Installed

FREE_PORT = 9812
OURS = ("vigilhost_", "process_", "python_", "node_scrape_")  # what each agent tells about itself
SINCE_MET = "node_processes_state"  # of a state from when its agent first met it, if only to count none
QUICK = json.dumps({"collectors": {name: {"interval": "1s"} for name in COLLECTORS.on_by_default}})
MOUNTS = """
mkdir -p /srv/read-only
mount -t tmpfs -o size=64m,nr_inodes=1000 homes /home
mkdir /home/joe
head -c 5000000 /dev/zero >/home/joe/file
chown -R daemon /home/joe
chmod 700 /home/joe
mount -t tmpfs -o ro,size=32m read-only /srv/read-only
"""
LATER_MOUNT = "mkdir -p /srv/later && mount -t tmpfs -o size=16m later /srv/later"

Key = tuple[str, frozenset[tuple[str, str]]]
Readings = Mapping[Key, float]


@pytest.fixture(scope="module")
def both(machine: Installed) -> Iterator[Installed]:
    """The service, and beside it, as the same user, an agent without a sandbox."""
    machine.run("sh", "-ec", MOUNTS)
    machine.configure(QUICK)
    machine.restart()
    meet_a_zombie(machine)
    machine.run(
        "systemd-run", "--quiet", "--unit=free", "--property=User=vigilhost", "--property=StateDirectory=free",
        "vigilhost", "run", "--config", CONFIG, "--state-dir", "/var/lib/free", "--listen", f"127.0.0.1:{FREE_PORT}",
    )  # fmt: skip
    machine.run("sh", "-ec", LATER_MOUNT)
    await_readings_of_all(machine)
    readings(machine, AGENT_PORT, time.time())  # those of the last mount too
    yield machine
    machine.run("systemctl", "stop", "free")


def meet_a_zombie(machine: Installed) -> None:
    """The service has met one that the other agent will not."""
    machine.run("systemd-run", "--quiet", "--unit=zombie", "sh", "-c", "true & exec sleep infinity")

    def is_met() -> bool:
        return any(name == SINCE_MET and dict(labels)["state"] == "Z"
                   for name, labels in readings(machine, AGENT_PORT))  # fmt: skip

    wait_until(is_met, "the service to meet a zombie", 30, every=0.2)
    machine.run("systemctl", "stop", "zombie")


def await_readings_of_all(machine: Installed) -> None:
    """Until each collector of both agents has run."""

    def have_run(port: int) -> bool:
        try:
            found = machine.health(port)["collectors"].values()
        except OSError:
            return False
        return all(each["last_success"] or each["state"] == "nothing to measure" for each in found)

    for port in (AGENT_PORT, FREE_PORT):
        wait_until(lambda port=port: have_run(port), f"all collectors behind port {port}", 60, 0.2)


def readings(machine: Installed, port: int, after: float = 0.0) -> Readings:
    """Every sample of /metrics, measured at least two seconds later than `after`: no collector still shows the old."""

    def scraped() -> Readings:
        families = text_string_to_metric_families(machine.metrics(port))
        found = {(one.name, frozenset(one.labels.items())): one.value for each in families for one in each.samples}
        return found if measured_at(found) >= after + 2 else {}

    found = wait_until(scraped, "newer readings", 30, every=0.1)
    return {key: value for key, value in found.items() if not key[0].startswith(OURS)}


def measured_at(found: Readings) -> float:
    return found["node_time_seconds", frozenset()]


def differing(machine: Installed, rounds: int) -> set[Key]:
    """What the service shows otherwise than the agent without a sandbox, in each of so many rounds.

    In a round it is asked between two looks of the other. What both show alike has to be the service's too, a counter
    between theirs; a reading that moves by itself gets there in one of the rounds, a wrong one in none.
    """
    left: set[Key] | None = None
    before = readings(machine, FREE_PORT)
    for _ in range(rounds):
        service = readings(machine, AGENT_PORT, measured_at(before))
        after = readings(machine, FREE_PORT, measured_at(service))
        there = before.keys() & after.keys()
        found = {key for key in there if not is_between(service.get(key, unmet(key)), before[key], after[key])}
        found |= {key for key in service.keys() - before.keys() - after.keys() if service[key] != unmet(key)}
        left, before = found if left is None else left & found, after
        if not left:
            break
    return left or set()


def unmet(key: Key) -> float | None:
    """What a series counts that is not there."""
    return 0.0 if key[0] == SINCE_MET else None


def is_between(value: float | None, one: float, other: float) -> bool:
    return value is not None and (min(one, other) <= value <= max(one, other) or (isnan(value) and isnan(one)))


def shown(machine: Installed, name: str, **labels: str) -> float:
    """The service's one reading of that name that has those labels."""
    wanted = labels.items()
    (value,) = [value for key, value in readings(machine, AGENT_PORT).items() if key[0] == name and wanted <= key[1]]
    return value


def test_the_service_shows_what_an_agent_without_a_sandbox_shows_series_by_series(both: Installed) -> None:
    assert len(readings(both, FREE_PORT)) > 500
    assert differing(both, rounds=20) == set()


def test_every_process_of_the_machine_is_counted(both: Installed) -> None:
    def counts() -> bool:
        there = both.run("sh", "-c", "ls -d /proc/[0-9]* | wc -l")
        return int(there) - 2 == shown(both, "node_processes_pids")  # the shell and ls

    wait_until(counts, "as many processes as there are", 60, every=0.2)
    assert shown(both, "node_processes_pids") > 5


@pytest.mark.parametrize(("mount", "size_mib"), [("/home", 64), ("/srv/read-only", 32), ("/srv/later", 16)])
def test_a_file_system_has_its_own_size_also_in_home_and_when_mounted_later(
    both: Installed, mount: str, size_mib: int
) -> None:
    assert shown(both, "node_filesystem_size_bytes", mountpoint=mount) == size_mib << 20
    assert shown(both, "node_filesystem_device_error", mountpoint=mount) == 0


def test_what_others_keep_in_home_is_counted(both: Installed) -> None:
    size, free = (shown(both, f"node_filesystem_{what}_bytes", mountpoint="/home") for what in ("size", "free"))
    assert 5_000_000 <= size - free < 6_000_000
    assert shown(both, "node_filesystem_files", mountpoint="/home") == 1000


@pytest.mark.parametrize(("mount", "flag"), [("/home", 0), ("/srv/later", 0), ("/srv/read-only", 1)])
def test_read_only_is_what_is_read_only_on_the_machine_not_in_the_sandbox(
    both: Installed, mount: str, flag: int
) -> None:
    assert shown(both, "node_filesystem_readonly", mountpoint=mount) == flag


def test_a_sandbox_that_hides_things_would_be_seen(both: Installed) -> None:
    both.extend_service("hides", "ProtectHome=yes\nProtectProc=invisible\n")
    both.restart()
    await_readings_of_all(both)
    names = {(name, dict(labels).get("mountpoint")) for name, labels in differing(both, rounds=3)}
    assert {("node_processes_pids", None), ("node_filesystem_size_bytes", "/home")} <= names
