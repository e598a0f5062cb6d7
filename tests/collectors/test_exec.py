from __future__ import annotations

import errno
import os
from pathlib import Path

import psutil
import pytest

from agent.core.errors import SourceError
from agent.core.model import Failed, Reading
from agent.core.secrets import Secret
from collectors.exec import Command, Exec
from collectors.run_program import check_program
from tests.collectors.hosts import readings
from tests.servers.process import alive, wait_until

SH = "/bin/sh"


def sh(script: str, format: str = "influx", **options: object) -> Command:
    return Command("it", [SH, "-c", script], format, **options)  # type: ignore[arg-type]


def said(command: Command, **options: int) -> list[tuple[str, tuple[str, ...], dict[str, object]]]:
    """What a good command's readings are, without the collector's own about it."""
    first, *rest = list(Exec(commands=[command], **options).collect())
    assert isinstance(first, Reading)
    assert first.values[0] == 1, rest
    return readings(rest)  # type: ignore[return-value]


def failure(command: Command, **options: int) -> str:
    found = list(Exec(commands=[command], **options).collect())
    assert readings(found) == [("vigilhost_exec", (command.name,), {"success": 0})]
    (failed,) = [item for item in found if isinstance(item, Failed)]
    assert failed.target == command.name
    return failed.reason


def test_line_protocol_keeps_its_types_and_tags() -> None:
    command = sh("""echo 'disk,path=/a\\ b used=1.5,free=3i,ok=t,state="fine"'; echo 'other n=1 17'""")
    assert said(command) == [
        ("disk", ("it", "/a b"), {"used": 1.5, "free": 3, "ok": True, "state": "fine"}),
        ("other", ("it",), {"n": 1.0}),
    ]


def test_each_field_has_a_name_on_metrics_and_the_command_is_a_label_there_only() -> None:
    found = list(Exec(commands=[sh("echo 'my.disk,my-tag=1,command=x a-b=1i,a_b=2i,s=\"t\"'")]).collect())
    reading = found[1]
    assert isinstance(reading, Reading)
    assert [(field.influx, field.prom, field.type) for field in reading.group.fields] == [
        ("a-b", "my_disk_a_b", int),
        ("a_b", None, int),
        ("s", None, str),
    ]
    assert [(tag.influx, tag.prom) for tag in reading.group.tags] == [
        ("", "command"),
        ("command", "exported_command"),
        ("my-tag", "my_tag"),
    ]


def test_prometheus_text_keeps_its_types() -> None:
    command = sh("printf '# TYPE c counter\\nc{x=\"1\"} 5\\n'", "prometheus", tags={"site": "b"})
    assert said(command) == [("c", ("it", "b", "1"), {"value": 5})]


def test_groups_stay_the_same_from_run_to_run() -> None:
    nagios = Command("check", [SH, "-c", "echo 'OK | a=1'"], "nagios", tags={"team": "x"})
    collector = Exec(commands=[sh("echo 'm,t=1 f=1'"), nagios])
    first, second = ([r.group for r in collector.collect() if isinstance(r, Reading)] for _ in range(2))
    assert first == second
    assert len(first) == 5


@pytest.mark.parametrize("status", [0, 1, 2, 3])
def test_a_nagios_plugins_state_is_its_exit_status(status: int) -> None:
    script = f"echo 'DISK {status} | /=10MB;20;30;0;40'; echo more; exit {status}"
    assert said(sh(script, "nagios")) == [
        ("nagios_state", ("it",), {
            "state": status, "service_output": f"DISK {status}", "long_service_output": "more",
        }),
        ("nagios", ("it", "/", "MB"), {
            "value": 10, "min": 0, "max": 40, "warning_lt": 0, "warning_gt": 20, "critical_lt": 0, "critical_gt": 30,
        }),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "format", "reason", "why"),
    [
        ("exit 7", "influx", "exited 7", "an exit status is told"),
        ("echo 'm f=1'; echo first >&2; echo 'no such disk' >&2; exit 1", "influx", "exited 1: no such disk",
         "with the last line of stderr"),
        ("kill -9 $$", "influx", "was ended by signal 9", "or the signal"),
        ("echo rubbish", "influx", "line 1: a space and a field expected", "rubbish is not line protocol"),
        ("echo rubbish", "prometheus", "line 1: 'rubbish' is not a sample", "nor Prometheus' text"),
        ("head -c 300 /dev/urandom; echo", "prometheus", "line ", "nor are random bytes"),
        ("exit 4", "nagios", "exited 4; a Nagios plugin exits 0, 1, 2 or 3", "there is no fifth state"),
        ("yes", "influx", "printed more than 1KiB; killed", "a flood is cut"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_told(script: str, format: str, reason: str, why: str) -> None:
    assert failure(sh(script, format), max_output=1024).startswith(reason), why


def test_a_flood_on_stderr_neither_blocks_nor_fills_memory() -> None:
    assert said(sh("head -c 3000000 /dev/zero >&2; echo 'm f=1'")) == [("m", ("it",), {"f": 1.0})]


def test_a_hanging_program_dies_with_all_it_started(tmp_path: Path) -> None:
    script = f"trap '' TERM; sleep 100 & echo $! > {tmp_path}/pid; sleep 100"
    assert failure(sh(script, timeout=0.3)) == "not done within 300ms; killed"
    gone(tmp_path / "pid")


def test_a_polite_program_may_clean_up_when_its_time_is_over(tmp_path: Path) -> None:
    script = f"trap 'echo bye > {tmp_path}/bye; exit' TERM; echo > {tmp_path}/ready; while :; do sleep 0.01; done"
    assert failure(sh(script, timeout=1.0)) == "not done within 1s; killed"
    assert (tmp_path / "bye").read_text() == "bye\n"


def test_what_a_program_leaves_in_the_background_is_ended_with_it(tmp_path: Path) -> None:
    # It also holds the pipe open: waiting for its end would be waiting for ever.
    assert said(sh(f"sleep 100 & echo $! > {tmp_path}/pid; echo 'm f=1'")) == [("m", ("it",), {"f": 1.0})]
    gone(tmp_path / "pid")


def gone(pid_file: Path) -> None:
    pid = int(pid_file.read_text())
    wait_until(lambda: not alive(pid), f"the end of process {pid}")


def test_a_program_that_cannot_be_killed_is_not_started_again() -> None:
    collector = Exec(commands=[sh("echo 'm f=1'")])
    sleeper = psutil.Popen(["/bin/sleep", "100"])
    collector._stuck["it"] = sleeper
    try:
        held = [item for item in collector.collect() if isinstance(item, Failed)]
    finally:
        sleeper.kill()
        sleeper.wait()
    assert held == [Failed("it", f"not started: process {sleeper.pid} of an earlier run cannot be killed")]
    assert [item for item in collector.collect() if isinstance(item, Failed)] == []


def test_the_environment_is_empty_but_for_what_is_given() -> None:
    command = sh(r"""env | sed 's/^\([A-Za-z_]*\)=\(.*\)/m,name=\1 value="\2"/'""", environment={"DB": Secret("x")})
    names = {tags[1] for _, tags, _ in said(command)}
    assert names - {"PWD", "_", "SHLVL", "OLDPWD"} == {"DB", "LANG", "PATH"}
    assert "x" not in repr(command.environment)


def test_it_runs_in_a_session_of_its_own_without_input() -> None:
    ((_, _, fields),) = said(sh('read line; echo "m pid=$$,sid=$(ps -o sid= -p $$ | tr -d \' \'),dir=\\"$(pwd)\\""'))
    assert fields["pid"] == fields["sid"]
    assert fields["dir"] == "/"


def test_one_that_fails_leaves_the_others_alone() -> None:
    commands = [Command(str(at), [SH, "-c", f"echo 'm n={at}i'; exit {at % 2}"]) for at in range(10)]
    found = list(Exec(commands=commands).collect())
    assert {tags[0] for name, tags, _ in readings(found) if name == "m"} == {"0", "2", "4", "6", "8"}
    assert [item.target for item in found if isinstance(item, Failed)] == ["1", "3", "5", "7", "9"]


def program(path: Path, mode: int) -> str:
    path.write_text("#!/bin/sh\necho 'm f=1'\n")
    path.chmod(mode)
    return str(path)


def test_a_program_of_ones_own_that_others_cannot_change_is_run(tmp_path: Path) -> None:
    assert said(Command("it", [program(tmp_path / "p", 0o755)])) == [("m", ("it",), {"f": 1.0})]


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        (0o775, "others may write to it (mode 0775); run chmod go-w on it"),
        (0o757, "others may write to it (mode 0757); run chmod go-w on it"),
        (0o644, "not an executable file"),
    ],
)
def test_a_program_that_others_may_write_to_is_not_run(tmp_path: Path, mode: int, reason: str) -> None:
    path = program(tmp_path / "p", mode)
    assert failure(Command("it", [path])) == f"{path}: {reason}"


def test_a_program_of_somebody_else_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path / "p", 0o755)
    owner = os.getuid()
    if owner == 0:  # root's own programs are everybody's to run
        owner = 65534
        os.chown(path, owner, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with pytest.raises(SourceError) as error:
        check_program(path)
    assert str(error.value) == f"{path}: owned by user {owner}; it must belong to root or to this user"


def test_when_a_program_cannot_be_watched_it_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_descriptors(pid: int) -> int:
        (tmp_path / "pid").write_text(str(pid))
        raise OSError(errno.EMFILE, "")

    monkeypatch.setattr(os, "pidfd_open", out_of_descriptors)
    assert failure(sh("sleep 100")) == "/bin/sh: cannot be watched: too many open files"
    gone(tmp_path / "pid")


def test_a_program_in_a_directory_that_others_may_write_to_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    path = program(tmp_path / "open" / "p", 0o755)
    (tmp_path / "open").chmod(0o777)
    assert failure(Command("it", [path])).startswith(f"{tmp_path}/open: others may write to it")
    (tmp_path / "open").chmod(0o1777)  # as /tmp is: nobody can replace another's file there
    check_program(path)


def test_a_program_that_is_missing_or_broken_is_told(tmp_path: Path) -> None:
    assert failure(Command("it", ["/no/such/program"])) == "/no/such/program: no such file or directory"
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x00\x01")
    broken.chmod(0o755)
    assert failure(Command("it", [str(broken)])) == f"{broken}: cannot be started: exec format error"


@pytest.mark.parametrize(
    ("argv", "message"),
    [([], "argv: must start with the absolute path"), (["ls"], "absolute path"), (["/bin/ls", "a\0b"], "NUL")],
)
def test_a_command_that_cannot_work_is_refused_at_once(argv: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Command("it", argv)


def test_two_commands_cannot_share_a_name() -> None:
    with pytest.raises(ValueError, match="two of them have the same name"):
        Exec(commands=[sh("true"), sh("false")])


def test_its_deadline_covers_all_commands() -> None:
    commands = [Command(str(at), [SH], timeout=10.0) for at in range(9)]
    assert Exec(commands=commands).timeout >= 2 * 10.0
