"""What the .deb puts on a host: owners, modes, the private environment, units, manual, completion."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from agent.cli.group import COMMANDS, cli
from tests.packaging.built import ROOT
from tests.packaging.root import Root
from tests.servers.http_call import call, must
from tests.servers.programs import need

UNITS = "/usr/lib/systemd/system"


def test_nothing_of_it_is_missing_or_changed(installed: Root) -> None:
    assert installed.run("dpkg", "--verify", "vigilhost").stdout == ""


@pytest.mark.parametrize(
    ("path", "owner", "group", "mode"),
    [
        ("/etc/vigilhost", "root", "vigilhost", "750"),
        ("/etc/vigilhost/conf.d", "root", "vigilhost", "750"),
        ("/etc/vigilhost/rules.d", "root", "vigilhost", "750"),
        ("/etc/vigilhost/backup.d", "root", "vigilhost", "750"),
        ("/etc/vigilhost/vigilhost.yaml", "root", "vigilhost", "640"),
        ("/usr/bin/vigilhost", "root", "root", "755"),
        ("/usr/lib/vigilhost", "root", "root", "755"),
    ],
)
def test_owners_and_modes(installed: Root, path: str, owner: str, group: str, mode: str) -> None:
    assert installed.run("stat", "-c", "%U %G %a", path).stdout.split() == [owner, group, mode]


def test_nobody_but_root_can_change_a_program(installed: Root) -> None:
    found = installed.run("find", "/usr/lib/vigilhost", "(", "!", "-user", "root", "-o", "-perm", "/022", ")",
                          "!", "-type", "l")  # fmt: skip
    assert found.stdout == ""


def test_every_module_has_its_byte_code(installed: Root) -> None:
    home = installed.path("/usr/lib/vigilhost")
    modules = {path.relative_to(home) for path in home.rglob("*.py")}
    compiled = {
        path.parent.parent.relative_to(home) / f"{path.name.partition('.')[0]}.py" for path in home.rglob("*.pyc")
    }
    assert len(modules) > 500
    assert modules - compiled == set()


def test_its_modules_win_over_everything_of_the_caller(installed: Root) -> None:
    for name in ("click.py", "agent.py", "json.py"):
        installed.path("/tmp").joinpath(name).write_text("raise SystemExit('not ours')\n")
    done = installed.run("sh", "-c", "cd /tmp && vigilhost --version", environ={"PYTHONPATH": "/tmp"})
    assert done.stdout.startswith("vigilhost, version ")
    where = "import sys, yaml, agent; print(sys.executable, yaml.__file__, agent.__file__)"
    done = installed.run("/usr/lib/vigilhost/bin/python3", "-I", "-c", where)
    assert all(path.startswith("/usr/lib/vigilhost/") for path in done.stdout.split())


def test_a_collector_of_the_operators_is_found_outside_of_what_dpkg_owns(installed: Root) -> None:
    place = installed.path("/usr/local/lib/vigilhost")
    (place / "our_queue-1.dist-info").mkdir(parents=True)
    (place / "our_queue-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: our-queue\nVersion: 1\n")
    (place / "our_queue-1.dist-info/entry_points.txt").write_text("[vigilhost.collectors]\nqueue = our_queue:Queue\n")
    (place / "our_queue.py").write_text(
        '"""Our queue."""\nfrom dataclasses import dataclass\n\n@dataclass\nclass Queue:\n    """Our queue."""\n'
        '    name = "queue"\n    groups = ()\n\n    def collect(self):\n        return iter(())\n'
    )
    assert re.search(r"^ *queue\b", installed.run("vigilhost", "collectors").stdout, re.MULTILINE)


def test_the_agent_runs_as_its_user_and_says_what_it_measures(installed: Root) -> None:
    mark = installed.path("/tmp/mark")
    mark.touch()
    address = installed.start_agent()
    assert "node_memory_MemTotal_bytes" in must(call(f"{address}/metrics")).text
    assert Path(f"/proc/{installed.agent_pid}/comm").read_text() == "vigilhost\n", "the name in every list of processes"
    assert "cpu" in installed.run("vigilhost", "status").stdout
    installed.stop_agent()
    assert stat.S_IMODE(installed.path("/var/lib/vigilhost").stat().st_mode) == 0o700
    assert installed.run("find", "/usr/lib/vigilhost", "-newer", "/tmp/mark").stdout == ""


def test_the_configuration_as_it_comes_is_right_and_says_nothing(installed: Root) -> None:
    done = installed.run("vigilhost", "check", user="vigilhost")
    assert (done.stdout.startswith("ok: 1 file; "), done.stderr) == (True, "")


def test_the_complete_sample_is_a_configuration(installed: Root) -> None:
    installed.run("vigilhost", "check", "/usr/share/doc/vigilhost/examples/vigilhost.yaml")


def test_every_file_for_systemd_is_there(installed: Root) -> None:
    for path in (ROOT / "systemd").rglob("*"):
        if path.is_file():
            place = {
                ".sysusers": "/usr/lib/sysusers.d/vigilhost.conf",
                ".tmpfiles": "/usr/lib/tmpfiles.d/vigilhost.conf",
            }
            inside = place.get(path.suffix, f"{UNITS}/{path.name}")
            if path.parent.name != "systemd":
                inside = f"/usr/share/doc/vigilhost/{path.relative_to(ROOT / 'systemd')}"
            assert installed.path(inside).read_bytes() == path.read_bytes()


def test_units_with_an_install_section_are_enabled(installed: Root) -> None:
    for unit in (ROOT / "systemd").glob("vigilhost*.*"):
        wanted = re.search(r"^WantedBy=(.+)$", unit.read_text(), re.MULTILINE)
        if wanted and "@" not in unit.name:
            link = installed.path(f"/etc/systemd/system/{wanted[1]}.wants/{unit.name}")
            assert link.is_symlink(), f"{unit.name} is not enabled"


def test_what_units_point_to_is_there(installed: Root) -> None:
    for unit in (ROOT / "systemd").glob("vigilhost*.*"):
        for page in re.findall(r"file://(\S+)", unit.read_text()):
            assert installed.path(page).exists(), f"{unit.name}: {page}"
        for program in re.findall(r"^Exec\w+=[-+!]*(/\S+)", unit.read_text(), re.MULTILINE):
            assert installed.path(program).exists(), f"{unit.name}: {program}"


def test_links_of_the_manual_lead_somewhere_on_the_host(installed: Root) -> None:
    for page in ("/README.md", *(f"/docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))):
        file = installed.path(f"/usr/share/doc/vigilhost{page}")
        targets = [target for target in re.findall(r"\]\(([^)#]+)", file.read_text()) if "://" not in target]
        assert [target for target in targets if not (file.parent / target).exists()] == [], page


def test_the_man_page_has_every_command(installed: Root) -> None:
    need("man")
    done = installed.run("man", "--warnings", "vigilhost", environ={"MANWIDTH": "100", "MAN_KEEP_FORMATTING": ""})
    assert done.stderr == ""
    for name in COMMANDS:
        command = cli.commands.get(name) or cli.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        assert (f"vigilhost {name}" in done.stdout) is not command.hidden, name


@pytest.mark.parametrize(
    ("shell", "script", "expected"),
    [
        (
            "bash",
            "source /usr/share/bash-completion/completions/vigilhost; complete -p vigilhost",
            "_vigilhost_completion",
        ),
        ("zsh", "autoload -Uz compinit && compinit -u -D && print -r -- $_comps[vigilhost]", "_vigilhost"),
        ("fish", "complete --do-complete 'vigilhost comp'", "completion"),
    ],
)
def test_completion(installed: Root, shell: str, script: str, expected: str) -> None:
    need(shell)
    assert expected in installed.run(shell, "-c", script).stdout


def test_the_documents_of_a_debian_package(installed: Root) -> None:
    doc = "/usr/share/doc/vigilhost"
    assert "License: Expat" in installed.path(f"{doc}/copyright").read_text()
    assert installed.run("zcat", f"{doc}/changelog.gz").stdout.startswith("vigilhost (")
    assert installed.path(f"{doc}/sbom.cdx.json").exists()
    for text in re.findall(r"^  (/usr/lib/\S+)$", installed.path(f"{doc}/copyright").read_text(), re.MULTILINE):
        assert installed.path(text).exists()
