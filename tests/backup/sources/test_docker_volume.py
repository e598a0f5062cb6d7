"""Volumes of a real Docker daemon backed up, removed, restored and compared; containers held still meanwhile."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backup.errors import Refused
from tests.backup.hosts import BackedUp, ended, start_daemon, tree
from tests.backup.sources.round import Round, outcomes, unmet
from tests.servers.docker import Docker
from tests.servers.process import wait_until
from tests.servers.programs import need


@pytest.fixture(scope="module")
def daemon() -> Iterator[Docker]:
    need("dockerd", "docker", "busybox")
    with Docker() as server:
        server.make_image()
        yield server


@pytest.fixture
def docker(daemon: Docker) -> Iterator[Docker]:
    yield daemon
    for container in daemon.cli("ps", "--all", "--quiet").split():
        daemon.cli("rm", "--force", container)
    for volume in daemon.cli("volume", "ls", "--quiet").split():
        daemon.cli("volume", "rm", "--force", volume)


def a_volume(docker: Docker, name: str) -> Path:
    docker.cli("volume", "create", name)
    files = docker.files(name)
    (files / "sub").mkdir(mode=0o750)
    (files / "sub" / "file").write_text("precious")
    (files / "sub" / "file").chmod(0o640)
    (files / "link").symlink_to("sub/file")
    return files


def a_round(host: BackedUp, docker: Docker, **options: Any) -> Round:
    return Round(host, host.job(source={"docker_volume": {"socket": str(docker.socket), **options}}))


def test_a_volume_that_was_removed_comes_back_as_it_was(host: BackedUp, docker: Docker) -> None:
    files = a_volume(docker, "shop")
    os.chown(files, 999, 998)
    files.chmod(0o2775)
    before, status = tree(files), files.stat()
    round_ = a_round(host, docker, volumes=["shop"])
    manifest = round_.back_up()
    assert [(one.name, one.extension, one.level) for one in manifest.archives] == [("shop", "tar", 2)]
    assert manifest.versions["docker"]

    docker.cli("volume", "rm", "shop")
    round_.restore("volume:shop", allow=["setuid"])

    assert tree(docker.files("shop")) == before
    again = docker.files("shop").stat()
    assert (again.st_mode, again.st_uid, again.st_gid) == (status.st_mode, 999, 998)
    out = docker.cli("run", "--rm", "--network=none", "--volume=shop:/data", "only-busybox", "/bin/busybox", "cat",
                     "/data/link")  # fmt: skip
    assert out == "precious"


def test_a_labelled_container_is_stopped_meanwhile_and_runs_again(host: BackedUp, docker: Docker) -> None:
    docker.start_writer("writer", "shop", "--label=vigilhost.backup=stop")
    docker.start_writer("other", "elsewhere", "--label=vigilhost.backup=stop")
    wait_until((docker.files("shop") / "now").exists, "the writer")
    started = docker.cli("inspect", "--format={{.State.StartedAt}}", "other")
    round_ = a_round(host, docker, volumes=["shop"])
    manifest = round_.back_up()
    assert not manifest.archives[0].warnings  # nothing changed while it was read
    assert docker.state("writer") == "running"
    assert docker.cli("inspect", "--format={{.State.ExitCode}}", "writer") == "0"
    assert docker.cli("inspect", "--format={{.State.StartedAt}}", "other") == started
    assert not list((host.directory / "state" / "scratch").iterdir())


def test_a_container_can_be_paused_instead(host: BackedUp, docker: Docker) -> None:
    docker.start_writer("writer", "shop", "--label=vigilhost.backup=pause")
    started = docker.cli("inspect", "--format={{.State.StartedAt}}", "writer")
    a_round(host, docker, volumes=["shop"]).back_up()
    assert docker.state("writer") == "running"
    assert docker.cli("inspect", "--format={{.State.StartedAt}}", "writer") == started


def test_containers_without_a_label_are_left_alone_unless_the_job_says_otherwise(
    host: BackedUp, docker: Docker
) -> None:
    docker.start_writer("writer", "shop")
    started = docker.cli("inspect", "--format={{.State.StartedAt}}", "writer")
    a_round(host, docker, volumes=["shop"]).back_up()
    assert docker.cli("inspect", "--format={{.State.StartedAt}}", "writer") == started
    a_round(host, docker, volumes=["shop"], containers="stop").back_up()
    assert docker.cli("inspect", "--format={{.State.StartedAt}}", "writer") != started
    assert docker.state("writer") == "running"


def test_a_container_that_stopping_would_remove_is_paused(host: BackedUp, docker: Docker) -> None:
    docker.start_writer("writer", "shop", "--rm")
    a_round(host, docker, volumes=["shop"], containers="stop")
    done = host.run()
    assert done.result["warnings"] == ["writer: would be removed when it stops (--rm); paused instead"]
    assert docker.state("writer") == "running"


def test_a_container_that_somebody_paused_stays_paused(host: BackedUp, docker: Docker) -> None:
    docker.start_writer("writer", "shop", "--label=vigilhost.backup=pause")
    docker.cli("pause", "writer")
    a_round(host, docker, volumes=["shop"]).back_up()
    assert docker.state("writer") == "paused"


def test_a_dump_that_fails_lets_the_containers_go_on(host: BackedUp, docker: Docker) -> None:
    docker.start_writer("writer", "shop", "--label=vigilhost.backup=stop")
    round_ = a_round(host, docker, volumes=["shop"])
    streams = round_.source.streams(round_.work())
    next(streams)
    assert docker.state("writer") == "exited"
    streams.close()  # type: ignore[attr-defined]
    assert docker.state("writer") == "running"


def test_a_label_that_is_not_understood_fails_its_volume_alone(host: BackedUp, docker: Docker) -> None:
    docker.start_writer("writer", "shop", "--label=vigilhost.backup=halt")
    a_volume(docker, "blog")
    a_round(host, docker)
    done = host.run()
    assert done.code == 1
    assert "'halt'; write stop or pause" in done.result["error"]
    manifest = host.manifests()[0]
    assert ([one.name for one in manifest.archives], [one.name for one in manifest.missing]) == (["blog"], ["shop"])


@pytest.mark.parametrize("how", ["stop", "pause"])
def test_after_a_kill_the_next_run_lets_the_containers_go_on(host: BackedUp, docker: Docker, how: str) -> None:
    docker.start_writer("writer", "shop", f"--label=vigilhost.backup={how}")
    wait_until((docker.files("shop") / "now").exists, "the writer")
    with open(docker.files("shop") / "large", "wb") as file:
        file.truncate(0)
        file.write(bytes(range(256)) * (64 << 10))
    held = {"stop": "exited", "pause": "paused"}[how]
    host.job(source={"docker_volume": {"socket": str(docker.socket), "volumes": ["shop"]}}, limits={"rate": "1KiB"})
    worker = host.start()
    wait_until(lambda: docker.state("writer") == held, "the container to be held")
    worker.send_signal(signal.SIGKILL)
    ended(worker)
    assert docker.state("writer") == held  # nobody is there to let it go on

    a_round(host, docker, volumes=["shop"])
    done = host.run()

    undone = {"stop": "start", "pause": "unpause"}[how]
    assert f"container writer: {undone}" in [event["what"] for event in done.events if event["event"] == "swept"]
    assert done.code == 0, done.result
    assert docker.state("writer") == "running"


def test_when_the_daemon_is_killed_the_worker_lets_the_containers_go_on(host: BackedUp, docker: Docker) -> None:
    docker.start_writer("writer", "shop", "--label=vigilhost.backup=stop")
    wait_until((docker.files("shop") / "now").exists, "the writer")
    (docker.files("shop") / "large").write_bytes(bytes(range(256)) * (64 << 10))
    host.job(source={"docker_volume": {"socket": str(docker.socket), "volumes": ["shop"]}}, limits={"rate": "1KiB"})
    daemon = start_daemon(host)
    wait_until(lambda: docker.state("writer") == "exited", "the container to be held")
    daemon.kill()
    daemon.wait()
    wait_until(lambda: docker.state("writer") == "running", "the container to run again", 60.0)
    wait_until(lambda: host.stored() == [], "what was begun to be removed")


def test_a_container_that_was_removed_while_it_was_held_is_forgotten(host: BackedUp, docker: Docker) -> None:
    a_volume(docker, "shop")
    scratch = host.directory / "state" / "scratch"
    scratch.mkdir(parents=True)
    (scratch / "job.undo").write_text(json.dumps([{"container": "f" * 64, "name": "gone", "how": "stop"}]))
    a_round(host, docker, volumes=["shop"])
    done = host.run()
    assert "container gone: was removed meanwhile" in done.result["warnings"]
    assert not list(scratch.iterdir())


def test_while_the_daemon_is_away_what_is_held_stays_noted(host: BackedUp, tmp_path: Path) -> None:
    scratch = host.directory / "state" / "scratch"
    scratch.mkdir(parents=True)
    note = json.dumps([{"container": "f" * 64, "name": "writer", "how": "stop"}])
    (scratch / "job.undo").write_text(note)
    host.job(source={"docker_volume": {"socket": str(tmp_path / "none")}})
    done = host.run()
    assert done.code == 1
    assert "is the Docker daemon running" in done.result["error"]
    assert json.loads((scratch / "job.undo").read_text()) == json.loads(note)


def test_all_named_volumes_are_taken_but_those_excluded(host: BackedUp, docker: Docker) -> None:
    for name in ("shop", "blog", "blog_cache"):
        a_volume(docker, name)
    docker.cli("volume", "create")  # anonymous
    docker.cli("volume", "create", "--opt=type=tmpfs", "--opt=device=tmpfs", "memory")
    manifest = a_round(host, docker, exclude=["*_cache"]).back_up()
    assert [one.name for one in manifest.archives] == ["blog", "shop"]


@pytest.mark.parametrize(("volumes", "sentence"), [
    (["nosuch"], "nosuch: no such volume"),
    (["memory"], "memory: is mounted (tmpfs) only while a container uses it"),
])  # fmt: skip
def test_a_volume_that_cannot_be_read_here_is_an_error(
    host: BackedUp, docker: Docker, volumes: list[str], sentence: str
) -> None:
    docker.cli("volume", "create", "--opt=type=tmpfs", "--opt=device=tmpfs", "memory")
    a_round(host, docker, volumes=volumes)
    done = host.run()
    assert done.code == 1
    assert sentence in done.result["error"]


def test_a_restore_harms_no_volume_that_is_used_or_full(host: BackedUp, docker: Docker) -> None:
    files = a_volume(docker, "shop")
    round_ = a_round(host, docker, volumes=["shop"])
    round_.back_up()
    (files / "sub" / "file").write_text("newer")
    with pytest.raises(Refused, match="not empty"):
        round_.restore("volume:shop")
    docker.start_writer("writer", "shop")
    with pytest.raises(Refused, match="is used by writer"):
        round_.restore("volume:shop", allow=["force"])
    docker.cli("rm", "--force", "writer")
    assert (files / "sub" / "file").read_text() == "newer"
    round_.restore("volume:shop", allow=["force"])
    assert (files / "sub" / "file").read_text() == "precious"


def test_the_printed_recipe_restores_without_us(host: BackedUp, docker: Docker) -> None:
    before = tree(a_volume(docker, "shop"))
    round_ = a_round(host, docker, volumes=["shop"])
    round_.back_up()
    docker.cli("volume", "create", "again")
    round_.by_hand("shop", {}, DIRECTORY=str(docker.files("again")))
    assert tree(docker.files("again")) == before


def test_a_drill_looks_for_files(host: BackedUp, docker: Docker) -> None:
    a_volume(docker, "shop")
    round_ = a_round(host, docker, volumes=["shop"])
    round_.back_up()
    assert (evidence := round_.drill({"file_exists": ["sub/file"]})).is_passed, unmet(evidence)
    assert outcomes(round_.drill({"file_exists": ["nothing"]}), "shop")["nothing exists"] is False


def test_its_inventory_has_volumes_with_names_and_what_the_job_knows_of(host: BackedUp, docker: Docker) -> None:
    for name in ("shop", "mail", "web_cache", "a" * 64):
        docker.cli("volume", "create", name)
    seen = a_round(host, docker, volumes=["shop"], exclude=["*_cache"]).source.inventory(host.work())
    assert seen.there == {"shop", "mail", "web_cache"}
    assert seen.there - seen.known == {"mail"}
