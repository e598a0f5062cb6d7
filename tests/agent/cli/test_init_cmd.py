from __future__ import annotations

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent.cli.init_cmd import init
from agent.config import load
from agent.config.backup_jobs import load_jobs
from tests.servers.scripted_http import Reply, ScriptedHttp


def run(directory: Path, *options: str, answers: str = "") -> Result:
    return CliRunner().invoke(init, ["--config", str(directory / "vigilhost.yaml"), *options], input=answers)


def test_three_empty_answers_make_a_configuration_that_loads(tmp_path: Path) -> None:
    done = run(tmp_path, answers="\n\n\n")
    assert done.exit_code == 0, done.output
    assert load(str(tmp_path / "vigilhost.yaml")).settings.alerting.receivers == {}


def test_answers_become_a_receiver_a_sink_a_job_and_a_test_message(tmp_path: Path) -> None:
    with ScriptedHttp(Reply(200)) as hook:
        answers = f"{hook.url}/hook?k=1\nhttp://127.0.0.1:8086/acme/hosts\nt0ken\n/etc /home\n{tmp_path}/copies\n"
        done = run(tmp_path, answers=answers)
        assert done.exit_code == 0, done.output
        (request,) = hook.requests
    assert request.json()["alerts"][0]["labels"]["alertname"] == "Test"
    assert "a test message was sent to ops" in done.output
    settings = load(str(tmp_path / "vigilhost.yaml")).settings
    assert settings.alerting.receivers["ops"].type == "webhook"
    influx = settings.sinks["influxdb"].options
    assert (influx["url"], influx["org"], influx["bucket"]) == ("http://127.0.0.1:8086", "acme", "hosts")
    assert influx["token"].reveal() == "t0ken"
    jobs, _ = load_jobs(str(tmp_path / "backup.d"))
    assert jobs["files"].source["files"].options["paths"] == ["/etc", "/home"]
    assert [one.file_exists for one in jobs["files"].drill.assertions] == [["etc", "home"]]
    assert stat.S_IMODE((tmp_path / "copies").stat().st_mode) == 0o700
    assert f"made: {tmp_path}/copies" in done.output


def test_secrets_stand_in_files_that_others_cannot_read(tmp_path: Path) -> None:
    done = run(tmp_path, "--alerts", "https://hooks.slack.com/services/s3cret", "--influxdb", "http://h:8086/o/b",
               "--influxdb-token", "t0ken", "--backup", "", "--no-test")  # fmt: skip
    assert done.exit_code == 0, done.output
    text = (tmp_path / "vigilhost.yaml").read_text()
    assert "s3cret" not in text + done.output
    assert "t0ken" not in text + done.output
    assert "type: slack" in text
    for name in ("alerts-url", "influxdb-token"):
        assert stat.S_IMODE((tmp_path / "secrets" / name).stat().st_mode) & 0o007 == 0


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        ("ops@example.com", "email"),
        ("https://discord.com/api/webhooks/1/x", "discord"),
        ("https://ntfy.sh/my-hosts", "ntfy"),
        ("https://hooks.example.com/x", "webhook"),
    ],
)
def test_the_answer_tells_the_kind_of_receiver(tmp_path: Path, where: str, kind: str) -> None:
    done = run(tmp_path, "--alerts", where, "--influxdb", "", "--backup", "", "--no-test")
    assert done.exit_code == 0, done.output
    receivers = load(str(tmp_path / "vigilhost.yaml")).settings.alerting.receivers
    assert receivers["ops"].type == kind


@pytest.mark.parametrize(
    ("server", "options"),
    [
        ("localhost", ("localhost", 25, "none")),
        ("127.0.0.1:2525", ("127.0.0.1", 2525, "none")),
        ("mail.example.com", ("mail.example.com", 587, "starttls")),
        ("mail.example.com:25", ("mail.example.com", 25, "starttls")),
        ("[::1]:26", ("::1", 26, "none")),
    ],
)
def test_a_mail_server_has_its_port_and_one_on_this_host_no_encryption(
    tmp_path: Path, server: str, options: tuple[str, int, str]
) -> None:
    asked = ("--alerts", "ops@example.com", "--mail-server", server, "--influxdb", "", "--backup", "", "--no-test")
    done = run(tmp_path, *asked)
    assert done.exit_code == 0, done.output
    ops = load(str(tmp_path / "vigilhost.yaml")).settings.alerting.receivers["ops"].options
    assert (ops["server"], ops["port"], ops["tls"]) == options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--alerts", "somewhere"), "'somewhere' is no mail address and no web address"),
        (("--alerts", "a@b.cd", "--mail-server", "mail:smtp"), "'mail:smtp' is no mail server; write it like"),
        (("--alerts", "", "--influxdb", "http://h:8086"), "write it like http://127.0.0.1:8086/org/bucket"),
        (("--alerts", "", "--influxdb", "", "--backup", "etc"), "'etc' is not an absolute path; begin it with /"),
    ],
)
def test_an_answer_that_makes_no_sense_writes_nothing(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    done = run(tmp_path, *options)
    assert done.exit_code == 1
    assert said in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_person_who_answers_wrongly_is_asked_again(tmp_path: Path) -> None:
    answers = f"somewhere\nops@example.com\nhttp://h:8086\n\netc\n/etc\ncopies\n{tmp_path}/copies\n"
    done = run(tmp_path, "--no-test", answers=answers)
    assert done.exit_code == 0, done.output
    for said in ("'somewhere' is no mail", "'http://h:8086' is no such", "'etc' is not an", "'copies' is not an"):
        assert said in done.output
    assert load(str(tmp_path / "vigilhost.yaml")).settings.alerting.receivers["ops"].type == "email"
    jobs, _ = load_jobs(str(tmp_path / "backup.d"))
    assert jobs["files"].source["files"].options["paths"] == ["/etc"]


def test_a_configuration_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "vigilhost.yaml").write_text("hostname: mine\n")
    done = run(tmp_path, answers="\n\n\n")
    assert "is there already; --force writes over it" in done.output
    assert (tmp_path / "vigilhost.yaml").read_text() == "hostname: mine\n"


def test_a_configuration_of_comments_alone_may_be_replaced(tmp_path: Path) -> None:
    """The one that the Debian package brings."""
    shipped = Path(__file__).parents[3] / "packaging/debian/vigilhost.yaml"
    (tmp_path / "vigilhost.yaml").write_text(shipped.read_text())
    done = run(tmp_path, "--no-test", answers="ops@example.com\n\n\n")
    assert done.exit_code == 0, done.output
    assert "ops" in load(str(tmp_path / "vigilhost.yaml")).settings.alerting.receivers


def test_a_test_message_that_is_not_taken_is_said_and_the_configuration_stays(tmp_path: Path) -> None:
    with ScriptedHttp(Reply(404, "no such hook")) as hook:
        done = run(tmp_path, "--alerts", f"{hook.url}/x", "--influxdb", "", "--backup", "")
    assert done.exit_code == 1
    assert "the test message was not taken: " in done.output
    assert (tmp_path / "vigilhost.yaml").exists()
