"""vigilhost(1), made from the command line itself: what `--help` says is what the page says.

Run by the Python that has the agent: `python packaging/manpage.py DATE`, DATE as 2026-01-31. Prints roff.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator

import click

from agent import __version__
from agent.cli.group import cli

_FILES = (
    ("/etc/vigilhost/vigilhost.yaml", "the configuration; all of it has defaults"),
    ("/etc/vigilhost/conf.d/*.yaml", "more of it, read in the order of their names"),
    ("/etc/vigilhost/rules.d/*.yaml", "rules, as Prometheus reads them"),
    ("/etc/vigilhost/backup.d/*.yaml", "backup jobs, one a file"),
    ("/var/lib/vigilhost", "the state: journal, history, alerts; one agent at a time"),
    ("/run/vigilhost/control.sock", "where the running agent takes commands"),
    ("/usr/share/doc/vigilhost/docs", "the manual"),
)
_STATUS = (
    ("0", "done, and nothing is wrong"),
    ("1", "it failed, or something is wrong with what was looked at"),
    ("2", "the configuration or the command line is wrong; standard error says where, and what would be right"),
    ("75", "a backup job runs already; try again later"),
)


def page(date: str) -> Iterator[str]:
    """The lines of the page."""
    yield f'.TH VIGILHOST 1 "{date}" "vigilhost {__version__}" "User Commands"'
    yield ".SH NAME"
    yield r"vigilhost \- measures this host, judges, tells, and keeps verified backups"
    yield ".SH SYNOPSIS"
    yield r".B vigilhost"
    yield r"\fICOMMAND\fR [\fIOPTION\fR]... [\fIARGUMENT\fR]..."
    yield ".SH DESCRIPTION"
    yield from _text(cli.help or "")
    yield ".PP"
    yield from _text(
        "One daemon a host and no central server. The service vigilhost.service runs `vigilhost run`; all other "
        "commands ask it, or read what it keeps. It needs no configuration."
    )
    yield ".SH COMMANDS"
    yield from _commands(cli, click.Context(cli, info_name="vigilhost"))
    yield from _list("FILES", _FILES, ".I")
    yield from _list("EXIT STATUS", _STATUS, ".B")
    yield ".SH SEE ALSO"
    yield r".BR systemctl (1),"
    yield r".BR journalctl (1);"
    yield "the manual in /usr/share/doc/vigilhost."


def _commands(group: click.Group, ctx: click.Context) -> Iterator[str]:
    """Every command, and below a group its own."""
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=ctx)
        yield f".SS {_escape(_usage(command, inner))}"
        yield from _text(command.help or "")
        for parameter in command.get_params(inner):
            record = parameter.get_help_record(inner)
            if record is not None and record[1] and "--help" not in parameter.opts:  # an argument's help is the usage
                yield ".TP"
                yield rf"\fB{_escape(record[0])}\fR"
                yield from _text(record[1])
        if isinstance(command, click.Group):
            yield from _commands(command, inner)


def _usage(command: click.Command, ctx: click.Context) -> str:
    pieces = [piece for piece in command.collect_usage_pieces(ctx) if piece != "[OPTIONS]"]
    return " ".join([ctx.command_path, *pieces])


def _list(heading: str, items: tuple[tuple[str, str], ...], face: str) -> Iterator[str]:
    yield f".SH {heading}"
    for name, meaning in items:
        yield ".TP"
        yield f"{face} {_escape(name)}"
        yield from _text(meaning)


def _text(text: str) -> Iterator[str]:
    """Paragraphs; click's \\b marks those whose lines stay as they are."""
    for number, paragraph in enumerate(inspect.cleandoc(text).split("\n\n")):
        if number:
            yield ".PP"
        lines = paragraph.split("\n")
        if lines[0] == "\b":
            yield ".nf"
            yield from map(_escape, lines[1:])
            yield ".fi"
        else:
            yield _escape(" ".join(line.strip() for line in lines))


def _escape(text: str) -> str:
    """Text as roff takes it literally: a hyphen that can be copied into a shell, no request at the line's beginning."""
    safe = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{safe}" if safe.startswith((".", "'")) else safe


if __name__ == "__main__":
    print("\n".join(page(sys.argv[1])))
