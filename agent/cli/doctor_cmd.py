"""`vigilhost doctor`: one page on everything that is not as it should be, and what to do about it."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence

import click
from rich.console import Console
from rich.text import Text

from agent.doctor.checks import examine
from agent.doctor.facts import gather
from agent.doctor.finding import Finding, Level, exit_status

_MARKS: Mapping[Level, tuple[str, str]] = {
    "ok": ("ok  ", "green"),
    "note": ("note", "cyan"),
    "warn": ("warn", "yellow"),
    "fail": ("FAIL", "bold red"),
    "unknown": ("  ? ", "magenta"),
}
_ORDER: Sequence[Level] = ("fail", "unknown", "warn", "note", "ok")
_INDENT = 7  # columns before the text: two, the mark, one
_WIDEST = 120  # longer lines are not read


@click.command()
@click.option("--config", metavar="FILE", help="Configuration file of the agent.")
@click.option("--state-dir", metavar="DIR", help="State directory of the agent.")
@click.option("--jobs", "jobs_dir", metavar="DIR", help="Directory of the backup jobs.  [default: beside the file]")
@click.option("--root", default="/", hidden=True, metavar="DIR", help="Look for servers below another root.")
@click.option("--all", "with_all", is_flag=True, help="What is well line by line too, not summed up.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def doctor(
    config: str | None, state_dir: str | None, jobs_dir: str | None, root: str, with_all: bool, as_json: bool
) -> None:
    """Look at everything once: the agent and its parts, files and their modes, backups, the clock, this host.

    Nothing is changed and nothing is sent. Without a running agent the files that it left are read. Exit status: 0
    nothing to do, 1 something to do, 2 not everything could be looked at (or wrong options).
    """
    page = examine(gather(config, state_dir, jobs_dir, root))
    found = [finding for findings in page.values() for finding in findings]
    if as_json:
        listed = [{"heading": heading, **finding._asdict()} for heading, findings in page.items()
                  for finding in findings]  # fmt: skip
        click.echo(json.dumps({"exit_status": exit_status(found), "findings": listed}, indent=1))
    else:
        console = Console(soft_wrap=True, highlight=False)
        for line in _page(page, min(console.width, _WIDEST), with_all=with_all):
            console.print(line)
    sys.exit(exit_status(found))


def _page(page: Mapping[str, Sequence[Finding]], width: int, *, with_all: bool) -> Iterator[Text]:
    for heading, findings in page.items():
        if not findings:
            continue
        yield Text(heading, style="bold")
        shown = sorted(findings, key=lambda finding: _ORDER.index(finding.level))
        if not with_all:
            shown = _summed_up(shown)
        for finding in shown:
            yield from _lines(finding, width)
    yield _verdict([finding for findings in page.values() for finding in findings])


def _summed_up(findings: Sequence[Finding]) -> list[Finding]:
    """What is well in one line where there are many: `34 of 36 collectors are well`."""
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.level == "ok" and " " in finding.subject:
            kinds.setdefault(finding.subject.partition(" ")[0], []).append(finding)
    many = {kind: well for kind, well in kinds.items() if len(well) > 3}
    summed = {id(finding) for well in many.values() for finding in well}
    kept = [finding for finding in findings if id(finding) not in summed]
    for kind, well in many.items():
        names = ", ".join(sorted({finding.subject.partition(" ")[2] for finding in well}))
        all_of = len({finding.subject for finding in findings if finding.subject.startswith(f"{kind} ")})
        count = len({finding.subject for finding in well})
        kept.append(Finding("ok", f"{count} of {all_of} {kind}s", names if kind != "rule" else "are evaluated"))
    return kept


def _lines(finding: Finding, width: int) -> Iterator[Text]:
    mark, style = _MARKS[finding.level]
    body = textwrap.wrap(f"{finding.subject}: {_plain(finding.text)}", max(20, width - _INDENT), break_on_hyphens=False)
    for at, line in enumerate(body or [finding.subject]):
        text = Text("  ").append(mark if at == 0 else " " * len(mark), style=style).append(" ")
        head = len(finding.subject) + 1 if at == 0 else 0
        text.append(line[:head], style="bold" if finding.level in {"fail", "warn", "unknown"} else "")
        yield text.append(line[head:])
    for at, line in enumerate(textwrap.wrap(finding.advice, max(20, width - _INDENT - 3), break_on_hyphens=False)):
        yield Text(" " * _INDENT).append("-> " if at == 0 else "   ", style="cyan").append(line, style="cyan")


def _plain(text: str) -> str:
    """One line without control characters: names of mounts and programs may hold anything."""
    return "".join(char if char.isprintable() else " " for char in text)


def _verdict(findings: Sequence[Finding]) -> Text:
    counts = {level: sum(finding.level == level for finding in findings) for level in _ORDER}
    status = exit_status(findings)
    parts = [f"{counts['fail']} to mend", f"{counts['warn']} to look at", f"{counts['note']} worth knowing"]
    if counts["unknown"]:
        parts.append(f"{counts['unknown']} could not be looked at")
    style = {0: "bold green", 1: "bold red" if counts["fail"] else "bold yellow", 2: "bold magenta"}[status]
    word = {0: "well", 1: "something to do", 2: "cannot tell"}[status]
    return Text().append(f"{word}: ", style=style).append(", ".join(parts))
