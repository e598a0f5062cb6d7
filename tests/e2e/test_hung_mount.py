"""The whole agent beside a file system that never answers and whose callers cannot be killed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.servers.faulty_fuse import argv_on_hung_mount, can_mount
from tests.servers.process import alive, listens, wait_until
from tests.servers.programs import lacking, need
from tests.servers.vigilhost import Vigilhost

# Quick, so that a hundred slots pass while the test looks on. `paths.proc` because the agent takes the mounts from
# PID 1's list, and PID 1 is outside of the namespace.
CONFIG = """
paths: {{proc: {proc}}}
log: {{level: warning}}
collectors:
  others: false
  agent: {{interval: 100ms}}
  cpu: {{interval: 500ms}}
  disk: {{interval: 100ms, fs_types_exclude: '^(proc|sysfs|cgroup2?|devpts|mqueue|tmpfs|devtmpfs)$'}}
  memory: {{interval: 500ms}}
"""
SLOTS = 100
MOST_HELPERS = 8

Labels = Mapping[str, str]


class Namespace:
    """A mount namespace with a mount that hangs, and as many more views of it as asked for."""

    def __init__(self, root: Path, views: int = 0) -> None:
        self.control = root / "control"
        self.control.mkdir()
        self.mounts = [root / f"hung{number}" for number in range(views + 1)]
        for mount in self.mounts:
            mount.mkdir()
        bind = "".join(f'mount --bind "{self.mounts[0]}" "{view}" && ' for view in self.mounts[1:])
        argv = argv_on_hung_mount(
            self.mounts[0], self.control, ["sh", "-c", f'{bind} touch "{self.control}/ready" && exec sleep infinity']
        )
        self._keeper = subprocess.Popen(argv, start_new_session=True)
        self.proc = _proc_with_own_mounts(root / "proc")

    def __enter__(self) -> Namespace:
        wait_until((self.control / "ready").exists, "the file system to be mounted")
        return self

    def __exit__(self, *_: object) -> None:
        """End the file system too: whoever still waits for it gets an error."""
        os.killpg(self._keeper.pid, signal.SIGKILL)
        self._keeper.wait()

    def enter(self) -> list[str]:
        """The command that runs the rest of a command line in here, as the same process."""
        who = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", str(self._keeper.pid), *who, "--mount", "--"]

    def answer(self) -> None:
        (self.control / "answer").touch()


def _proc_with_own_mounts(tree: Path) -> Path:
    """A /proc where PID 1's mounts are those of whoever reads it."""
    (tree / "1").mkdir(parents=True)
    (tree / "1" / "mountinfo").symlink_to("/proc/self/mountinfo")
    for name in os.listdir("/proc"):
        if not name.isdigit():
            (tree / name).symlink_to(f"/proc/{name}")
    return tree


class Agent(Vigilhost):
    """The agent in that namespace."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__(CONFIG.format(proc=namespace.proc))
        self._namespace = namespace

    def command(self) -> list[str | Path]:
        return [*self._namespace.enter(), *super().command()]

    def ended_by(self, how: signal.Signals) -> int:
        """Its exit status; what it leaves behind stays. Raise TimeoutExpired where systemd would lose its patience."""
        child, self._child = self._child, None
        assert child is not None
        child.send_signal(how)
        return child.wait(15)

    def stop(self) -> None:
        """Also where a test failed: free its processes, or they could not be ended."""
        self._namespace.answer()
        super().stop()

    def samples(self, name: str) -> list[tuple[Labels, float]]:
        families = text_string_to_metric_families(self.metrics())
        return [(sample.labels, sample.value) for each in families for sample in each.samples if sample.name == name]

    def by(self, label: str, name: str) -> dict[str, float]:
        return {labels[label]: value for labels, value in self.samples(name)}

    def runs(self) -> dict[str, float]:
        return self.by("collector", "vigilhost_collector_runs_total")

    def helpers(self) -> list[int]:
        """Its processes, dead ones that nobody waited for included."""
        return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]

    def errors(self) -> dict[str, str]:
        """The label of each mount that does not answer."""
        found = self.samples("node_filesystem_device_error")
        return {labels["mountpoint"]: labels["device_error"] for labels, value in found if value == 1}

    def collector(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.health()["collectors"][name]
        return found


@pytest.fixture(autouse=True)
def _can_mount() -> None:
    need("unshare", "nsenter")
    if not can_mount():
        lacking("this machine lets us mount no FUSE in a namespace of our own")


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[Namespace]:
    with Namespace(tmp_path) as namespace:
        yield namespace


def is_unkillable(pid: int) -> bool:
    """True where a process was killed, but sleeps in the kernel."""
    return "State:\tD" in Path(f"/proc/{pid}/status").read_text()


def after_slots(agent: Agent, number: int) -> tuple[dict[str, float], dict[str, float]]:
    """Runs and skipped slots of each collector, once the disk collector has had as many runs more."""
    wait_until(lambda: "disk" in agent.runs(), "the first run to be counted")
    until = agent.runs()["disk"] + number
    wait_until(lambda: agent.runs()["disk"] >= until, f"{number} runs", 60, 0.1)
    return agent.runs(), agent.by("collector", "vigilhost_collector_skipped_slots_total")


def test_a_mount_that_never_answers_fails_alone(namespace: Namespace) -> None:
    hung = str(namespace.mounts[0])
    with Agent(namespace) as agent:
        wait_until(lambda: agent.errors() == {hung: "mountpoint timeout"}, "the mount to be flagged")
        runs_before, skipped_before = after_slots(agent, 5)
        runs, skipped = after_slots(agent, SLOTS)
        assert agent.errors() == {hung: "mountpoint timeout"}
        for name in ("agent", "cpu", "disk", "memory"):
            # waiting for the mount would cost the disk collector twenty slots a run; a busy machine costs one or two
            lost = skipped[name] - skipped_before[name]
            assert lost <= 0.1 * (runs[name] - runs_before[name]), f"{name} keeps its slots"
        assert agent.by("collector", "vigilhost_collector_timeouts_total") == dict.fromkeys(runs, 0.0)
        assert agent.samples("vigilhost_agent_abandoned_lanes_total") == [({}, 0)], "no thread of the agent hangs"
        assert hung not in agent.by("mountpoint", "node_filesystem_size_bytes"), "no number is made up"
        (stuck,) = agent.helpers()
        assert is_unkillable(stuck)
        assert agent.collector("disk")["state"] == "ok"
        assert agent.collector("disk")["failed_targets"] == {hung: "mountpoint timeout"}
        assert agent.health()["failing"] == [f"disk {hung}"]
        namespace.answer()
        wait_until(lambda: hung in agent.by("mountpoint", "node_filesystem_size_bytes"), "the mount to be back")
        assert agent.by("mountpoint", "node_filesystem_size_bytes")[hung] == 1000 * 4096
        assert agent.errors() == {}
        assert agent.health()["status"] == "ok"
        wait_until(lambda: not Path(f"/proc/{stuck}").exists(), "the helper left behind to end, and to be reaped")
        assert agent.ended_by(signal.SIGTERM) == 0


def test_no_more_helpers_than_eight_however_many_mounts_hang(tmp_path: Path) -> None:
    with Namespace(tmp_path, views=10) as namespace, Agent(namespace) as agent:
        hung = {str(mount) for mount in namespace.mounts}
        wait_until(lambda: agent.errors().keys() == hung, "all of them to be flagged", 40)
        wait_until(lambda: len(agent.helpers()) == MOST_HELPERS, "as many helpers as there may be")
        stuck = agent.helpers()
        _, skipped = after_slots(agent, 10)
        # the disk collector had to wait for two whole deadlines: eight slots of theirs
        assert max(skipped["cpu"], skipped["memory"]) <= 2, "the others did not wait"
        assert agent.helpers() == stuck
        assert agent.collector("memory")["state"] == "ok"
        namespace.answer()
        wait_until(lambda: not agent.errors(), "all of them to be back")
        wait_until(lambda: len(agent.helpers()) == 1, "one helper to do for all")
        assert agent.ended_by(signal.SIGTERM) == 0


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_the_agent_starts_again_on_its_port_while_the_mount_hangs(namespace: Namespace, end: signal.Signals) -> None:
    hung = str(namespace.mounts[0])
    with Agent(namespace) as agent:
        wait_until(lambda: hung in agent.errors(), "the mount to be flagged")
        (stuck,) = agent.helpers()
        port = agent.port
        assert agent.ended_by(end) == (0 if end == signal.SIGTERM else -end)
        assert is_unkillable(stuck), "it outlives the agent"
        assert not listens(port), "but does not hold its port"
        agent.start(port)
        wait_until(lambda: hung in agent.errors(), "the mount to be flagged again")
        assert agent.ended_by(signal.SIGTERM) == 0
        namespace.answer()
        wait_until(lambda: not alive(stuck), "the helper left behind to end")
