"""A host to back up, in a temporary directory: jobs as YAML, workers as real processes, targets to look into."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agent.config.backup_jobs import load_job
from agent.core.secrets import Secret
from backup import catalogue
from backup.children import Guard
from backup.job import Job
from backup.manifest import Manifest
from backup.redact import Redactor
from backup.source import Work
from backup.targets.local import Local
from tests.servers.programs import need

HOST = "web1"
# What `vigilhost backup-worker` does, without the command line.
WORKER = """
import os, sys
from agent.config.backup_jobs import load_job
from backup.worker import work
directory, name = sys.argv[1:]
job, _ = load_job(f"{directory}/backup.d/{name}.yaml")
sys.exit(work(job, host="web1", state_dir=f"{directory}/state"))
"""
REPOSITORY = Path(__file__).parents[2]


@dataclass
class Ended:
    """A worker that has ended: its exit code, its events, and what it wrote to standard error."""

    code: int
    events: list[dict[str, Any]]
    stderr: str

    @property
    def result(self) -> dict[str, Any]:
        assert self.events, self.stderr
        assert self.events[-1]["event"] == "result", (self.events[-1], self.stderr)
        return self.events[-1]

    @property
    def phases(self) -> list[str]:
        return [event["phase"] for event in self.events if event["event"] == "phase"]


class BackedUp:
    """One host: `source` is a directory with things in it, `store` a local target, jobs are written by `job`."""

    job_now: Job

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.source = directory / "source"
        self.store = directory / "store"
        for path in (self.source, self.store, directory / "backup.d", directory / "state"):
            path.mkdir(mode=0o700)

    def job(self, name: str = "job", **options: Any) -> Job:
        """Write a job's file and load it; what is not given is small and plain."""
        given = {
            "source": {"files": {"paths": [str(self.source)]}},
            "targets": {"store": {"type": "local", "path": str(self.store)}},
            "retention": "forever",
            **options,
        }
        # The tests share the machine with others, and wait for what they start.
        given["limits"] = {"nice": 0, **given.get("limits", {})}
        file = self.directory / "backup.d" / f"{name}.yaml"
        file.write_text(yaml.safe_dump(given))
        file.chmod(0o600)
        return load_job(str(file))[0]

    def argv(self, name: str = "job", prelude: str = "") -> list[str]:
        return [sys.executable, "-c", prelude + WORKER, str(self.directory), name]

    def start(self, name: str = "job", prelude: str = "") -> subprocess.Popen[bytes]:
        """A worker; `prelude` is Python that it runs before it does its work."""
        environment = {"PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"]}
        return subprocess.Popen(
            self.argv(name, prelude), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
            start_new_session=True,
        )  # fmt: skip

    def run(self, name: str = "job") -> Ended:
        return ended(self.start(name))

    def target(self, path: Path | None = None) -> Local:
        return Local(str(path or self.store))

    def manifests(self, name: str = "job", key: Secret | None = None, path: Path | None = None) -> list[Manifest]:
        return list(catalogue.read(self.target(path), f"{HOST}/{name}", key).manifests)

    def stored(self, path: Path | None = None) -> list[str]:
        """Every file on the target, unfinished ones included."""
        root = path or self.store
        return sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())

    def work(self, deadline_s: float = 60.0, secrets: Sequence[Secret] = ()) -> Work:
        scratch = self.directory / "scratch"
        scratch.mkdir(mode=0o700, exist_ok=True)
        return Work(str(scratch), Guard(deadline_s), Redactor(secrets))


def start_daemon(host: BackedUp, name: str = "job") -> subprocess.Popen[bytes]:
    """A process that runs a worker as the daemon does, to be killed."""
    script = f"""
import asyncio
from backup.runner import ChildRunner
argv = [{sys.executable!r}, "-c", {WORKER!r}, {str(host.directory)!r}]
runner = ChildRunner(argv, {{"PYTHONPATH": {str(REPOSITORY)!r}}})
asyncio.run(runner.run({name!r}, lambda event: None, 600))
"""
    return subprocess.Popen([sys.executable, "-c", script], env={"PYTHONPATH": str(REPOSITORY)})


def ended(worker: subprocess.Popen[bytes], deadline_s: float = 60.0) -> Ended:
    out, err = worker.communicate(timeout=deadline_s)
    return Ended(worker.returncode, list(_events(out)), err.decode())


def _events(output: bytes) -> Iterator[dict[str, Any]]:
    for line in output.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return  # the line that a kill cut off


def built_source(job: Job) -> Any:
    return job.plugin.build(job=job.name, host=HOST)


def tree(root: Path) -> dict[str, tuple[Any, ...]]:
    """What a restore has to bring back of everything below a directory."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content: Any = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        attributes = {name: os.getxattr(path, name, follow_symlinks=False)
                      for name in os.listxattr(path, follow_symlinks=False)}  # fmt: skip
        found[str(path.relative_to(root))] = (
            oct(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, content, attributes
        )  # fmt: skip
    return found


def script(host: BackedUp, text: str) -> list[str]:
    """A program of a few shell lines."""
    file = host.directory / "dump"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o700)
    return [str(file)]


def command_job(host: BackedUp, text: str, **options: object) -> None:
    host.job(source={"command": {"argv": script(host, text)}}, **options)


def age_key(host: BackedUp, name: str = "age.key") -> tuple[str, Path]:
    """A new key: what encrypts, and the file that decrypts."""
    need("age-keygen")
    file = host.directory / name
    made = subprocess.run(["age-keygen", "-o", file], capture_output=True, text=True, check=True).stderr
    return made.split()[-1], file


def running(words: str) -> bool:
    """Whether a process with these words in its command line is alive."""
    wanted = words.replace(" ", "\0").encode()
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            try:
                if (directory / "cmdline").read_bytes().startswith(wanted):
                    return True
            except OSError:
                continue
    return False
