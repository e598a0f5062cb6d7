"""Prometheus' HTTP API, as far as Grafana's data source and scripts use it.

https://prometheus.io/docs/prometheus/latest/querying/api/ has the contract; formats, messages and status codes follow
Prometheus 2.42. Everything that may take long is parsed, computed and encoded on the query thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from agent import __version__
from agent.core.labels import Labels, Matcher
from agent.core.query import Limits, QueryError, Result
from agent.http import refusals
from agent.http.asked import Asked, selector
from agent.http.encoding import labels_json, query_data, success, to_json
from agent.http.faces import AlertsFace, HistoryFace
from agent.http.refusals import Refusal, bad
from agent.http.service import Allowance, Endpoint, Pieces, Service, data_of, endpoint
from agent.http.times import FURTHEST_MS
from sinks.history.promql.parser import parse

API_VERSION: Final = "2.42.0"  # of Prometheus: what clients may expect of this API
MOST_POINTS: Final = 11_000
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


def endpoints(service: Service, alerts: AlertsFace | None) -> dict[str, Endpoint]:
    """The endpoints by path."""
    api = PrometheusApi(service, alerts)
    return {
        "/api/v1/query": endpoint(api.query),
        "/api/v1/query_range": endpoint(api.query_range),
        "/api/v1/labels": endpoint(api.labels),
        "/api/v1/label/{name}/values": endpoint(api.label_values),
        "/api/v1/series": endpoint(api.series),
        "/api/v1/metadata": endpoint(api.metadata),
        "/api/v1/rules": endpoint(api.rules),
        "/api/v1/alerts": endpoint(api.alerts),
        "/api/v1/status/buildinfo": endpoint(api.buildinfo),
        "/api/v1/query_exemplars": endpoint(api.query_exemplars),
    }


class PrometheusApi:
    """One method an endpoint."""

    def __init__(self, service: Service, alerts: AlertsFace | None) -> None:
        self._service = service
        self._alerts = alerts

    async def query(self, _: Request, asked: Asked) -> Response:
        """The value of an expression at one moment."""
        at = asked.moment_or("time", self._service.now_ms())
        text = asked.text("query")
        return await self._answer(asked, lambda querier, limits: querier.instant(text, at, limits))

    async def query_range(self, _: Request, asked: Asked) -> Response:
        """The values of an expression over time."""
        start, end = asked.moment("start"), asked.moment("end")
        if end < start:
            raise bad("end", "end timestamp must not be before start time")
        step = asked.length("step")
        if step <= 0:
            raise bad("step", "zero or negative query resolution step widths are not accepted. Try a positive integer")
        if (end - start) // step > MOST_POINTS:
            raise Refusal(
                "bad_data",
                "exceeded maximum resolution of 11,000 points per timeseries. "
                "Try decreasing the query resolution (?step=XX)",
            )
        text = asked.text("query")
        return await self._answer(asked, lambda querier, limits: querier.range(text, start, end, step, limits))

    async def _answer(self, asked: Asked, run: Callable[[Any, Limits], Result]) -> Response:
        timeout_ms = asked.length("timeout") if asked.text("timeout") else None
        lookback_ms = asked.length("lookback_delta") if asked.text("lookback_delta") else None
        if lookback_ms is not None and lookback_ms <= 0:
            raise bad("lookback_delta", "a duration above zero would be right")
        most = asked.count("limit", 0)
        querier = self._service.querier(lookback_ms)

        def work(allowed: Allowance) -> list[bytes]:
            try:
                result = run(querier, allowed.now())
            except QueryError as error:
                raise _with_parameter(error) from error
            result, was_cut = _cut(result, most)
            warnings = (*result.warnings, "results truncated due to limit") if was_cut else result.warnings
            return success(allowed.within(query_data(result)), warnings, result.infos)

        if timeout_ms is not None and timeout_ms <= 0:
            raise Refusal("timeout", "query timed out in query queue")
        return Pieces(await self._service.ask(work, None if timeout_ms is None else timeout_ms / 1000))

    async def labels(self, _: Request, asked: Asked) -> Response:
        """Names of labels."""
        return await self._names(asked, lambda history, *where: history.label_names(*where))

    async def label_values(self, request: Request, asked: Asked) -> Response:
        """Values of a label."""
        name = request.path_params["name"]
        if not _LABEL_NAME.fullmatch(name):
            raise Refusal("bad_data", f"invalid label name: {to_json(name)}")
        return await self._names(asked, lambda history, *where: history.label_values(name, *where))

    async def _names(
        self, asked: Asked, find: Callable[[HistoryFace, Sequence[Matcher], int, int], Iterable[str]]
    ) -> Response:
        history = self._service.must_history()
        start, end = asked.moment_or("start", -FURTHEST_MS), asked.moment_or("end", FURTHEST_MS)
        most, texts = asked.count("limit", 0), asked.all("match[]")

        def work(_: Allowance) -> list[bytes]:
            conditions = [selector(text) for text in texts] or [()]
            found = sorted({name for matchers in conditions for name in find(history, matchers, start, end)})
            return _listed((to_json(name) for name in found[: most or None]), most and len(found) > most)

        return Pieces(await self._service.ask(work))

    async def series(self, _: Request, asked: Asked) -> Response:
        """Label sets of series."""
        texts = asked.all("match[]")
        if not texts:
            raise Refusal("bad_data", "no match[] parameter provided")
        history = self._service.must_history()
        start, end = asked.moment_or("start", -FURTHEST_MS), asked.moment_or("end", FURTHEST_MS)
        most = asked.count("limit", 0)

        def work(_: Allowance) -> list[bytes]:
            selectors = [selector(text) for text in texts]
            found: list[Labels] = sorted({one for each in selectors for one in history.series(each, start, end)})
            return _listed((labels_json(one) for one in found[: most or None]), most and len(found) > most)

        return Pieces(await self._service.ask(work))

    async def metadata(self, _: Request, asked: Asked) -> Response:
        """Type, help and unit of metrics."""
        history = self._service.must_history()
        only, limit = asked.text("metric"), asked.text("limit")
        for name, text in (("limit", limit), ("limit_per_metric", asked.text("limit_per_metric"))):
            if text and not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
                raise Refusal("bad_data", f"{name} must be a number")
        most = int(limit or -1)

        def work(_: Allowance) -> list[bytes]:
            known = history.metadata()
            names = sorted({only} & known.keys() if only else known)
            if most >= 0:
                names = names[:most]
            return success(_object((name, _facts(known[name])) for name in names))

        return Pieces(await self._service.ask(work))

    async def rules(self, _: Request, asked: Asked) -> Response:
        """Rule groups."""
        wanted = asked.text("type").lower()
        if wanted not in {"", "alert", "record"}:
            raise bad("type", f"not supported value {to_json(wanted)}")
        groups = [dict(group) for group in self._alerts.groups()] if self._alerts is not None else []
        if wanted:
            kind = "alerting" if wanted == "alert" else "recording"
            for group in groups:
                group["rules"] = [rule for rule in group["rules"] if rule["type"] == kind]
        return Pieces(success(iter((to_json({"groups": groups}),))))

    async def alerts(self, _: Request, __: Asked) -> Response:
        """Pending and firing alerts."""
        found = list(self._alerts.alerts()) if self._alerts is not None else []
        return Pieces(success(iter((to_json({"alerts": found}),))))

    async def buildinfo(self, _: Request, __: Asked) -> Response:
        """Which version of Prometheus' API this is, and of whom."""
        facts = {
            "version": API_VERSION, "revision": f"vigilhost-{__version__}", "branch": "", "buildUser": "",
            "buildDate": "", "goVersion": "",
        }  # fmt: skip
        return Pieces(success(iter((to_json(facts),))))

    async def query_exemplars(self, _: Request, asked: Asked) -> Response:
        """Always none: history keeps no exemplars. The question is checked all the same."""
        start, end = asked.moment_or("start", -FURTHEST_MS), asked.moment_or("end", FURTHEST_MS)
        if end < start:
            raise Refusal("bad_data", "end timestamp must not be before start timestamp")
        await self._service.ask(lambda _: parse(asked.text("query")))
        return Pieces(success(iter(("[]",))))


def _with_parameter(error: QueryError) -> Refusal:
    """The error as Prometheus' `query` says it; here `query_range` names the parameter too."""
    refusal = refusals.of_query(error)
    return bad("query", str(refusal)) if refusal.kind == "bad_data" else refusal


def _cut(result: Result, most: int) -> tuple[Result, bool]:
    """The first `most` series of the result, and whether there were more; 0 is no limit."""
    value = result.value
    if not most or not isinstance(value, list) or len(value) <= most:
        return result, False
    kept = result.vector()[:most] if result.kind == "vector" else result.matrix()[:most]
    return Result(result.kind, kept, result.time_ms, result.warnings, result.infos), True


def _listed(values: Iterator[str], was_cut: object) -> list[bytes]:
    return success(data_of(values), ("results truncated due to limit",) if was_cut else ())


def _object(members: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield "{"
    comma = ""
    for name, text in members:
        yield f"{comma}{to_json(name)}:{text}"
        comma = ","
    yield "}"


def _facts(metric: Any) -> str:
    return to_json([{"type": metric.type, "help": metric.help, "unit": metric.unit}])
