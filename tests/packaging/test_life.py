"""The package's life on a host, without a service manager: upgrade, interruption, removal, purge.

What systemd makes of it is tested where one is booted.
"""

from __future__ import annotations

from pathlib import Path

from tests.packaging.built import repacked
from tests.packaging.root import Root
from tests.servers.http_call import call, must
from tests.servers.process import wait_until
from tests.servers.programs import need

SITE = "/usr/lib/vigilhost/lib/python3.11/site-packages"
STATE = "/var/lib/vigilhost"
JOB = """
source: {files: {paths: [/etc/vigilhost]}}
schedule: never
targets:
  disk: {type: local, path: /var/lib/vigilhost/copies}
"""


def install(root: Root, package: Path) -> str:
    return root.run("dpkg", "--install", root.put(package)).stderr


def contents(root: Root, directory: str) -> str:
    """Names, owners, modes and sums of all files below."""
    files = root.run("sh", "-c", f"cd {directory} && find . -type f -exec sha256sum {{}} + | sort -k 2").stdout
    return files + root.run("sh", "-c", f"cd {directory} && find . ! -type s -printf '%p %u %g %m\\n' | sort").stdout


def test_an_upgrade_keeps_configuration_and_state_and_asks_nothing(root: Root, deb: Path, tmp_path: Path) -> None:
    install(root, repacked(deb, tmp_path, "0.0.1", extra=[f"{SITE}/agent/gone.py"]))
    root.path("/etc/vigilhost/vigilhost.yaml").write_text("tags: {env: prod}\n")
    root.path("/etc/vigilhost/conf.d/mine.yaml").write_text("log: {level: warning}\n")
    root.start_agent()
    root.stop_agent()
    before = contents(root, "/etc/vigilhost"), contents(root, STATE)
    assert "journal" in before[1]
    install(root, deb)
    assert (contents(root, "/etc/vigilhost"), contents(root, STATE)) == before
    assert [path.name for path in root.path(f"{SITE}/agent").rglob("gone*")] == [], "byte code of the old version too"
    assert must(call(f"{root.start_agent()}/health")).json()["status"] in ("ok", "degraded")


def test_the_running_agent_gets_through_an_upgrade(root: Root, deb: Path, tmp_path: Path) -> None:
    """Without systemd nobody restarts it: the old one has to live with the new files."""
    install(root, repacked(deb, tmp_path, "0.0.1"))
    address = root.start_agent()
    install(root, deb)
    assert "vigilhost_build_info" in must(call(f"{address}/metrics")).text
    assert must(call(f"{address}/api/v1/query?query=up")).json()["status"] == "success"


def test_an_owner_chosen_by_the_operator_stays(root: Root, deb: Path) -> None:
    install(root, deb)
    root.run("chown", "root:adm", "/etc/vigilhost/vigilhost.yaml")
    root.run("chmod", "0644", "/etc/vigilhost/vigilhost.yaml")
    install(root, deb)
    assert root.run("stat", "-c", "%U %G %a", "/etc/vigilhost/vigilhost.yaml").stdout.split() == ["root", "adm", "644"]


def test_an_interrupted_installation_is_finished_later(root: Root, deb: Path) -> None:
    """The compiler of byte code fails in the middle of postinst, as it does on a full disk."""
    compiler = root.path("/usr/bin/py3compile")
    works = compiler.read_bytes()
    compiler.write_text("#!/bin/sh\nexit 1\n")
    root.run("dpkg", "--install", root.put(deb), code=1)
    compiler.write_bytes(works)
    root.run("dpkg", "--configure", "--pending")
    assert root.run("dpkg-query", "--show", "--showformat=${db:Status-Status}", "vigilhost").stdout == "installed"
    root.run("vigilhost", "check", user="vigilhost")


def test_scripts_may_run_twice(root: Root, deb: Path) -> None:
    install(root, deb)
    scripts = "/var/lib/dpkg/info/vigilhost"
    for called in ("postinst configure", "postinst configure 0.0.1", "postinst abort-upgrade 0.0.1", "prerm upgrade 9",
                   "prerm remove", "postrm remove", "postrm purge"):  # fmt: skip
        script, *words = called.split()
        for _ in range(2):
            root.run("sh", f"{scripts}.{script}", *words)


def test_removal_keeps_configuration_and_state_for_the_next_installation(root: Root, deb: Path) -> None:
    install(root, deb)
    root.path("/etc/vigilhost/vigilhost.yaml").write_text("tags: {env: prod}\n")
    root.path("/etc/vigilhost/backup.d/job.yaml").write_text(JOB)
    root.start_agent()
    root.stop_agent()
    before = contents(root, STATE)
    root.run("dpkg", "--remove", "vigilhost")
    assert not root.path("/usr/lib/vigilhost").exists(), "byte code is gone too"
    assert not root.path("/usr/bin/vigilhost").exists()
    assert contents(root, STATE) == before
    install(root, deb)
    assert root.path("/etc/vigilhost/vigilhost.yaml").read_text() == "tags: {env: prod}\n"
    assert root.path("/etc/vigilhost/backup.d/job.yaml").read_text() == JOB
    assert contents(root, STATE) == before
    assert root.path("/etc/systemd/system/multi-user.target.wants/vigilhost.service").is_symlink()


def test_a_purge_removes_all_of_the_state_and_no_backup(root: Root, deb: Path) -> None:
    """Also where the backups lie inside the state directory, the worst place that they can have."""
    need("tar", "zstd")
    install(root, deb)
    root.path("/etc/vigilhost/backup.d/job.yaml").write_text(JOB)
    address = root.start_agent()
    root.run("install", "-d", "-o", "vigilhost", f"{STATE}/copies")
    root.run("vigilhost", "backup", "run", "job", "--state-dir", STATE, user="vigilhost")
    root.run("vigilhost", "backup", "drill", "job", "--state-dir", STATE, user="vigilhost")
    # As root's helper leaves its places; whether it does so in fact, a machine with systemd shows (tests/systemd).
    for path in ("backup-drills", "locks", "scratch"):
        root.run("install", "-D", "/dev/null", f"/var/lib/vigilhost-backup/{path}/job")
    root.run("install", "-D", "/dev/null", "/var/cache/vigilhost-backup/restic/x")
    root.run("vigilhost", "backup", "destinations", "--install")
    wait_until(lambda: must(call(f"{address}/api/v1/query?query=node_load1")).json()["data"]["result"], "a sample", 60)
    root.stop_agent()
    kept = {path.name for path in root.path(STATE).iterdir()}
    assert {"journal", "history", "alerts.sqlite", "backup-results", "copies"} <= kept
    before = contents(root, f"{STATE}/copies")
    assert "manifest.json" in before
    said = root.run("dpkg", "--purge", "vigilhost").stderr
    assert f"vigilhost: {STATE} has more in it than the agent's state; it stays" in said
    assert [path.name for path in root.path(STATE).iterdir()] == ["copies"]
    assert contents(root, f"{STATE}/copies") == before
    assert [path.name for path in root.path("/etc/vigilhost").iterdir()] == ["backup.d"], "what the operator wrote"
    assert [str(path) for path in root.path("/etc/systemd").rglob("vigilhost*")] == []
    assert not root.path("/var/lib/vigilhost-backup").exists()
    assert not root.path("/var/cache/vigilhost-backup").exists()


def test_a_purge_leaves_nothing_where_nothing_else_is(root: Root, deb: Path) -> None:
    install(root, deb)
    root.start_agent()
    root.stop_agent()
    assert "vigilhost" not in root.run("dpkg", "--purge", "vigilhost").stderr.replace("(vigilhost)", "")
    for path in (STATE, "/etc/vigilhost", "/usr/lib/vigilhost", "/var/lib/vigilhost-backup", "/run/vigilhost"):
        assert not root.path(path).exists(), path


def test_the_purge_follows_no_link_out_of_the_state_directory(root: Root, deb: Path) -> None:
    install(root, deb)
    for path in (f"{STATE}", "/srv/precious"):
        root.path(path).mkdir(exist_ok=True)
    root.path("/srv/precious/file").write_text("precious\n")
    root.path(f"{STATE}/history").symlink_to("/srv/precious")
    root.run("dpkg", "--purge", "vigilhost")
    assert root.path("/srv/precious/file").read_text() == "precious\n"
