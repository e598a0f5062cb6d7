"""`vigilhost doctor` beside real agents: one well, one broken in every way, one that is gone."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent import backup_results
from agent.control import ask
from agent.doctor.finding import Finding, exit_status
from sinks.history.history import DIRECTORY, FILE_NAME
from sinks.journal.segment import name_of
from tests.servers.process import LOOPBACK, free_port, wait_until
from tests.servers.scripted_http import Reply, ScriptedHttp
from tests.servers.vigilhost import ROOT, Vigilhost

SLOW_CHECKS_S = 120.0
WELL = """\
collectors: {others: false, agent: {}, cpu: {interval: 1s}, memory: {}, disk: {}, timex: {}, systemd: {}}
sinks: {stdout: {flush_interval: 1s}}
alerting:
  rules: {interval: 1s, defaults: false}
  receivers: {ops: {type: webhook, url: %s/hook}}
  heartbeat: {url: %s/ping}
"""
BROKEN = """\
collectors:
  others: false
  agent: {interval: 1s}
  cpu: {interval: 1s}
  exec:
    interval: 1s
    commands: [{name: open, argv: [%(script)s]}]
sinks:
  down: {type: influxdb, url: "http://%(nowhere)s", bucket: hosts, flush_interval: 1s}
  locked: {type: influxdb, url: %(locked)s, bucket: hosts, token: not-the-token, flush_interval: 1s}
journal: {min_free_bytes: 1000TiB}
alerting:
  rules: {interval: 1s, defaults: false}
  receivers: {ops: {type: webhook, url: "http://%(nowhere)s/hook/secret-path"}}
"""
JOB = """\
source: {files: {paths: [%(source)s]}}
targets: {store: {type: local, path: %(source)s}}
schedule: never
rpo: 26h
hooks: {before: [[%(script)s]]}
"""
FINE = """\
groups:
  - name: mine
    rules: [{alert: Busy, expr: node_load1 > 1000}, {alert: Low, expr: node_memory_MemAvailable_bytes < 1}]
"""
RULES = """\
groups:
  - name: mine
    rules:
      - {alert: Fine, expr: node_load1 > 1000}
      - {alert: Torn, expr: "node_load1 >"}
      - {record: many, expr: 'label_replace(node_cpu_seconds_total, "cpu", "", "", "")'}
"""


# As somebody else, where we are root. What is imported is imported before: that user may not reach our Python.
AS_NOBODY = """
import encodings.utf_8_sig
import os
from agent.cli.doctor_cmd import doctor
from agent.config import load
load("/dev/null")
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
doctor()
"""


def doctor(
    agent: Vigilhost, *words: str, columns: int = 100, program: tuple[str, ...] = ("-m", "agent.cli.main", "doctor")
) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, *program, "--config", str(agent.config_file), "--state-dir", str(agent.state_dir), "--root",
            str(agent.data_dir / "root"), *words]  # fmt: skip
    environment = {**os.environ, "COLUMNS": str(columns), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=SLOW_CHECKS_S, check=False, env=environment, cwd=agent.data_dir
    )


def findings(agent: Vigilhost) -> list[dict[str, str]]:
    done = doctor(agent, "--json")
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["exit_status"] == done.returncode, done.stderr
    found: list[dict[str, str]] = said["findings"]
    return found


def about(found: list[dict[str, str]], subject: str, level: str) -> str:
    """Text and advice of the findings of this level about a subject."""
    return "\n".join(
        f"{each['text']} -> {each['advice']}" for each in found if (each["subject"], each["level"]) == (subject, level)
    )


@pytest.fixture(scope="module")
def well() -> Iterator[Vigilhost]:
    with ScriptedHttp(Reply(200)) as hook, Vigilhost(WELL % (hook.url, hook.url)) as agent:
        agent.config_file.chmod(0o600)  # the address of a webhook is a secret
        (agent.data_dir / "source").mkdir()
        (agent.data_dir / "rules.d").mkdir()
        (agent.data_dir / "rules.d" / "mine.yaml").write_text(FINE)
        ask(str(agent.state_dir / "control.sock"), "reload")
        jobs = agent.data_dir / "backup.d"
        jobs.mkdir()
        job = JOB % {"source": agent.data_dir / "source", "script": "/bin/true"}
        (jobs / "files.yaml").write_text(job + "drill: {schedule: never}\n")
        now = time.time()
        copies = backup_results.Copies("ok", last_success_at=now, last_verified_at=now, size_bytes=3 << 20)
        known = backup_results.Result(now, "ok", duration_s=2.0, targets={"store": copies}, drill_status="ok",
                                      drill_at=now, rto_s=3.0)  # fmt: skip
        backup_results.save(str(agent.state_dir), "files", known)
        wait_until(lambda: agent.health()["sinks"]["stdout"]["state"] == "ok", "the sink wrote", 60.0)
        wait_until(lambda: _sees(agent, "Low"), "every rule was evaluated with its readings", 60.0)
        yield agent


@pytest.fixture(scope="module")
def broken() -> Iterator[Vigilhost]:
    with ScriptedHttp(Reply(401, '{"code":"unauthorized","message":"unauthorized access"}')) as locked:
        agent = Vigilhost()
        with agent:
            agent.stop()
            script = agent.data_dir / "open.sh"
            script.write_text("#!/bin/sh\necho x v=1\n")
            script.chmod(0o777)
            (agent.data_dir / "source").mkdir()
            docker = agent.data_dir / "root" / "var/lib/docker/volumes/shop/_data"
            docker.mkdir(parents=True)
            (agent.data_dir / "root" / "home" / "kim").mkdir(parents=True)
            (agent.data_dir / "rules.d").mkdir()
            (agent.data_dir / "rules.d" / "mine.yaml").write_text(RULES)
            (agent.data_dir / "backup.d").mkdir()
            words = {"script": script, "source": agent.data_dir / "source"}
            (agent.data_dir / "backup.d" / "old.yaml").write_text(JOB % words)
            (agent.data_dir / "backup.d" / "new.yaml").write_text(JOB % words)
            for name in ("old.yaml", "new.yaml"):
                (agent.data_dir / "backup.d" / name).chmod(0o600)
            agent.write_config(BROKEN % {**words, "nowhere": f"{LOOPBACK}:{free_port()}", "locked": locked.url})
            agent.config_file.chmod(0o644)
            _stale(agent)
            agent.start()
            wait_until(lambda: _all_fail(agent.health()), "everything fails", 60.0)
            yield agent


def _sees(agent: Vigilhost, name: str) -> bool:
    """Was the rule evaluated, and with its readings?"""
    rules = ask(str(agent.state_dir / "control.sock"), "rules")["rules"]
    return any(each["name"] == name and each["evaluated_at"] and not each["is_blind"] for each in rules)


def _stale(agent: Vigilhost) -> None:
    before = time.time() - 5 * 86400
    copies = backup_results.Copies("fail", "disk full", last_success_at=before, size_bytes=1 << 20)
    known = backup_results.Result(before, "fail", "tar exited 2", targets={"store": copies}, drill_status="fail",
                                  drill_error="1 of 2 assertions failed",
                                  drill_undone="its key cannot be read")  # fmt: skip
    backup_results.save(str(agent.state_dir), "old", known)


def _all_fail(health: dict[str, Any]) -> bool:
    sinks = [each["state"] for each in health["sinks"].values()]
    has_script_failed = bool(health["collectors"]["exec"]["failed_targets"] or health["collectors"]["exec"]["error"])
    return sinks == ["failing", "failing"] and has_script_failed and health["alerting"]["state"] != "starting"


def test_an_agent_that_is_well_has_nothing_to_do(well: Vigilhost) -> None:
    found = findings(well)
    wrong = [each for each in found if each["level"] not in {"ok", "note"} and each["heading"] != "clock"]
    assert wrong == []
    assert {each["heading"] for each in found} >= {
        "agent", "configuration", "permissions", "collectors", "sinks", "history", "disk", "alerting", "backups",
        "clock", "this host",
    }  # fmt: skip
    assert re.search(r"version .*, pid \d+, up ", about(found, "agent", "ok"))
    assert "readings" in about(found, "collector cpu", "ok")
    assert "last success" in about(found, "sink stdout", "ok")
    assert "can be reached" in about(found, "receiver ops", "ok")
    assert about(found, "cursor stdout", "ok")
    assert "evaluated" in about(found, "rule Low", "ok")
    assert re.search(r"last success \d+s ago, 3\.0MiB", about(found, "backup files", "ok"))
    assert re.search(r"restore drill passed .* it took 3s", about(found, "backup files", "ok"))


def test_the_page_sums_up_what_is_well_and_lists_it_on_demand(well: Vigilhost) -> None:
    page = doctor(well, columns=90).stdout
    assert "ok   6 of 6 collectors: agent, cpu, disk, memory, systemd, timex" in page
    assert "collector cpu" not in page
    assert max(map(len, page.splitlines())) <= 90
    assert "ok   collector cpu: " in doctor(well, "--all").stdout


@pytest.mark.parametrize(
    ("subject", "level", "said"),
    [
        ("sink down", "fail", "connection refused"),
        ("sink down", "fail", "`vigilhost journal status`"),
        ("sink locked", "fail", "HTTP 401: unauthorized access (the token or password is not accepted)"),
        ("sink locked", "fail", "correct sinks.locked (url, bucket, token), then `vigilhost reload`"),
        ("configuration", "warn", "holds a secret (sinks.locked.token, alerting.receivers.ops.url) and can be"),
        ("collector exec", "fail", "others can write to"),
        ("backup old", "fail", "the last run failed: tar exited 2; last success 5d ago"),
        ("backup old", "fail", "the newest good copy is 5d old, rpo is 1d2h"),
        ("backup old", "fail", "the last restore drill failed: 1 of 2 assertions failed; last passed never"),
        ("backup old", "warn", "the last restore drill could not be done: its key cannot be read"),
        ("backup old", "fail", "open.sh: others can write to"),
        ("backup new", "warn", "has never run -> `vigilhost backup run new`"),
        ("backup old", "note", "every copy is on this host"),
        ("rules", "fail", "mine.yaml:5"),
        ("receiver ops", "fail", "cannot be reached: connection refused -> `vigilhost notify test ops`"),
        ("heartbeat", "note", "nobody notices"),
        ("disk", "fail", "below 1000TiB the journal drops its oldest readings"),
        ("not backed up", "warn", "docker volumes found"),
        ("not backed up", "note", "in no job: /home"),
        ("collectors", "note", "timex is off"),
        ("file systems", "warn", "the collector disk is off"),
    ],
)  # fmt: skip
def test_each_thing_that_is_broken_is_said_with_what_to_do(
    broken_findings: list[dict[str, str]], subject: str, level: str, said: str
) -> None:
    assert said in about(broken_findings, subject, level)


@pytest.fixture(scope="module")
def broken_findings(broken: Vigilhost) -> list[dict[str, str]]:
    return findings(broken)


def test_nothing_secret_is_shown(broken: Vigilhost, broken_findings: list[dict[str, str]]) -> None:
    page = json.dumps(broken_findings) + doctor(broken, "--all").stdout
    assert "not-the-token" not in page
    assert "secret-path" not in page


def test_the_page_of_a_broken_agent_ends_with_1_and_fits_a_narrow_terminal(broken: Vigilhost) -> None:
    done = doctor(broken, columns=60)
    assert done.returncode == 1
    assert "FAIL sink down" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("something to do: ")
    # A word that is longer than the line (a path) stays whole: people copy it.
    assert all(len(line) <= 60 or len(line.split()[-1]) > 40 for line in done.stdout.splitlines())


def test_a_configuration_broken_meanwhile_is_said_beside_the_running_agent(well: Vigilhost) -> None:
    good = well.config_file.read_text()
    try:
        well.write_config("listn: x\n")
        found = findings(well)
    finally:
        well.write_config(good)
    assert "did you mean 'listen'? -> mend it, then `vigilhost check`; the running agent keeps what it has" in about(
        found, "configuration", "fail"
    )
    assert about(found, "collector cpu", "ok")


def test_a_configuration_that_was_edited_and_not_reloaded_is_said(well: Vigilhost) -> None:
    ask(str(well.state_dir / "control.sock"), "reload")
    assert about(findings(well), "configuration", "warn") == ""
    good = well.config_file.read_text()
    well.write_config(good + "# later\n")
    os.utime(well.config_file, (time.time() + 1, time.time() + 1))
    said = about(findings(well), "configuration", "warn")
    assert "and not in force yet: " in said
    assert "-> `vigilhost reload` takes it over" in said
    well.write_config(good)
    ask(str(well.state_dir / "control.sock"), "reload")


def test_a_user_who_may_look_at_nothing_is_told_so(well: Vigilhost) -> None:
    """Another user where the tests run as root; else the files are closed to their owner too."""
    shut = [well.config_file, well.data_dir / "backup.d", well.data_dir / "rules.d", well.state_dir]
    modes = [path.stat().st_mode for path in shut]
    for path in shut:
        path.chmod(0o000)
    try:
        done = doctor(well, "--json", program=("-c", AS_NOBODY))
    finally:
        for path, mode in zip(shut, modes, strict=True):
            path.chmod(mode)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)["findings"]
    assert [each["text"] for each in found if each["level"] == "fail"] == []
    unknown = {each["subject"] for each in found if each["level"] == "unknown"}
    assert {"agent", "configuration", "backup jobs", "rules", "state directory"} <= unknown
    assert done.returncode == (1 if any(each["level"] == "warn" for each in found) else 2)


def test_an_agent_that_does_not_answer_is_told_from_one_that_does_not_run(well: Vigilhost) -> None:
    socket = well.state_dir / "control.sock"
    aside = well.state_dir / "control.aside"
    socket.rename(aside)
    try:
        found = findings(well)
    finally:
        aside.rename(socket)
    pid = well.pid
    assert f"pid {pid} lives and does not answer" in about(found, "agent", "fail")


def test_without_an_agent_the_files_it_left_are_read(tmp_path: Path) -> None:
    with Vigilhost(f"sinks: {{away: {{type: influxdb, url: 'http://{LOOPBACK}:{free_port()}', bucket: b}}}}") as agent:
        wait_until(lambda: agent.health()["history"]["state"] == "ok", "history is open", 60.0)
        agent.stop()
        (agent.data_dir / "rules.d").mkdir()
        (agent.data_dir / "rules.d" / "mine.yaml").write_text(RULES)
        _make_newer(agent.state_dir / DIRECTORY / FILE_NAME)
        (agent.state_dir / "journal" / name_of(2**40)).write_bytes(_newer_segment(agent.state_dir / "journal"))
        (agent.state_dir / "alerts.sqlite.corrupt-1").write_bytes(b"")
        agent.state_dir.chmod(0o755)
        left = (agent.state_dir / DIRECTORY / FILE_NAME).read_bytes()
        found = findings(agent)
        assert (agent.state_dir / DIRECTORY / FILE_NAME).read_bytes() == left
    assert "does not run" in about(found, "agent", "fail")
    assert "cannot be reached: connection refused" in about(found, "sink away", "fail")
    assert "mine.yaml:5" in about(found, "rules", "fail")
    assert "a newer agent wrote it" in about(found, "history", "fail")
    assert f"{name_of(2**40)}: written by a newer version" in about(found, "journal", "fail")
    assert re.search(r"wait in .*, last written \d+s ago", about(found, "journal", "note"))
    assert "mode 0755, so others can look into it -> chmod 0700" in about(found, "state directory", "fail")
    assert "alerts.sqlite.corrupt-1: was unreadable and set aside" in about(found, "state directory", "warn")


def _make_newer(database: Path) -> None:
    assert database.exists()
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA user_version = 99")


def _newer_segment(journal: Path) -> bytes:
    """A segment that says a later version wrote it; the version stands behind the letters that begin it."""
    some = next(path for path in sorted(journal.iterdir()) if path.suffix in {".seg", ".segz"})
    content = bytearray(some.read_bytes())
    at = content.index((1).to_bytes(2, "little"))
    content[at : at + 2] = (9).to_bytes(2, "little")
    return bytes(content)


@pytest.mark.parametrize(
    ("levels", "status"),
    [
        ((), 0),
        (("ok", "note"), 0),
        (("ok", "warn"), 1),
        (("fail",), 1),
        (("unknown", "ok"), 2),
        (("unknown", "fail"), 1),
    ],
)
def test_the_exit_status_says_whether_there_is_something_to_do(levels: tuple[Any, ...], status: int) -> None:
    assert exit_status([Finding(level, "a", "b") for level in levels]) == status


def test_a_wrong_option_ends_with_2(well: Vigilhost) -> None:
    assert doctor(well, "--nonsense").returncode == 2
