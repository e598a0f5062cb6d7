"""`vigilhost check` and `vigilhost config` as a person or a script sees them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent.cli.config_cmd import check, config
from agent.config import files, load
from agent.config.sample import sample

JOB = """\
source: {files: {paths: [/etc]}}
schedule: daily 03:00
targets: {disk: {type: local, path: /srv/backup}}
"""
RULES = """\
groups: [{name: g, rules: [
  {alert: A, expr: up == 0},
  {alert: B, expr: "rate(up)"},
]}]
"""


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    """The default file's path; the file is not there."""
    path = tmp_path / "vigilhost.yaml"
    monkeypatch.setattr(files, "DEFAULT_FILE", str(path))
    return path


def run(command, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_check_counts_what_is_configured(file) -> None:
    file.write_text("collectors: {others: false, memory: {interval: 5s}}\nsinks: {stdout: {}}\n")
    (file.parent / "backup.d").mkdir()
    (file.parent / "backup.d" / "etc.yaml").write_text(JOB)
    result = run(check, str(file))
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.fullmatch(r"ok: 1 file; 1 collector, 1 sink, \d\d rules, 1 backup job\n", result.stdout)


def test_check_reads_the_rules_and_the_jobs_too(file) -> None:
    file.write_text("")
    for name, text in (("rules.d/mine.yaml", RULES), ("backup.d/etc.yaml", JOB.replace("targets", "target"))):
        (file.parent / name).parent.mkdir()
        (file.parent / name).write_text(text)
    result = run(check, str(file))
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{file.parent}/rules.d/mine.yaml:3: " in result.stderr
    assert f"{file.parent}/backup.d/etc.yaml:3: target: no such option; did you mean 'targets'?" in result.stderr


def test_check_without_any_file(file) -> None:
    result = run(check)
    assert result.exit_code == 0
    assert result.stdout.startswith("ok: no file, all defaults; ")


def test_check_reads_the_default_file_and_conf_d(file) -> None:
    file.write_text("")
    (file.parent / "conf.d").mkdir()
    (file.parent / "conf.d" / "a.yaml").write_text("")
    assert run(check).stdout.startswith("ok: 2 files; ")


def test_check_says_every_error_on_standard_error_and_exits_with_2(file) -> None:
    file.write_text("listn: x\ncollectors:\n  memory: {interval: 5}\n")
    result = run(check, str(file))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        f"{file}:1: listn: no such option; did you mean 'listen'?",
        f"{file}:3: collectors.memory.interval: '5' has no unit; write it like 90s, 5m or 1h30m",
    ]


def test_check_of_a_file_that_is_not_there(file) -> None:
    result = run(check, str(file))
    assert result.exit_code == 2
    assert result.stderr == f"{file}: cannot be read: no such file or directory\n"


def test_warnings_go_to_standard_error_and_are_no_failure(file) -> None:
    file.write_text("sinks: {influxdb: {url: http://127.0.0.1:8086, bucket: b, token: hunter2}}")
    file.chmod(0o644)
    result = run(check, str(file))
    assert result.exit_code == 0
    assert result.stderr.startswith(
        f"warning: {file}:1: holds a secret (sinks.influxdb.token) and can be read by every"
    )
    assert "hunter2" not in result.output


def test_config_sample_prints_the_sample() -> None:
    assert run(config, "sample").stdout == sample()


def test_config_show_prints_what_is_in_force(file, tmp_path) -> None:
    file.write_text("hostname: web1\ncollectors: {others: false, memory: {interval: 90s}}\n")
    result = run(config, "show", "--config", str(file))
    assert "hostname: web1\n" in result.stdout
    assert "  memory:\n    enabled: true\n    offset: 0s\n    jitter: 0s\n    interval: 1m30s\n" in result.stdout
    again = tmp_path / "again.yaml"
    again.write_text(result.stdout)
    assert load(str(again)).settings == load(str(file)).settings


def test_config_show_masks_secrets(file) -> None:
    file.write_text("sinks: {influxdb: {url: http://127.0.0.1:8086, bucket: b, token: hunter2}}")
    result = run(config, "show")
    assert '    token: "***"\n' in result.stdout
    assert "hunter2" not in result.output


def test_config_show_of_a_wrong_file_exits_with_2(file) -> None:
    file.write_text("a: b")
    assert run(config, "show").exit_code == 2
