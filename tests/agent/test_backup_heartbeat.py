"""Pings about backup runs, at a scripted service: they tell how it went, and never harm it."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest
import structlog
from click.testing import CliRunner

from agent import backup_heartbeat
from agent.backup_heartbeat import ping
from agent.backup_keeper import BackupKeeper
from agent.cli.group import cli
from agent.core.secrets import Secret
from backup.job import Heartbeat
from backup.worker import EVERY_JOB, lock
from tests.agent.test_backup_keeper import play, until
from tests.backup.hosts import HOST, BackedUp, command_job
from tests.servers.scripted_http import HANG, Reply, ScriptedHttp

TOKEN = "5c1b8f7e-canary"
NEVER = {"at": "never"}


def options(service: ScriptedHttp, **more: Any) -> Heartbeat:
    return Heartbeat(url=Secret(f"{service.url}/{TOKEN}"), **more)


def asked(service: ScriptedHttp) -> list[str]:
    return [one.path for one in service.requests]


@pytest.mark.parametrize(
    ("kind", "more", "paths"),
    [
        ("start", {}, [f"/{TOKEN}/start"]),
        ("success", {}, [f"/{TOKEN}"]),
        ("fail", {}, [f"/{TOKEN}/fail"]),
        ("start", {"suffixes": False}, []),
        ("fail", {"suffixes": False}, []),
        ("success", {"suffixes": False}, [f"/{TOKEN}"]),
    ],
)
def test_each_kind_has_its_address(kind: Any, more: dict[str, Any], paths: list[str]) -> None:
    with ScriptedHttp(Reply(200)) as service:
        assert ping(options(service, **more), kind, "text") == ""
        assert asked(service) == paths
        assert [one.text for one in service.requests] == ["text"] * len(paths)


def test_a_service_with_addresses_of_its_own_gets_those() -> None:
    with ScriptedHttp(Reply(200)) as service:
        own = options(service, start=Secret(f"{service.url}/run?s=1"), fail=Secret(f"{service.url}/down"))
        for kind in ("start", "fail", "success"):
            assert ping(own, kind, "") == ""  # type: ignore[arg-type]
        assert asked(service) == ["/run", "/down", f"/{TOKEN}"]


def test_a_service_that_is_out_of_order_is_asked_again() -> None:
    with ScriptedHttp(Reply(200)) as service:
        service.answer(Reply(503), Reply(429, headers={"Retry-After": "0"}))
        assert ping(options(service), "success", "") == ""
        assert len(service.requests) == 3


@pytest.mark.parametrize("reply", [HANG, Reply(503), Reply(404, f"no check {TOKEN}")])
def test_a_ping_that_is_lost_is_said_without_its_secret(reply: Reply) -> None:
    with ScriptedHttp(reply) as service:
        said = ping(options(service, deadline=1.0), "success", "")
    assert said
    assert TOKEN not in said


def test_the_agent_tells_of_every_run(host: BackedUp) -> None:
    with ScriptedHttp(Reply(200)) as service:
        heartbeat = {"url": f"{service.url}/{TOKEN}"}

        async def scene(kept: BackupKeeper, _: Any) -> None:
            await kept.commands()["backup_run"]({"job": "job"})
            await until(lambda: len(service.requests) == 2)
            command_job(host, "echo broken >&2; exit 3", schedule=NEVER, heartbeat=heartbeat)
            await kept.commands()["backup_run"]({"job": "job"})
            await until(lambda: len(service.requests) == 4)

        host.job(schedule=NEVER, heartbeat=heartbeat)
        play(host, scene)
        assert asked(service) == [f"/{TOKEN}/start", f"/{TOKEN}", f"/{TOKEN}/start", f"/{TOKEN}/fail"]
        assert service.requests[1].text == "backup job: ok"
        assert "broken" in service.requests[3].text


def test_the_agent_tells_of_every_drill_at_an_address_of_its_own(host: BackedUp) -> None:
    with ScriptedHttp(Reply(200)) as runs, ScriptedHttp(Reply(200)) as service:

        def job(name: str) -> None:
            host.job(
                schedule=NEVER, heartbeat={"url": f"{runs.url}/run"},
                drill={"schedule": "never", "assertions": [{"file_exists": [name]}],
                       "heartbeat": {"url": f"{service.url}/{TOKEN}"}},
            )  # fmt: skip

        async def scene(kept: BackupKeeper, _: Any) -> None:
            drill = kept.commands()["backup_run"]
            await drill({"job": "job", "drill": True})
            await until(lambda: len(service.requests) == 2)
            await drill({"job": "job"})
            await until(lambda: len(host.manifests()) == 1 and len(runs.requests) == 2)
            await drill({"job": "job", "drill": True})
            await until(lambda: len(service.requests) == 4)
            job("nowhere")
            await drill({"job": "job", "drill": True})
            await until(lambda: len(service.requests) == 6)

        job(str(host.source / "file").lstrip("/"))
        play(host, scene)
        begun, good, bad = f"/{TOKEN}/start", f"/{TOKEN}", f"/{TOKEN}/fail"
        assert asked(service) == [begun, bad, begun, good, begun, bad]
        assert service.requests[0].text == "restore drill of job began"
        assert "there is no complete backup" in service.requests[1].text
        assert service.requests[3].text == "restore drill of job: ok"
        assert "nowhere exists: not there" in service.requests[5].text
        assert asked(runs) == ["/run/start", "/run"]


def test_a_drill_is_told_only_once_it_has_its_turn(host: BackedUp) -> None:
    """Another job runs: the drill waits, and a service that measures times must not hear of it yet."""
    with ScriptedHttp(Reply(200)) as service:
        host.job(schedule=NEVER, drill={"schedule": "never", "assertions": [],
                                        "heartbeat": {"url": f"{service.url}/{TOKEN}"}})  # fmt: skip

        async def scene(kept: BackupKeeper, _: Any) -> None:
            state = str(host.directory / "state")
            with lock(state, EVERY_JOB) as is_ours:
                assert is_ours
                await kept.commands()["backup_run"]({"job": "job", "drill": True})
                await until(lambda: (host.directory / "state" / "scratch" / "job").is_dir())
                assert asked(service) == []
            await until(lambda: len(service.requests) == 2)

        play(host, scene)


def test_a_lost_ping_is_said_once_and_the_backup_is_good(host: BackedUp) -> None:
    with ScriptedHttp(Reply(404, TOKEN)) as service:
        host.job(schedule=NEVER, heartbeat={"url": f"{service.url}/{TOKEN}"})

        async def scene(kept: BackupKeeper, _: Any) -> None:
            await kept.commands()["backup_run"]({"job": "job"})
            await until(lambda: len(service.requests) == 2)
            await until(lambda: kept.summary()["jobs"]["job"]["status"] != "never")
            told = kept.summary()
            assert (told["state"], told["jobs"]["job"]["status"]) == ("ok", "ok")
            assert told["jobs"]["job"]["heartbeat_error"] == "heartbeat: http status 404: ***"

        with structlog.testing.capture_logs() as logs:
            play(host, scene)
        assert [one["event"] for one in logs].count("backup.heartbeat_failed") == 1
        assert TOKEN not in str(logs)


def test_an_end_while_a_ping_hangs_leaves_the_backup_good(host: BackedUp) -> None:
    with ScriptedHttp(HANG) as service:
        host.job(schedule=NEVER, heartbeat={"url": f"{service.url}/{TOKEN}", "deadline": "50s"})

        async def scene(kept: BackupKeeper, _: Any) -> None:
            await kept.commands()["backup_run"]({"job": "job"})
            await until(lambda: len(host.manifests()) == 1)
            async with asyncio.timeout(40):
                await kept.close()

        play(host, scene)
        assert len(host.manifests()) == 1


def test_a_run_that_breaks_in_a_way_nobody_thought_of_is_told_as_a_failure(
    host: BackedUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(backup_heartbeat, "run_job", broken)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with ScriptedHttp(Reply(200)) as service, open(host.directory / "output", "wb") as output:
            job = host.job(schedule=NEVER, heartbeat={"url": f"{service.url}/{TOKEN}"})
            with pytest.raises(ZeroDivisionError):
                backup_heartbeat.work(job, host=HOST, state_dir=str(host.directory / "state"), output=output.fileno())
            assert asked(service) == [f"/{TOKEN}/fail"]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_run_by_hand_is_told_too(host: BackedUp) -> None:
    where = ["--config", str(host.directory / "vigilhost.yaml"), "--jobs", str(host.directory / "backup.d"),
             "--state-dir", str(host.directory / "state")]  # fmt: skip

    with ScriptedHttp(Reply(200)) as service:
        host.job(schedule=NEVER, heartbeat={"url": f"{service.url}/{TOKEN}"})
        done = CliRunner().invoke(cli, ["backup", "run", "job", *where])
        assert done.exit_code == 0, done.output
        assert asked(service) == [f"/{TOKEN}/start", f"/{TOKEN}"]
        service.default = Reply(404, TOKEN)
        done = CliRunner().invoke(cli, ["backup", "run", "job", *where])
        assert done.exit_code == 0, done.output
        assert "warning: heartbeat: http status 404: ***; the backup itself is not harmed" in done.stderr
