"""Who answers the questions of the command line: the running agent over HTTP, else the history it left behind."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from math import inf, nan
from typing import Any, Protocol

import click

from agent.cli.agent_socket import ask_agent
from agent.cli.config_cmd import load_or_exit
from agent.cli.kept_history import KeptHistory, NothingKeptError
from agent.core.labels import Labels, labels_of
from agent.core.query import ParseError, Points, QueryError, Result, Sample
from agent.http.asked import selector
from agent.http.export import extent, stretches
from agent.http.export_formats import Columns
from agent.http.exposure import url_of
from agent.http.faces import MetricFacts
from agent.http.refusals import Refusal
from agent.http.times import seconds_text
from sinks.history.history import DIRECTORY
from sinks.history.naming import Metric

EXIT_BAD_QUESTION = 2
TOKEN_VARIABLE = "VIGILHOST_TOKEN"
_TIMEOUT_S = 60.0
_PLACED = re.compile(r"(?:invalid parameter \"[^\"]*\": )?(\d+):(\d+): (?:parse error: )?(.*)", re.DOTALL)


class AskError(Exception):
    """A question without an answer. `line` and `column` count from 1; 0 where the error has no place."""

    def __init__(self, message: str, *, line: int = 0, column: int = 0, is_wrong: bool = False) -> None:
        super().__init__(message)
        self.line, self.column = line, column
        self.is_wrong = is_wrong  # asking the same again will not help


class Answers(Protocol):
    """Answers questions; every method raises AskError. Times in ms."""

    def instant(self, expr: str, at_ms: int) -> Result: ...

    def range(self, expr: str, start_ms: int, end_ms: int, step_ms: int) -> Result: ...

    def series(self, selectors: Sequence[str], start_ms: int, end_ms: int) -> list[Labels]: ...

    def metadata(self) -> Mapping[str, MetricFacts]: ...

    def samples(
        self, selectors: Sequence[str], series: Sequence[Labels], start_ms: int, end_ms: int
    ) -> Iterator[tuple[Labels, Columns]]:
        """The samples of these series, which the selectors select, series by series in the order of `series`."""
        ...


def answers(config: str | None, state_dir: str | None, url: str | None) -> Answers:
    """Whoever answers here. Raise click.ClickException when nobody does."""
    if url:
        return OverHttp(url)
    try:
        found = ask_agent("status", config=config, state_dir=state_dir)
    except click.ClickException as error:
        return _without_agent(config, state_dir, error)
    settings = load_or_exit(config).settings
    return OverHttp(found.get("url") or url_of(settings.listen))


def _without_agent(config: str | None, state_dir: str | None, error: click.ClickException) -> Answers:
    settings = load_or_exit(config).settings
    if state_dir is None:
        over_http = OverHttp(url_of(settings.listen))
        if over_http.is_there():  # it runs, but its socket is not for this user
            return over_http
    directory = os.path.join(state_dir or settings.state_dir, DIRECTORY)
    try:
        kept = KeptHistory(directory)
    except NothingKeptError as nothing:
        raise click.ClickException(f"{error.message}\nand there is no history to read: {nothing}") from error
    click.echo(f"no agent answers here; reading the history it left in {directory}", err=True)
    return FromDirectory(kept)


class OverHttp:
    """Asks the agent's HTTP API. A token comes from the environment: on the command line everyone could read it."""

    def __init__(self, url: str) -> None:
        import urllib3

        self._url = url.rstrip("/")
        self._http = urllib3.PoolManager(timeout=_TIMEOUT_S, retries=False)
        token = os.environ.get(TOKEN_VARIABLE, "")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def is_there(self) -> bool:
        """Does an agent answer?"""
        try:
            self._ask("/api/v1/status/buildinfo", {})
        except AskError:
            return False
        return True

    def instant(self, expr: str, at_ms: int) -> Result:
        return _result(self._ask("/api/v1/query", {"query": expr, "time": seconds_text(at_ms)}), at_ms)

    def range(self, expr: str, start_ms: int, end_ms: int, step_ms: int) -> Result:
        asked = {"query": expr, "start": seconds_text(start_ms), "end": seconds_text(end_ms),
                 "step": seconds_text(step_ms)}  # fmt: skip
        return _result(self._ask("/api/v1/query_range", asked), end_ms)

    def series(self, selectors: Sequence[str], start_ms: int, end_ms: int) -> list[Labels]:
        asked = {"match[]": list(selectors), "start": seconds_text(start_ms), "end": seconds_text(end_ms)}
        return sorted(labels_of(one) for one in self._ask("/api/v1/series", asked)["data"])

    def metadata(self) -> Mapping[str, MetricFacts]:
        found = self._ask("/api/v1/metadata", {})["data"]
        return {name: Metric(one[0]["type"], one[0]["help"], one[0]["unit"]) for name, one in found.items()}

    def samples(
        self,
        selectors: Sequence[str],
        series: Sequence[Labels],  # noqa: ARG002 - the agent finds them again
        start_ms: int,
        end_ms: int,
    ) -> Iterator[tuple[Labels, Columns]]:
        asked = {"match[]": list(selectors), "start": seconds_text(start_ms), "end": seconds_text(end_ms),
                 "format": "jsonl"}  # fmt: skip
        answer = self._send("/api/v1/metrics/export", asked, "GET")
        for line in _lines(answer):
            found = json.loads(line)
            yield labels_of(found["metric"]), (found["timestamps"], [_float(value) for value in found["values"]])

    def _ask(self, path: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        is_post = path.endswith(("query", "query_range", "series"))
        answer = self._send(path, fields, "POST" if is_post else "GET")
        found: dict[str, Any] = json.loads(answer.read())
        return found

    def _send(self, path: str, fields: Mapping[str, Any], method: str) -> Any:
        from urllib.parse import urlencode

        import urllib3

        encoded = urlencode(fields, doseq=True)
        try:
            answer = self._http.request(
                method,
                f"{self._url}{path}" + (f"?{encoded}" if method == "GET" else ""),
                body=encoded if method == "POST" else None,
                headers={**self._headers, "Content-Type": "application/x-www-form-urlencoded"},
                preload_content=False,
            )
            if answer.status != 200:
                raise _refused(answer.status, answer.read())
        except urllib3.exceptions.HTTPError as error:
            raise AskError(f"{self._url}: {error}") from error
        return answer


def _lines(answer: Any) -> Iterator[bytes]:
    import urllib3

    rest = b""
    try:
        for piece in answer.stream(64 * 1024):
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
    except urllib3.exceptions.HTTPError as error:
        raise AskError(f"the agent stopped in the middle: {error}") from error
    if rest:
        raise AskError("the agent stopped in the middle of a line")


def _refused(status: int, body: bytes) -> AskError:
    try:
        text = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        text = body.decode("utf-8", "replace").strip()[:500] or f"http status {status}"
    if status == 401:
        text += f"; put it into the environment variable {TOKEN_VARIABLE}"
    return placed(text, is_wrong=status in {400, 422})


def placed(text: str, *, is_wrong: bool) -> AskError:
    """The error, with its place in the query where the text begins with one."""
    match = _PLACED.fullmatch(text)
    if match is None:
        return AskError(text, is_wrong=is_wrong)
    return AskError(match[3], line=int(match[1]), column=int(match[2]), is_wrong=is_wrong)


def _result(answer: Mapping[str, Any], time_ms: int) -> Result:
    data, remarks = answer["data"], (tuple(answer.get("warnings", ())), tuple(answer.get("infos", ())))
    kind, found = data["resultType"], data["result"]
    if kind == "scalar":
        return Result(kind, _float(found[1]), time_ms, *remarks)
    if kind == "string":
        return Result(kind, found[1], time_ms, *remarks)
    if kind == "vector":
        samples = [Sample(labels_of(one["metric"]), _ms(one["value"][0]), _float(one["value"][1])) for one in found]
        return Result(kind, samples, time_ms, *remarks)
    points = [
        Points(labels_of(one["metric"]), [_ms(at) for at, _ in one["values"]], [_float(x) for _, x in one["values"]])
        for one in found
    ]
    return Result("matrix", points, time_ms, *remarks)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _float(value: Any) -> float:
    """A value as the API writes it: a number, its text, null for NaN, or JSON's words for infinity."""
    if value is None:
        return nan
    if isinstance(value, str) and value.endswith(("Inf", "Infinity")):
        return -inf if value.startswith("-") else inf
    return float(value)


class FromDirectory:
    """Reads the history of an agent that does not run."""

    def __init__(self, history: KeptHistory) -> None:
        self._history = history

    def instant(self, expr: str, at_ms: int) -> Result:
        try:
            return self._history.querier().instant(expr, at_ms)
        except QueryError as error:
            raise _unanswered(error) from error

    def range(self, expr: str, start_ms: int, end_ms: int, step_ms: int) -> Result:
        try:
            return self._history.querier().range(expr, start_ms, end_ms, step_ms)
        except QueryError as error:
            raise _unanswered(error) from error

    def series(self, selectors: Sequence[str], start_ms: int, end_ms: int) -> list[Labels]:
        try:
            conditions = [selector(text) for text in selectors]
        except Refusal as error:
            raise placed(str(error), is_wrong=True) from error
        return sorted({one for each in conditions for one in self._history.series(each, start_ms, end_ms)})

    def metadata(self) -> Mapping[str, MetricFacts]:
        return self._history.metadata()

    def samples(
        self, selectors: Sequence[str], series: Sequence[Labels], start_ms: int, end_ms: int
    ) -> Iterator[tuple[Labels, Columns]]:
        conditions = [selector(text) for text in selectors]
        start_ms, end_ms = extent(self._history, conditions, start_ms, end_ms)
        try:
            yield from stretches(self._history, series, start_ms, end_ms)
        except QueryError as error:
            raise _unanswered(error) from error


def _unanswered(error: QueryError) -> AskError:
    if isinstance(error, ParseError):
        hint = f"; {error.hint}" if error.hint else ""
        return AskError(f"{error.message}{hint}", line=error.line, column=error.column, is_wrong=True)
    return AskError(str(error), is_wrong=error.kind != "timeout")
