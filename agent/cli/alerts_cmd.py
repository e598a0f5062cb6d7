"""`vigilhost alerts`, `silence`, `silences`, `unsilence`, `notify`: what fires, why something was or was not told."""

from __future__ import annotations

import getpass
import json
import sys
from datetime import datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.cli.agent_socket import ask_agent
from agent.core.units import format_duration, parse_duration

EXIT_FIRING = 3
_COLOURS = {"firing": "red", "pending": "yellow", "resolved": "green", "active": "green", "expired": "dim"}

_config = click.option("--config", metavar="FILE", help="Configuration file of the agent to ask.")
_state_dir = click.option("--state-dir", metavar="DIR", help="State directory of the agent to ask.")
_json = click.option("--json", "as_json", is_flag=True, help="As JSON.")


def duration_type(text: Any) -> float:
    """`2h`, `90s`, `7d` as seconds; a type of click's."""
    try:
        return parse_duration(str(text))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.group(invoke_without_command=True)
@_config
@_state_dir
@_json
@click.pass_context
def alerts(ctx: click.Context, config: str | None, state_dir: str | None, as_json: bool) -> None:
    """Alerts that are pending, firing or lately resolved, and what was told of them."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_alerts, config=config, state_dir=state_dir, as_json=as_json)


@alerts.command(name="list")
@_config
@_state_dir
@_json
def list_alerts(config: str | None, state_dir: str | None, as_json: bool) -> None:
    """Alerts as they are now. Exit status 3 while any fires."""
    found = ask_agent("alerts", config=config, state_dir=state_dir)
    if as_json:
        click.echo(json.dumps(found, indent=1))
    elif not found:
        click.echo("no alerts")
    else:
        table = Table("state", "since", "alert", "value", "told", box=None, header_style="bold")
        for each in found:
            state = Text(each["state"], style=_COLOURS.get(each["state"], ""))
            state.append(" (no data)" if each["is_stale"] else "", style="dim")
            since = each["resolved_at"] or each["fired_at"] or each["active_at"]
            told = each["muted"] or ", ".join(each["receivers"]) or "nobody: no receiver is configured"
            table.add_row(state, _age(since), Text(_alert(each)), _short(each["value"]), Text(told))
        Console().print(table)
    sys.exit(EXIT_FIRING if any(each["state"] == "firing" for each in found) else 0)


@alerts.command(name="log")
@_config
@_state_dir
@_json
@click.option("-n", "limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Lines at most.")
@click.option("--receiver", metavar="NAME", help="Only what concerns this receiver.")
@click.option("--since", type=duration_type, default=None, help="Only the last while, like 2h.")
def log(
    config: str | None, state_dir: str | None, as_json: bool, limit: int, receiver: str | None, since: float | None
) -> None:
    """Each decision in a sentence: sent, not sent and why, delivered, tried again. Oldest first."""
    found = ask_agent(
        "alerts_log", config=config, state_dir=state_dir, limit=limit, receiver=receiver, since_s=since or 0
    )
    for each in found:
        if as_json:
            click.echo(json.dumps(each))
        else:
            group = f" {each['group_key']}" if each["group_key"] else ""
            click.echo(f"{_time(each['at'])}{group}: {each['sentence']}")


@alerts.command(name="history")
@_config
@_state_dir
@_json
@click.option("--since", type=duration_type, default="7d", show_default=True, help="How far back.")
def history(config: str | None, state_dir: str | None, as_json: bool, since: float) -> None:
    """When alerts fired, and until when; newest first."""
    found = ask_agent("alerts_history", config=config, state_dir=state_dir, since_s=since)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    if not found:
        click.echo(f"nothing fired in the last {format_duration(since)}")
        return
    table = Table("from", "to", "lasted", "alert", box=None, header_style="bold")
    for each in found:
        until = _time(each["to"]) if each["to"] else "now"
        lasted = format_duration(float(round((each["to"] or datetime.now().astimezone().timestamp()) - each["from"])))
        table.add_row(_time(each["from"]), until, lasted, Text(_alert(each)))
    Console().print(table)


@click.command()
@click.argument("duration")
@click.argument("matchers", nargs=-1, required=True)
@click.option("-m", "--reason", required=True, metavar="TEXT", help="Why; whoever wonders reads it.")
@click.option("--starts-in", default="0s", show_default=True, metavar="DURATION", help="When it begins.")
@click.option("--until-resolved", is_flag=True, help="Let it end as soon as what it silenced is over.")
@click.option("--between", multiple=True, metavar="HH:MM-HH:MM", help="Only at this part of each day; may be repeated.")
@click.option("--on", "weekdays", multiple=True, metavar="DAY", help="Only on friday, monday:friday; may be repeated.")
@click.option("--timezone", metavar="ZONE", help="Of --between and --on; this host's where it is not said.")
@_config
@_state_dir
@_json
def silence(
    duration: str,
    matchers: tuple[str, ...],
    reason: str,
    starts_in: str,
    until_resolved: bool,
    between: tuple[str, ...],
    weekdays: tuple[str, ...],
    timezone: str | None,
    config: str | None,
    state_dir: str | None,
    as_json: bool,
) -> None:
    """Tell nothing of alerts that match, for DURATION (2h, 3d).

    MATCHERS are like alertname=HostDiskFull, instance=~"db.*" or severity!=critical; all of them must hold. What still
    fires when the silence ends is told then.
    """
    found = ask_agent(
        "silence", config=config, state_dir=state_dir, duration=duration, matchers=list(matchers), reason=reason,
        starts_in=starts_in, until_resolved=until_resolved, created_by=_user(), between=list(between),
        weekdays=list(weekdays), timezone=timezone,
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        count = found["matching"]
        now = f"{count} alert{'' if count == 1 else 's'} now" if count else "no alert now"
        again = ", again and again" if found["is_recurring"] else ""
        click.echo(f"{found['id']}: {found['matchers']} until {_time(found['ends_at'])}{again}; it matches {now}")
        for other in found["overlapping"]:
            click.echo(f"note: {other['id']} silences the same until {_time(other['ends_at'])}", err=True)


@click.command()
@_config
@_state_dir
@_json
@click.option("--all", "with_expired", is_flag=True, help="Those that ended in the last days as well.")
def silences(config: str | None, state_dir: str | None, as_json: bool, with_expired: bool) -> None:
    """Silences in force or to come."""
    found = ask_agent("silences", config=config, state_dir=state_dir)
    found = [each for each in found if with_expired or each["state"] != "expired"]
    if as_json:
        click.echo(json.dumps(found, indent=1))
    elif not found:
        click.echo("no silences")
    else:
        table = Table("id", "state", "ends", "matchers", "reason", "by", box=None, header_style="bold")
        for each in found:
            state = Text(each["state"], style=_COLOURS.get(each["state"], "yellow"))
            texts = (Text(each["matchers"]), Text(each["reason"]), Text(each["created_by"]))
            ends = f"{_time(each['ends_at'])} ({each['left']})"
            table.add_row(each["id"], state, f"{ends}, recurring" if each["is_recurring"] else ends, *texts)
        Console().print(table)


@click.command()
@click.argument("id")
@_config
@_state_dir
def unsilence(id: str, config: str | None, state_dir: str | None) -> None:
    """End the silence whose id begins with ID; what still fires is told at once."""
    ended = ask_agent("unsilence", config=config, state_dir=state_dir, id=id)
    click.echo(f"ended: {ended['id']} {ended['matchers']}")


@click.group()
def notify() -> None:
    """Receivers of alerts."""


@notify.command(name="test")
@click.argument("receiver")
@_config
@_state_dir
@_json
def notify_test(receiver: str, config: str | None, state_dir: str | None, as_json: bool) -> None:
    """Send one message to RECEIVER, past routes and silences, and show it. Exit status 1 when it was not taken."""
    answer = ask_agent("notify_test", config=config, state_dir=state_dir, receiver=receiver)
    if as_json:
        click.echo(json.dumps(answer, indent=1))
    else:
        click.echo(answer["rendered"])
        click.echo(f"\n{'sent' if answer['sent'] else 'not sent'}: {answer['detail'] or receiver}", err=True)
    sys.exit(0 if answer["sent"] else 1)


def _alert(each: dict[str, Any]) -> str:
    labels = dict(each["labels"])
    name = labels.pop("alertname", "")
    rest = ", ".join(f"{key}={value}" for key, value in sorted(labels.items()) if key != "job")
    return f"{name} {rest}".strip()


def _short(value: str) -> str:
    try:
        return f"{float(value):.6g}"
    except ValueError:
        return value


def _age(moment: float) -> str:
    return format_duration(float(max(0, round(datetime.now().astimezone().timestamp() - moment))))


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no name for this user id
        return ""
