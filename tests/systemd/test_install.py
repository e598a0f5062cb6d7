"""The package on a fresh Debian: installing starts a working agent, removing stops it, purging leaves no state."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.installed import CONFIG, SERVICE, Installed

BACKUP = "/srv/backup/etc/20260131T030000Z-1a2b3c.tar.zst"
JOB = """\
source: {files: {paths: [/etc/vigilhost]}}
schedule: never
targets: {disk: {type: local, path: /srv/copies}}
drill: {schedule: never, assertions: [{file_exists: [etc/vigilhost/vigilhost.yaml]}]}
"""
DROP_INS = "/etc/systemd/system/vigilhost-backup@.service.d"
EDITED = "collectors: {others: false, cpu: {}}\n"


@pytest.fixture(scope="module")
def fresh(package: Path) -> Iterator[Installed]:
    """A machine without the package."""
    with Installed() as machine:
        yield machine


def test_installing_gives_a_service_that_is_on_serves_and_starts_at_boot(fresh: Installed, package: Path) -> None:
    fresh.install(package)
    fresh.await_serving()
    assert fresh.run("systemctl", "is-enabled", SERVICE).strip() == "enabled"
    assert fresh.show(SERVICE, "NRestarts", "User") == {"NRestarts": "0", "User": "vigilhost"}
    assert fresh.health()["status"] == "ok"
    assert "node_memory_MemTotal_bytes" in fresh.metrics()
    assert fresh.run("systemctl", "--failed", "--no-legend") == ""


def test_files_belong_to_whom_they_should(fresh: Installed) -> None:
    paths = ["/etc/vigilhost", CONFIG, "/var/lib/vigilhost", "/var/lib/vigilhost/journal", "/run/vigilhost"]
    listed = fresh.run("stat", "--format=%U:%G %a %n", *paths).splitlines()
    assert listed == [
        "root:vigilhost 750 /etc/vigilhost",
        f"root:vigilhost 640 {CONFIG}",
        "vigilhost:vigilhost 700 /var/lib/vigilhost",
        "vigilhost:vigilhost 700 /var/lib/vigilhost/journal",
        "vigilhost:vigilhost 750 /run/vigilhost",
    ]


def test_its_sandbox_is_in_force(fresh: Installed) -> None:
    pid = fresh.main_pid()
    status = fresh.run("cat", f"/proc/{pid}/status")
    for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in status
    assert re.search(r"^Max core file size +0 +0 ", fresh.run("cat", f"/proc/{pid}/limits"), re.MULTILINE)
    inside = ("nsenter", f"--target={pid}", "--mount", "runuser", "-u", "vigilhost", "--", "sh", "-c")
    assert fresh.attempt(*inside, "echo >/etc/vigilhost/written").returncode != 0
    assert fresh.attempt(*inside, "echo >/home/written").returncode != 0
    assert fresh.attempt(*inside, "echo >/var/lib/vigilhost/written && rm /var/lib/vigilhost/written").returncode == 0


def test_the_command_speaks_with_the_service(fresh: Installed) -> None:
    assert "ok" in fresh.run("vigilhost", "status")
    assert "node_load1" in fresh.run("vigilhost", "query", "node_load1")


def test_the_journal_has_the_start_with_its_fields_and_nothing_worse_than_information(fresh: Installed) -> None:
    event = fresh.agent_event("agent.started")
    version = fresh.run("vigilhost", "--version").split()[-1]
    assert {name: event[name] for name in ("PRIORITY", "SYSLOG_IDENTIFIER", "LEVEL", "VERSION", "_COMM", "SINKS")} == {
        "PRIORITY": "6", "SYSLOG_IDENTIFIER": "vigilhost", "LEVEL": "info", "VERSION": version, "_COMM": "vigilhost",
        "SINKS": "none",
    }  # fmt: skip
    assert event["MESSAGE"].startswith(f"agent.started version={version} collectors={event['COLLECTORS']} ")
    assert [one["MESSAGE"] for one in fresh.events(SERVICE) if int(one["PRIORITY"]) < 6] == []


def test_removing_stops_it_and_keeps_configuration_and_state(fresh: Installed) -> None:
    fresh.configure(EDITED)
    fresh.run("sh", "-c", f"mkdir -p {Path(BACKUP).parent} && echo precious >{BACKUP}")
    pid = fresh.main_pid()
    fresh.remove()
    assert fresh.show(SERVICE, "ActiveState", "MainPID") == {"ActiveState": "inactive", "MainPID": "0"}
    assert not fresh.path(f"/proc/{pid}").exists()
    assert not fresh.path("/usr/bin/vigilhost").exists()
    assert fresh.path(CONFIG).read_text() == EDITED
    assert fresh.path("/var/lib/vigilhost/journal").is_dir()


def test_installing_it_again_goes_on_with_what_was_kept(fresh: Installed, package: Path) -> None:
    fresh.install(package)
    fresh.await_serving()
    assert list(fresh.health()["collectors"]) == ["cpu"]
    assert fresh.run("systemctl", "is-enabled", SERVICE).strip() == "enabled"


def test_a_job_is_run_and_drilled_through_the_socket(fresh: Installed) -> None:
    fresh.run("sh", "-ec", "mkdir /srv/copies; cat >/etc/vigilhost/backup.d/etc.yaml", stdin=JOB)
    fresh.run("vigilhost", "backup", "destinations", "--install")
    fresh.run("systemctl", "reload", "vigilhost")
    fresh.run("vigilhost", "backup", "run", "etc")
    fresh.run("vigilhost", "backup", "drill", "etc")
    made = {path.name for path in fresh.path("/var/lib/vigilhost-backup").iterdir()}
    assert {"locks", "backup-drills"} <= made
    assert fresh.path("/var/cache/vigilhost-backup").is_dir()
    assert "/srv/copies" in fresh.path(f"{DROP_INS}/destinations.conf").read_text()


def test_purging_removes_state_and_configuration_and_leaves_backups(fresh: Installed) -> None:
    fresh.remove(purge=True)
    gone = (
        "/var/lib/vigilhost",
        "/var/lib/vigilhost-backup",
        "/var/cache/vigilhost",
        "/var/cache/vigilhost-backup",
        DROP_INS,
        "/run/vigilhost",
        "/usr/lib/vigilhost",
    )
    assert [path for path in (*gone, CONFIG) if fresh.path(path).exists()] == []
    assert fresh.path(BACKUP).read_text() == "precious\n"
    assert [path.name for path in fresh.path("/srv/copies").rglob("manifest.json")] == ["manifest.json"]
    assert fresh.run("systemctl", "--failed", "--no-legend") == ""
    assert fresh.attempt("systemctl", "list-unit-files", "--no-legend", "vigilhost*").stdout == ""
