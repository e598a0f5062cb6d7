"""The image of packaging/Dockerfile on a real Docker daemon: it measures the host, not itself.

No registry can be asked here, so the base image is a Debian 12 of our own that has what the package depends on; the
way through apt-get, which a bare debian:12 takes, is not tried.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.packaging.built import ROOT
from tests.servers.debian_root import debian_root
from tests.servers.docker import Docker
from tests.servers.http_call import answers_ok, call, must
from tests.servers.process import LOOPBACK, free_port, listens, wait_until
from tests.servers.programs import need, need_root

BUILD_DEADLINE = 900.0


@pytest.fixture(scope="module")
def docker(deb: Path) -> Iterator[Docker]:
    need("dockerd", "mmdebstrap")
    need_root("a Docker daemon needs root")
    with Docker() as server:
        server.import_root(debian_root(), "debian-of-ours")
        argv = ["build", "--network=none", "--build-arg=BASE=debian-of-ours", "--tag=vigilhost",
                f"--file={ROOT}/packaging/Dockerfile", str(ROOT)]  # fmt: skip
        server.cli(*argv, deadline=BUILD_DEADLINE)
        yield server


class Container:
    """`vigilhost run` as docs/install.md starts it, except for the port."""

    def __init__(self, docker: Docker, name: str) -> None:
        self.docker, self.name, self.port = docker, name, free_port()
        # Where this machine's root passes mounts on, later ones appear in the container too.
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        passed_on = any(" / / " in line and " shared:" in line for line in mounts)
        host, state = "/:/host:ro,rslave" if passed_on else "/:/host:ro", f"{name}:/var/lib/vigilhost"
        docker.cli(
            "run", "--detach", f"--name={name}", "--network=host", f"--volume={host}", f"--volume={state}",
            "vigilhost", "run", f"--listen={LOOPBACK}:{self.port}",
        )  # fmt: skip

    def wait(self) -> None:
        wait_until(lambda: listens(self.port), "the agent in the container to listen", deadline=120)
        wait_until(lambda: answers_ok(f"http://{LOOPBACK}:{self.port}/-/ready"), "it to be ready", deadline=120)

    def types(self, *words: str) -> str:
        return self.docker.cli("exec", self.name, *words)

    def samples(self) -> dict[tuple[str, str], float]:
        """By name and, where there is one, mount point."""
        text = must(call(f"http://{LOOPBACK}:{self.port}/metrics")).text
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name, sample.labels.get("mountpoint", "")] = sample.value
        return found


@pytest.fixture(scope="module")
def container(docker: Docker) -> Container:
    started = Container(docker, "vigilhost")
    started.wait()
    return started


def test_memory_disks_and_processes_are_the_hosts(container: Container) -> None:
    found = wait_until(
        lambda: samples if ("node_filesystem_size_bytes", "/") in (samples := container.samples()) else None,
        "the disks to be measured", deadline=60,
    )  # fmt: skip
    root = os.statvfs("/")
    assert found["node_filesystem_size_bytes", "/"] == root.f_blocks * root.f_frsize
    assert found["node_memory_MemTotal_bytes", ""] == psutil.virtual_memory().total
    assert abs(found["node_boot_time_seconds", ""] - psutil.boot_time()) < 5
    here = len(psutil.pids())
    assert here / 2 < found["node_processes_pids", ""] < here * 2, "a container alone has a handful"


def test_it_is_nobody_there_and_can_write_nothing_on_the_host(container: Container) -> None:
    assert container.types("id", "-un") == "vigilhost"
    as_root = container.docker.cli("exec", "--user=0", container.name, "sh", "-c", "touch /host/tmp/x 2>&1 || true")
    assert "Read-only file system" in as_root


def test_commands_work_inside_and_the_state_is_on_the_volume(container: Container) -> None:
    assert "cpu" in container.types("vigilhost", "status")
    files = container.docker.files(container.name)
    assert {"journal", "history"} <= set(os.listdir(files))
    container.docker.cli("stop", container.name)
    assert container.docker.cli("inspect", "--format={{.State.ExitCode}}", container.name) == "0"
    container.docker.cli("start", container.name)
    container.wait()


def test_nothing_of_the_build_is_left_in_the_image(docker: Docker) -> None:
    argv = ["run", "--rm", "--network=none", "--entrypoint=sh", "vigilhost", "-c", "ls /tmp /var/lib/apt/lists"]
    assert "vigilhost" not in docker.cli(*argv)
