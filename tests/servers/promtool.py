"""promtool and amtool as judges: what they object to, one line each; an empty list is their consent."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.servers.programs import program


def check_metrics(text: str | bytes) -> list[str]:
    """Problems of an exposition text: what cannot be parsed, and what promtool's linter dislikes."""
    return _judge("promtool", "check", "metrics", stdin=text)


def check_rules(text: str) -> list[str]:
    """Problems of a rule file."""
    return _judge("promtool", "check", "rules", "rules.yml", files={"rules.yml": text})


def check_config(text: str, rules: Mapping[str, str] | None = None) -> list[str]:
    """Problems of a prometheus.yml; `rules` maps names to texts of files it refers to as rules/NAME.yml."""
    files = {f"rules/{name}.yml": rule for name, rule in (rules or {}).items()}
    return _judge("promtool", "check", "config", "prometheus.yml", files={"prometheus.yml": text, **files})


def test_rules(rules: str, tests: str) -> list[str]:
    """Failures of a unit-test file whose `rule_files` names rules.yml."""
    return _judge("promtool", "test", "rules", "tests.yml", files={"rules.yml": rules, "tests.yml": tests})


test_rules.__test__ = False  # type: ignore[attr-defined]  # its name is promtool's, pytest shall not collect it


def check_alertmanager_config(text: str) -> list[str]:
    """Problems of an alertmanager.yml."""
    return _judge("amtool", "check-config", "alertmanager.yml", files={"alertmanager.yml": text})


def route(text: str, labels: Mapping[str, str]) -> list[str]:
    """The receivers that an alertmanager.yml sends an alert with those labels to, in order."""
    words = [f"{name}={value}" for name, value in labels.items()]
    files = {"alertmanager.yml": text}
    done = _run("amtool", "config", "routes", "test", "--config.file=alertmanager.yml", *words, files=files)
    return [one for line in done.stdout.split() for one in line.split(",")]


def _judge(*argv: str, stdin: str | bytes = b"", files: Mapping[str, str] | None = None) -> list[str]:
    done = _run(*argv, stdin=stdin, files=files)
    said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    if done.returncode == 0:
        return []
    return said or [f"{argv[0]} exited {done.returncode}"]


def _run(
    name: str, *argv: str, stdin: str | bytes = b"", files: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    text = stdin.decode() if isinstance(stdin, bytes) else stdin
    with tempfile.TemporaryDirectory(prefix="vh-promtool-") as directory:
        for path, content in (files or {}).items():
            target = Path(directory, path)
            target.parent.mkdir(exist_ok=True)
            target.write_text(content)
        return subprocess.run(
            [program(name), *argv], input=text, capture_output=True, text=True, cwd=directory, timeout=60, check=False,
            env={**os.environ, "TZ": "UTC"},
        )  # fmt: skip
