"""Jobs as people write them in backup.d."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import ConfigError
from agent.config.backup_jobs import load_jobs
from backup.job import Job
from backup.retention import PRESETS, Retention
from backup.schedule import Schedule

SMALL = "source: {files: {paths: [/etc]}}\ntargets: {local: {path: /srv/backup}}\n"


def load(directory: Path, text: str, name: str = "job.yaml") -> dict[str, Job]:
    (directory / name).write_text(text)
    return load_jobs(str(directory))[0]


def test_ten_lines_are_a_job(tmp_path: Path) -> None:
    jobs = load(tmp_path, """
source:
  sqlite:
    paths: [/var/lib/app/app.db]
schedule: daily 03:30
targets:
  disk: {type: local, path: /mnt/disk, mounted: true, retention: 90d}
  local: {path: /srv/backup}
retention: {daily: 7, monthly: 12}
rpo: 26h
""", "app.yaml")  # fmt: skip
    job = jobs["app"]
    assert (job.name, job.plugin.type, job.rpo) == ("app", "sqlite", 26 * 3600)
    assert job.times == Schedule("daily 03:30")
    assert job.retention_of("disk") == PRESETS["90d"]
    assert job.retention_of("local") == Retention(daily=7, monthly=12)
    assert job.targets["disk"].build().mounted is True


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret")
    job = load(tmp_path, """
source: {command: {argv: [/usr/local/bin/dump, --all], environment: {TOKEN: {file: key}}, min_bytes: 1KiB}}
targets: {local: {path: /srv/backup}}
schedule: {at: "*/30 * * * *", zone: Europe/Berlin, jitter: 5m, retries: 5}
user: postgres
compression: {program: zstd, level: 9}
encryption: {recipients: [age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p]}
verification: {level: 3, min_bytes: 1MiB, shrink_warning: 30%}
drill: {schedule: monthly 1 05:00, assertions: [{min_rows: {users: 1000}, newest_within: {orders.at: 26h}}]}
hooks: {before: [[/usr/bin/true]], deadline: 1m}
limits: {rate: 20MiB, nice: 10, deadline: 2h}
rto: 1h
manifest_key: {file: key}
""")["job"]  # fmt: skip
    assert job.manifest_key is not None
    assert job.manifest_key.reveal() == "secret"
    assert job.drill is not None
    assert job.drill.assertions[0].newest_within == {"orders.at": 26 * 3600}
    assert (job.limits.rate, job.verification.shrink_warning) == (20 << 20, 30.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "source: found none"),
        ("targets: {local: {path: /x}}", "source: found none"),
        ("source: {files: {paths: [/etc]}}", "targets: found none"),
        ("source: {files: {paths: [/a]}, sqlite: {paths: [/b]}}\ntargets: {local: {path: /x}}", "a job has one source"),
        ("source: {fils: {}}\ntargets: {local: {path: /x}}", "no such backup source; did you mean 'files'"),
        ("source: {files: {paths: []}}\ntargets: {local: {path: /x}}", "source.files: paths: is empty"),
        ("source: {files: {paths: [etc]}}\ntargets: {local: {path: /x}}", "not a plain absolute path"),
        ("source: {files: {paths: [/etc]}}\ntargets: {nas: {path: /x}}", "no such backup target"),
        (SMALL + "schedule: dayly 03:00", "is no schedule"),
        (SMALL + "schedule: {at: daily 03:00, zone: Mars}", "no time zone"),
        (SMALL + "retention: 7days", "is no preset"),
        (SMALL + "retention: {dayly: 7}", "did you mean 'daily'"),
        (SMALL + "encryption: {recipients: [AGE-SECRET-KEY-1X]}", "does not belong on this host"),
        (SMALL + "verification: {level: 4}", "3"),
        (SMALL + "drill: {target: nas}", "is none of the targets"),
        (SMALL + "drill: {assertions: [{}]}", "asserts nothing"),
        (SMALL + "hooks: {before: [[systemctl, stop, x]]}", "absolute path"),
        (SMALL + "nam: x", "no such option"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert said in str(caught.value)
    assert str(tmp_path / "job.yaml") in str(caught.value)


@pytest.mark.parametrize("name", ["UPPER.yaml", "a b.yaml", "x" * 33 + ".yaml", "ü.yaml", ".yaml.yaml"])
def test_a_file_is_named_after_a_job(tmp_path: Path, name: str) -> None:
    if name.startswith("."):
        assert load(tmp_path, SMALL, name) == {}
        return
    with pytest.raises(ConfigError, match="is no name of a job"):
        load(tmp_path, SMALL, name)


def test_all_files_are_read_and_all_mistakes_told_at_once(tmp_path: Path) -> None:
    assert load_jobs(str(tmp_path / "none")) == ({}, [])
    load(tmp_path, SMALL, "a.yaml")
    assert list(load(tmp_path, SMALL, "b.yaml")) == ["a", "b"]
    (tmp_path / "c.yml").write_text("")
    assert "give it a name in .yaml" in str(load_jobs(str(tmp_path))[1][0])
    (tmp_path / "a.yaml").write_text("nam: x")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "nam: y", "b.yaml")
    assert {problem.place.file for problem in caught.value.errors} == {
        str(tmp_path / "a.yaml"),
        str(tmp_path / "b.yaml"),
    }
