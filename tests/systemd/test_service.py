"""The service under a real systemd: it reloads, comes back, is watched, gets its secrets, and tells the journal."""

from __future__ import annotations

import time

import pytest

from tests.servers.debian_machine import ServerError
from tests.servers.process import wait_until
from tests.servers.scripted_http import ScriptedHttp
from tests.systemd.installed import CONFIG, SERVICE, Installed

TOKEN = "a-token-that-is-in-no-file-of-the-configuration"
BAD = "collectors: {cpu: {intervall: 1s}}\n"


def collectors(machine: Installed) -> int:
    return len(machine.health()["collectors"])


def test_an_edited_configuration_is_taken_over_by_systemctl_reload(machine: Installed) -> None:
    before, pid, now = collectors(machine), machine.main_pid(), time.monotonic()
    machine.configure("collectors: {others: false, cpu: {}, memory: {}}\n")
    machine.run("systemctl", "reload", SERVICE)
    event = machine.agent_event("agent.reloaded", after=now)
    assert (event["COLLECTORS"], event["PRIORITY"]) == ("2", "6")
    assert collectors(machine) == 2 < before
    assert machine.main_pid() == pid


def test_a_wrong_configuration_is_refused_by_systemctl_reload_and_the_old_one_goes_on(machine: Installed) -> None:
    machine.configure("collectors: {others: false, cpu: {}}\n")
    machine.run("systemctl", "reload", SERVICE)
    wait_until(lambda: collectors(machine) == 1, "the good configuration")
    pid, now = machine.main_pid(), time.monotonic()
    machine.configure(BAD)
    with pytest.raises(ServerError, match="systemctl reload"):
        machine.run("systemctl", "reload", SERVICE)
    said = [event["MESSAGE"] for event in machine.events(SERVICE, after=now)]
    assert any(f"{CONFIG}:1" in one and "did you mean 'interval'?" in one for one in said), said
    assert (collectors(machine), machine.main_pid(), machine.state()) == (1, pid, "active")


def test_a_hangup_with_a_wrong_configuration_is_an_error_in_the_journal(machine: Installed) -> None:
    machine.configure(BAD)
    pid, now = machine.main_pid(), time.monotonic()
    machine.signal("HUP")
    event = machine.agent_event("agent.reload_failed", after=now)
    assert event["PRIORITY"] == "3"
    assert event["CONSEQUENCE"] == "the old configuration goes on"
    assert "did you mean 'interval'?" in event["REASON"]
    assert machine.main_pid() == pid
    assert machine.health()["failing"] == ["reload"]
    machine.configure("{}\n")
    machine.run("systemctl", "reload", SERVICE)
    machine.agent_event("agent.reloaded", after=now)


def test_a_service_whose_configuration_is_wrong_says_where_and_starts_once_it_is_right(machine: Installed) -> None:
    machine.run("systemctl", "stop", SERVICE)
    machine.configure(BAD)
    now = time.monotonic()
    with pytest.raises(ServerError, match="systemctl start"):
        machine.run("systemctl", "start", SERVICE)
    said = [event["MESSAGE"] for event in machine.events(SERVICE, "PRIORITY=3", after=now)]
    assert any(f"{CONFIG}:1" in one and "did you mean 'interval'?" in one for one in said), said
    machine.configure("{}\n")
    machine.await_serving()  # by itself: systemd goes on trying


def test_a_killed_agent_is_back_by_itself(machine: Installed) -> None:
    pid, now = machine.main_pid(), time.monotonic()
    machine.signal("KILL")
    machine.agent_event("agent.started", after=now)
    machine.await_serving()
    assert machine.main_pid() != pid


def test_an_agent_that_stands_still_is_aborted_with_its_stacks_in_the_journal_and_is_back(machine: Installed) -> None:
    pid, now = machine.main_pid(), time.monotonic()
    machine.signal("STOP")
    machine.await_event(SERVICE, "MESSAGE_ID=7d4958e842da4a758f6c1cdc7b36dcc5", after=now, deadline=60)
    machine.agent_event("agent.started", after=now)
    machine.await_serving()
    assert machine.main_pid() != pid
    said = [event["MESSAGE"] for event in machine.events(SERVICE, after=now)]
    order = ["Watchdog timeout", "Fatal Python error: Aborted", "Current thread", "status=6/ABRT", "agent.started"]
    places = [next((at for at, one in enumerate(said) if what in one), -1) for what in order]
    assert -1 not in places, said
    assert places == sorted(places), said


def test_a_secret_reaches_a_sink_as_a_credential_and_nobody_else(machine: Installed) -> None:
    with ScriptedHttp() as store:
        port = machine.give(store.port)
        machine.run("sh", "-c", "umask 077; cat >/root/token", stdin=f"{TOKEN}\n")
        machine.extend_service("token", "LoadCredential=influx-token:/root/token\n")
        machine.configure(
            f"sinks: {{influxdb: {{url: 'http://127.0.0.1:{port}', org: home, bucket: hosts, flush_interval: 1s,"
            " token: {credential: influx-token}}}\n"
        )
        machine.restart()
        request = wait_until(lambda: [one for one in store.requests if "write" in one.path], "a write")[0]
        assert request.headers["authorization"] == f"Token {TOKEN}"
        now = time.monotonic()
        machine.run("systemctl", "reload", SERVICE)
        machine.agent_event("agent.reloaded", after=now)
    shown = [
        machine.run("journalctl", "--no-pager", "--output=json"), machine.metrics(), str(machine.health()),
        machine.run("sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' ' '"),
        machine.run("systemctl", "show", SERVICE),
    ]  # fmt: skip
    assert not [text for text in shown if TOKEN in text]
    kept = machine.attempt("grep", "-rl", TOKEN, "/var/lib/vigilhost", "/var/cache/vigilhost", "/run", "/tmp", "/etc")
    assert kept.stdout.split() == [f"/run/credentials/{SERVICE}/influx-token"]
    with pytest.raises(ServerError, match="Permission denied"):
        machine.run("cat", f"/run/credentials/{SERVICE}/influx-token", user="nobody")
