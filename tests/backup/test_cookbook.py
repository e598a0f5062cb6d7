"""The cookbook's jobs are jobs: each one loads as it stands, without a doubt."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.config.backup_jobs import load_job
from backup.table import SOURCES, TARGETS

ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / "docs" / name).read_text() for name in ("backup-cookbook.md", "disaster-recovery.md")}
_JOB = re.compile(r"```yaml\n# /etc/vigilhost/backup\.d/([a-z0-9-]+)\.yaml\n(.*?)```", re.DOTALL)
JOBS = {name: text for page in PAGES.values() for name, text in _JOB.findall(page)}
_SECRET = re.compile(r"\{file: /etc/vigilhost/([^}]+)\}")


def written(directory: Path, name: str, text: str) -> Path:
    """The job's file, with its secrets beside it instead of in /etc."""
    for secret in _SECRET.findall(text):
        file = directory / secret
        file.write_text("https://example.org/secret")
        file.chmod(0o600)
    job = directory / f"{name}.yaml"
    job.write_text(_SECRET.sub(lambda match: f"{{file: {directory}/{match[1]}}}", text))
    job.chmod(0o600)
    return job


@pytest.mark.parametrize("name", JOBS)
def test_a_job_of_the_manual_loads(tmp_path: Path, name: str) -> None:
    job, doubts = load_job(str(written(tmp_path, name, JOBS[name])))
    assert (job.name, doubts) == (name, [])


def test_every_job_of_the_cookbook_says_which_file_it_is() -> None:
    page = PAGES["backup-cookbook.md"]
    assert page.count("```yaml") == len(_JOB.findall(page))


def test_the_cookbook_has_every_source_and_every_target(tmp_path: Path) -> None:
    jobs = [load_job(str(written(tmp_path, name, text)))[0] for name, text in JOBS.items()]
    assert {entry.type for job in jobs for entry in job.targets.values()} == set(TARGETS)
    assert {job.plugin.type for job in jobs} == set(SOURCES)
