"""The manual's examples of plugins work as they stand, from a package of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.scripted_http import Reply, ScriptedHttp
from tests.servers.vigilhost import Vigilhost

DOCS = Path(__file__).parents[2] / "docs"


def install(page: str, directory: Path) -> Path:
    """A site directory with a package as the page describes it: the module, and the metadata that names its class."""
    blocks = dict(re.findall(r"```(\w+)\n(.*?)```", (DOCS / page).read_text(), re.DOTALL))
    named = re.fullmatch(r'\[project\.entry-points\."(.*)"\]\n(\w+) = "our_package\.(\w+):(\w+)"\n', blocks["toml"])
    assert named
    group, name, module, kind = named.groups()
    package = directory / "site" / "our_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / f"{module}.py").write_text(blocks["python"])
    info = directory / "site" / "our_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: our-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = our_package.{module}:{kind}\n")
    return directory / "site"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A host with the manual's collector and something for it to measure."""
    install("writing-a-collector.md", tmp_path)
    for queue, mails in (("active", 2), ("deferred", 5)):
        (tmp_path / "spool" / queue).mkdir(parents=True)
        for mail in range(mails):
            (tmp_path / "spool" / queue / str(mail)).write_text("")
    (tmp_path / "vigilhost.yaml").write_text(
        f"hostname: h\ncollectors: {{others: false, mail_queue: {{interval: 1m, spool: {tmp_path}/spool}}}}\n"
    )
    return tmp_path


def vigilhost(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent.cli.main", *arguments],
        env={**os.environ, "PYTHONPATH": str(package / "site")},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_it_is_collected_in_both_dialects(package: Path) -> None:
    config = str(package / "vigilhost.yaml")
    done = vigilhost(package, "collect", "mail_queue", "--format", "influx", "--config", config)
    assert [line.rsplit(" ", 1)[0] for line in done.stdout.splitlines()] == [
        "mail_queue,host=h,queue=active length=2i",
        "mail_queue,host=h,queue=deferred length=5i",
    ]
    done = vigilhost(package, "collect", "--format", "prometheus", "--config", config)
    assert 'mail_queue_length{queue="deferred"} 5\n' in done.stdout


def test_its_options_are_checked(package: Path) -> None:
    config = package / "vigilhost.yaml"
    config.write_text("collectors: {mail_queue: {spol: /x}}\n")
    done = vigilhost(package, "check", str(config))
    assert done.returncode == 2
    assert "collectors.mail_queue.spol: no such option; did you mean 'spool'?" in done.stderr


def test_a_host_without_the_source_says_so(package: Path) -> None:
    config = package / "vigilhost.yaml"
    config.write_text("collectors: {others: false, mail_queue: {spool: /nowhere}}\n")
    done = vigilhost(package, "collect", "mail_queue", "--config", str(config))
    assert done.returncode == 1
    assert done.stderr == "mail_queue: /nowhere: no postfix here\n"


def test_the_notifier_opens_a_ticket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(install("writing-a-notifier.md", tmp_path)))
    with ScriptedHttp() as tickets:
        tickets.answer(Reply(201, '{"number": 7}'))
        desk = f'{{type: ticket, url: "{tickets.url}", token: {{file: {tmp_path}/token}}}}'
        (tmp_path / "token").write_text("s3cret-token\n")
        config = f"collectors: {{others: false, memory: {{}}}}\nalerting: {{receivers: {{desk: {desk}}}}}\n"
        with Vigilhost(config) as agent:
            done = vigilhost(tmp_path, "notify", "test", "desk", "--state-dir", str(agent.state_dir))
            assert (done.returncode, done.stderr) == (0, "\nsent: ticket 7\n")
        (asked,) = tickets.requests
    ticket = asked.json()
    assert asked.headers["authorization"] == "Bearer s3cret-token"
    assert (ticket["queue"], ticket["state"], ticket["continues"]) == ("operations", "open", None)
    assert done.stdout.startswith(f"[operations] {ticket['title']}\n\n")
    assert ticket["dedup"]


def test_a_notifier_s_options_are_checked(tmp_path: Path) -> None:
    install("writing-a-notifier.md", tmp_path)
    config = tmp_path / "vigilhost.yaml"
    config.write_text('alerting: {receivers: {desk: {type: ticket, url: "http://x", tokn: a}}}\n')
    done = vigilhost(tmp_path, "check", str(config))
    assert done.returncode == 2
    assert "alerting.receivers.desk.tokn: no such option; did you mean 'token'?" in done.stderr


class Repository:
    """A git repository with one commit, and a job of the manual's source for it."""

    def __init__(self, home: Path) -> None:
        install("writing-a-backup-source.md", home)
        self.home = home
        self.directory = home / "shop"
        self.git("init", "--quiet", "--initial-branch=main", str(self.directory))
        (self.directory / "README.md").write_text("a shop\n")
        self.git("-C", str(self.directory), "add", "README.md")
        self.git("-C", str(self.directory), "-c", "user.name=a", "-c", "user.email=a@example.org",
                 "commit", "--quiet", "--message=first")  # fmt: skip
        jobs = home / "backup.d"
        jobs.mkdir()
        (home / "disk").mkdir()
        job = (DOCS / "writing-a-backup-source.md").read_text().split("```yaml\n")[1].split("```")[0]
        job = job.replace("/srv/git/shop.git", str(self.directory)).replace("/srv/backup", str(home / "disk"))
        (jobs / "shop.yaml").write_text(job)

    @staticmethod
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True, timeout=60).stdout

    def backup(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        places = ("--jobs", str(self.home / "backup.d"), "--state-dir", str(self.home / "state"))
        return vigilhost(self.home, "backup", *arguments, *places)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_the_source_is_backed_up_drilled_and_restored(repository: Repository) -> None:
    head = repository.git("-C", str(repository.directory), "rev-parse", "HEAD")
    done = repository.backup("run", "shop", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["status"] == "ok"
    done = repository.backup("drill", "shop")
    assert done.returncode == 0, done.stdout + done.stderr
    to = repository.home / "restored"
    done = repository.backup("restore", "shop", "--to", str(to))
    assert done.returncode == 0, done.stdout + done.stderr
    assert repository.git("-C", str(to), "rev-parse", "HEAD") == head


def test_a_source_that_is_gone_is_a_failure(repository: Repository) -> None:
    repository.directory.rename(repository.home / "elsewhere")
    done = repository.backup("run", "shop")
    assert done.returncode == 1
    assert f"{repository.directory}: no such directory; correct source.git.repository" in done.stdout + done.stderr
