"""`/api/v1/alerts/...`: what the command line shows of alerting, over HTTP; a silence needs an admin token there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote_plus

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from agent.alert_commands import AlertCommands, AwayError
from agent.control import Command, ControlError
from agent.http.asked import Asked
from agent.http.encoding import success, to_json
from agent.http.openapi import Operation, Parameter
from agent.http.refusals import Refusal
from agent.http.service import Endpoint, Pieces, endpoint

_DAY_MS: Final = 86_400_000
_PARTS: Final = {"type": "array", "items": {"type": "string", "examples": ["22:00-06:00"]}}
_DAYS: Final = {"type": "array", "items": {"type": "string", "examples": ["saturday"]}}
_WORDS: Final = {"type": "array", "items": {"type": "string", "examples": ['instance="db1"']}}

_RULES: Final = Operation("/api/v1/alerts/rules", "Rules with their health, and those left out.", statuses=(200, 503))
_ACTIVE: Final = Operation(
    "/api/v1/alerts/active", "Alerts with who is told, and why not where nobody is.", statuses=(200, 503)
)
_SILENCES: Final = Operation("/api/v1/alerts/silences", "Silences, those in force first.", statuses=(200, 503))
_HISTORY: Final = Operation(
    "/api/v1/alerts/history", "Spans in which alerts fired, newest first.",
    (Parameter("since", "How far back; 7 days where it is not said."),), statuses=(200, 400, 503),
)  # fmt: skip
_GRAPH: Final = Operation(
    "/graph", "Where the links of alerts lead: to the answer of their query.",
    (Parameter("g0.expr", "PromQL expression.", is_required=True),), statuses=(307, 400),
)  # fmt: skip
_SILENCE: Final = Operation(
    "/api/v1/alerts/silence", "Silence alerts; needs an admin token.",
    (
        Parameter("duration", "How long, like 2h.", is_required=True),
        Parameter("matcher[]", "What is silenced; repeat it, all must hold.", _WORDS, is_required=True),
        Parameter("reason", "Why.", is_required=True),
        Parameter("created_by", "Who."),
        Parameter("until_resolved", "`true`: end it as soon as what it silenced is over."),
        Parameter("between[]", "Only at these parts of the day, like 22:00-06:00.", _PARTS),
        Parameter("weekday[]", "Only on these days, like saturday or monday:friday.", _DAYS),
        Parameter("timezone", "Of these parts and days; this host's where it is not said."),
    ),
    methods=("POST",), statuses=(200, 400, 401, 403, 503), is_read=False,
)  # fmt: skip


def operations(commands: AlertCommands) -> Sequence[tuple[Operation, Endpoint]]:
    """The endpoints with their entries in the OpenAPI document."""
    api = AlertApi(commands)
    return (
        (_RULES, endpoint(api.rules)),
        (_ACTIVE, endpoint(api.active)),
        (_HISTORY, endpoint(api.history)),
        (_SILENCES, endpoint(api.silences)),
        (_SILENCE, endpoint(api.silence)),
        (_GRAPH, endpoint(_graph)),
    )


class AlertApi:
    """One method an endpoint."""

    def __init__(self, commands: AlertCommands) -> None:
        self._commands = commands

    async def rules(self, _: Request, __: Asked) -> Response:
        """Every rule."""
        return await _answer(self._commands.rules, {})

    async def active(self, _: Request, __: Asked) -> Response:
        """Every alert."""
        return await _answer(self._commands.alerts, {})

    async def history(self, _: Request, asked: Asked) -> Response:
        """When alerts fired."""
        return await _answer(self._commands.history, {"since_s": asked.length_or("since", 7 * _DAY_MS) / 1000})

    async def silences(self, _: Request, __: Asked) -> Response:
        """Every silence."""
        return await _answer(self._commands.silences, {})

    async def silence(self, _: Request, asked: Asked) -> Response:
        """Add one."""
        return await _answer(self._commands.silence, {
            "duration": asked.text("duration"),
            "matchers": asked.all("matcher[]"),
            "reason": asked.text("reason"),
            "created_by": asked.text("created_by", "http"),
            "until_resolved": asked.text("until_resolved") == "true",
            "between": asked.all("between[]"),
            "weekdays": asked.all("weekday[]"),
            "timezone": asked.text("timezone"),
        })  # fmt: skip


async def _graph(_: Request, asked: Asked) -> Response:
    if not (expr := asked.text("g0.expr")):
        raise Refusal("bad_data", "g0.expr: is missing; an expression of PromQL would be right")
    return RedirectResponse(f"api/v1/query?query={quote_plus(expr)}")  # relative: a proxy may have put us below a path


async def _answer(command: Command, request: Mapping[str, Any]) -> Response:
    try:
        found = await command(request)
    except AwayError as error:
        raise Refusal("unavailable", str(error)) from error
    except ControlError as error:
        raise Refusal("bad_data", str(error)) from error
    return Pieces(success(iter((to_json(found),))))
