"""The OpenAPI document: every route, its parameters and answers, kept by hand beside the code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from agent import __version__

Schema = Mapping[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_MOMENT: Final[Schema] = {"type": "string", "examples": ["1700000000.5", "2026-01-31T12:00:00Z"]}
_LENGTH: Final[Schema] = {"type": "string", "examples": ["15", "30s", "1h30m"]}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": 2**31}
_SELECTORS: Final[Schema] = {"type": "array", "items": {"type": "string", "examples": ['up{job="node"}']}}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter; in the address for GET, in the address or a posted form for POST."""

    name: str
    help: str
    schema: Schema = field(default_factory=lambda: _TEXT)
    is_required: bool = False
    place: str = "query"

    def document(self) -> dict[str, Any]:
        return {"name": self.name, "in": self.place, "required": self.is_required, "description": self.help,
                "schema": dict(self.schema)}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Operation:
    """One path. `is_read`: with none of its methods anything changes. `answer` is the media type of a success."""

    path: str
    summary: str
    parameters: Sequence[Parameter] = ()
    methods: Sequence[str] = ("GET",)
    answer: Sequence[str] = ("application/json",)
    statuses: Sequence[int] = (200, 400, 503)
    is_read: bool = True
    takes_labels: bool = False  # any further parameter is a condition on the label of that name


_START = Parameter("start", "From when on; Unix seconds or RFC 3339.", _MOMENT)
_END = Parameter("end", "Until when; Unix seconds or RFC 3339.", _MOMENT)
_MUST_START = Parameter("start", _START.help, _MOMENT, is_required=True)
_MUST_END = Parameter("end", _END.help, _MOMENT, is_required=True)
_MATCH = Parameter("match[]", "Series selector; repeat it for more series.", _SELECTORS)
_MUST_MATCH = Parameter("match[]", _MATCH.help, _SELECTORS, is_required=True)
_LIMIT = Parameter("limit", "Most entries of the answer; 0 is no limit.", _COUNT)
_QUERY = Parameter("query", "PromQL expression.", is_required=True)
_METRIC = Parameter("metric", "Metric name; repeat it for more.", {"type": "array", "items": dict(_TEXT)})
_COST = (
    Parameter("timeout", "Give up after this long.", _LENGTH),
    Parameter("lookback_delta", "How old a value may be and still count.", _LENGTH),
    _LIMIT,
)
_BOTH: Final = ("GET", "POST")

OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation("/", "What there is here.", answer=("text/plain",), statuses=(200,)),
    Operation("/metrics", "The newest readings as Prometheus text or OpenMetrics.", statuses=(200,),
              answer=("text/plain", "application/openmetrics-text")),
    Operation("/health", "How the agent, its collectors and its sinks are; 503 only when the agent itself stalls.",
              statuses=(200, 503)),
    Operation("/-/ready", "Whether the agent has started.", answer=("text/plain",), statuses=(200, 503)),
    Operation("/api/openapi.json", "This document.", statuses=(200,)),
    Operation("/api/v1/query", "Value of a PromQL expression at one moment.",
              (_QUERY, Parameter("time", "The moment; now when left out.", _MOMENT), *_COST), _BOTH,
              statuses=(200, 400, 422, 503)),
    Operation("/api/v1/query_range", "Values of a PromQL expression over time, at most 11,000 points a series.",
              (_QUERY, _MUST_START, _MUST_END, Parameter("step", "Distance of points.", _LENGTH, is_required=True),
               *_COST), _BOTH, statuses=(200, 400, 422, 503)),
    Operation("/api/v1/labels", "Names of labels.", (_START, _END, _MATCH, _LIMIT), _BOTH),
    Operation("/api/v1/label/{name}/values", "Values of a label.",
              (Parameter("name", "Name of the label.", is_required=True, place="path"), _START, _END, _MATCH, _LIMIT)),
    Operation("/api/v1/series", "Label sets of series.", (_MUST_MATCH, _START, _END, _LIMIT), _BOTH),
    Operation("/api/v1/metadata", "Type, help and unit of metrics.",
              (Parameter("metric", "Only this metric."), Parameter("limit", "Most metrics.", {"type": "integer"}),
               Parameter("limit_per_metric", "Taken for compatibility; each metric has one entry.",
                         {"type": "integer"}))),
    Operation("/api/v1/rules", "Rule groups and the state of their rules.",
              (Parameter("type", "Only rules of this type.", {"type": "string", "enum": ["alert", "record"]}),),
              statuses=(200, 400)),
    Operation("/api/v1/alerts", "Pending and firing alerts.", statuses=(200,)),
    Operation("/api/v1/status/buildinfo", "Which version of Prometheus' API this is.", statuses=(200,)),
    Operation("/api/v1/query_exemplars", "Always empty: no exemplars are kept.", (_QUERY, _START, _END), _BOTH),
    Operation("/api/v1/metrics/current", "Newest value of every series.", (_METRIC, _MATCH), statuses=(200, 400),
              takes_labels=True),
    Operation("/api/v1/metrics/history", "Values over time, a page of series at a time.",
              (_METRIC, _MATCH, _START, _END, Parameter("step", "Distance of points; chosen when left out.", _LENGTH),
               Parameter("limit", "Series on a page, 100 when left out.",
                         {"type": "integer", "minimum": 0, "maximum": 1000}),
               Parameter("offset", "Series before the page.", _COUNT)),
              takes_labels=True, statuses=(200, 400, 422, 503)),
    Operation("/api/v1/metrics/stats",
              "Count, min, max, avg, p50, p95, p99 of a window, beside the same window yesterday and a week ago.",
              (_METRIC, _MATCH, _START, _END), takes_labels=True, statuses=(200, 400, 422, 503)),
    Operation("/api/v1/metrics/export", "Samples as they are kept, streamed; X-Series tells how many series.",
              (_METRIC, _MATCH, _START, _END,
               Parameter("format", "Form of the answer; jsonl when left out.",
                         {"type": "string", "enum": ["csv", "json", "jsonl", "openmetrics", "line-protocol"]})),
              answer=("application/jsonl", "text/csv", "application/json", "application/openmetrics-text",
                      "text/plain"), takes_labels=True),
)  # fmt: skip

_STATUS_TEXTS: Final[Mapping[int, str]] = {
    200: "The answer.",
    307: "It is under another path.",
    400: "Something about the request is wrong; `error` says what.",
    401: "A token is needed.",
    403: "This token does not allow it.",
    404: "There is no such path.",
    405: "This path has no such method.",
    421: "The Host header names another host.",
    422: "The query is valid but cannot be answered from these series.",
    431: "The request line and headers are larger than 8 KiB.",
    503: "Not now: no time left, too many queries at once, or no history kept.",
}
_ALWAYS: Final = (401, 403, 421, 431)
_ERROR: Final[Schema] = {
    "type": "object",
    "required": ["status", "errorType", "error"],
    "properties": {"status": {"const": "error"}, "errorType": {"type": "string"}, "error": {"type": "string"}},
}
_SUCCESS: Final[Schema] = {
    "type": "object",
    "required": ["status", "data"],
    "properties": {
        "status": {"const": "success"},
        "data": {},
        "warnings": {"type": "array", "items": {"type": "string"}},
        "infos": {"type": "array", "items": {"type": "string"}},
    },
}


def document(operations: Iterable[Operation] = OPERATIONS) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these operations."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Vigilhost",
            "version": __version__,
            "description": "What this host measures and remembers. Reading only, unless an admin token is configured.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
        "paths": {one.path: _path(one) for one in operations},
        "components": {
            "schemas": {"Success": dict(_SUCCESS), "Error": dict(_ERROR)},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _path(operation: Operation) -> dict[str, Any]:
    return {method.lower(): _method(operation, method) for method in operation.methods}


def _method(operation: Operation, method: str) -> dict[str, Any]:
    in_address = [one for one in operation.parameters if method != "POST" or one.place == "path"]
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": f"{method.lower()}_{operation.path.strip('/').replace('/', '_').replace('-', '_') or 'index'}",
        "responses": {str(status): _answer(operation, status) for status in (*operation.statuses, *_ALWAYS)},
    }
    described["operationId"] = described["operationId"].translate(str.maketrans(".", "_", "{}"))
    parameters = [one.document() for one in in_address]
    if operation.takes_labels:
        parameters.append({
            "name": "labels", "in": "query", "required": False, "style": "form", "explode": True,
            "description": "Any other parameter is a condition on the label of that name, such as device=sda.",
            "schema": {"type": "object", "additionalProperties": {"type": "string"},
                       "propertyNames": {"pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"}},
        })  # fmt: skip
    if parameters:
        described["parameters"] = parameters
    if method == "POST":
        described["requestBody"] = _form(operation)
    return described


def _form(operation: Operation) -> dict[str, Any]:
    fields = [one for one in operation.parameters if one.place == "query"]
    schema = {
        "type": "object",
        "properties": {one.name: {**one.schema, "description": one.help} for one in fields},
        "required": [one.name for one in fields if one.is_required],
    }
    return {"required": bool(schema["required"]), "content": {"application/x-www-form-urlencoded": {"schema": schema}}}


def _answer(operation: Operation, status: int) -> dict[str, Any]:
    described: dict[str, Any] = {"description": _STATUS_TEXTS[status]}
    is_api = operation.path.startswith("/api/v1/")
    if status == 200:
        schema = {"$ref": "#/components/schemas/Success"} if is_api else {}
        described["content"] = {
            kind: {"schema": schema if kind == "application/json" else {"type": "string"}} for kind in operation.answer
        }
    elif status == 431:
        described["content"] = {"text/plain": {"schema": {"type": "string"}}}
    elif is_api or status in _ALWAYS:
        described["content"] = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    elif operation.answer == ("text/plain",):
        described["content"] = {"text/plain": {"schema": {"type": "string"}}}
    else:
        described["content"] = {"application/json": {"schema": {}}}
    return described
