"""`vigilhost backup-worker`: what the agent starts for each run, with as little of the agent as there can be."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.backup.hosts import HOST, BackedUp

WORKER = [sys.executable, "-P", "-m", "agent.cli.main", "backup-worker"]
HEAVY = ("click", "rich", "alerting", "collectors", "sinks", "agent.config.settings", "sqlite3", "psutil", "obstore")


@pytest.fixture
def host(host: BackedUp) -> BackedUp:
    host.job()
    return host


def ran(host: BackedUp, *arguments: str) -> subprocess.CompletedProcess[str]:
    where = f"--jobs={host.directory / 'backup.d'}"
    return subprocess.run([*WORKER, where, *arguments], capture_output=True, text=True, check=False, timeout=60)


def here(host: BackedUp) -> list[str]:
    return [f"--host={HOST}", f"--state-dir={host.directory / 'state'}"]


def test_it_runs_a_job_and_ends_with_the_result(host: BackedUp) -> None:
    done = ran(host, *here(host), "job")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["status"] == "ok"
    assert [one.host for one in host.manifests()] == [HOST]


def test_what_it_is_not_told_it_reads_in_the_configuration(host: BackedUp) -> None:
    config = host.directory / "vigilhost.yaml"
    config.write_text(f"hostname: {HOST}\nstate_dir: {host.directory / 'elsewhere'}\n")
    done = ran(host, f"--config={config}", "job")
    assert done.returncode == 0, done.stderr
    assert [one.host for one in host.manifests()] == [HOST]
    assert (host.directory / "elsewhere" / "locks").is_dir()


def test_told_where_things_are_it_imports_nothing_of_the_rest(host: BackedUp) -> None:
    script = (
        "import sys\nfrom agent.cli import backup_worker\n"
        f"code = backup_worker.run({[f'--jobs={host.directory}/backup.d', *here(host), 'job']!r})\n"
        f"print(sorted({set(HEAVY)!r} & set(sys.modules)))\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("job", "said"),
    [("../source/job", "is no name of a job"), ("absent", "no such file or directory"), ("wrong", "no such option")],
)
def test_what_is_no_job_is_an_error_of_the_configuration(host: BackedUp, job: str, said: str) -> None:
    (host.directory / "backup.d" / "wrong.yaml").write_text("sauce: {}\n")
    (host.source / "job.yaml").write_text((host.directory / "backup.d" / "job.yaml").read_text())
    done = ran(host, *here(host), job)
    assert done.returncode == 2
    assert said in done.stderr
    assert host.stored() == []


def test_another_job_that_is_wrong_does_not_keep_it_from_running(host: BackedUp) -> None:
    (host.directory / "backup.d" / "wrong.yaml").write_text("sauce: {}\n")
    assert ran(host, *here(host), "job").returncode == 0
