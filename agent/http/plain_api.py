"""The plain API for scripts: current values, history by the page, statistics with comparisons, export."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from starlette.requests import Request
from starlette.responses import Response

from agent.core.labels import Labels, quote
from agent.core.model import Tick
from agent.http.asked import Asked, exactly, selector
from agent.http.current import CurrentValues
from agent.http.encoding import labels_json, points_json, success, to_json
from agent.http.export import FORMATS, Export
from agent.http.refusals import Refusal, bad
from agent.http.service import Allowance, Endpoint, Pieces, Service, Stream, data_of, endpoint
from agent.http.statistics import summaries
from agent.http.times import iso, seconds_text
from sinks.history.naming import Names

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
POINTS_BY_DEFAULT: Final = 500
MOST_POINTS: Final = 11_000
MOST_SERIES: Final = 1000  # on one page
SERIES_BY_DEFAULT: Final = 100

_OWN_WORDS: Final = frozenset({"metric", "match[]", "start", "end", "step", "limit", "offset", "format"})


class Snapshots(Protocol):
    """Whoever has the newest readings."""

    def snapshot(self) -> list[Tick]: ...


def endpoints(service: Service, agent: Snapshots, names: Names) -> dict[str, Endpoint]:
    """The endpoints by path."""
    api = PlainApi(service, agent, names)
    return {
        "/api/v1/metrics/current": endpoint(api.current),
        "/api/v1/metrics/history": endpoint(api.history),
        "/api/v1/metrics/stats": endpoint(api.stats),
        "/api/v1/metrics/export": endpoint(api.export),
    }


class PlainApi:
    """One method an endpoint."""

    def __init__(self, service: Service, agent: Snapshots, names: Names) -> None:
        self._service = service
        self._agent = agent
        self._current = CurrentValues(names)

    async def current(self, _: Request, asked: Asked) -> Response:
        """The newest value of every series, or of those asked for."""
        texts = selectors_of(asked, must_name=False)
        wanted = [selector(text) for text in texts]
        found = self._current.encode(self._agent.snapshot(), wanted)
        now = seconds_text(self._service.now_ms())
        body = f'{{"status":"success","data":{{"time":{now},"series":[{",".join(found)}]}}}}'
        return Pieces([body.encode("utf-8", "replace")])

    async def history(self, _: Request, asked: Asked) -> Response:
        """Values over time, a page of series at a time."""
        texts = selectors_of(asked)
        start, end = self._window(asked)
        step = asked.length("step") if asked.text("step") else _even_step(start, end)
        if step <= 0:
            raise bad("step", "a duration above zero would be right")
        if (end - start) // step > MOST_POINTS:
            raise bad("step", f"more than {MOST_POINTS} points a series; ask for a longer step or a shorter range")
        limit = asked.count("limit", SERIES_BY_DEFAULT, MOST_SERIES)
        offset = asked.count("offset", 0)
        history, querier = self._service.must_history(), self._service.querier()

        def work(allowed: Allowance) -> list[bytes]:
            series = sorted({one for text in texts for one in history.series(selector(text), start, end)})
            page = series[offset : offset + limit]
            warnings: dict[str, None] = {}

            def rows() -> Iterator[str]:
                for labels in page:
                    result = querier.range(exactly(labels), start, end, step, allowed.now())
                    warnings.update(dict.fromkeys(result.warnings))
                    yield from (_row(labels, one.times_ms, one.values) for one in result.matrix())

            texts_of_rows = list(rows())
            return success(_page(texts_of_rows, start, end, step, (len(series), limit, offset)), tuple(warnings))

        return Pieces(await self._service.ask(work))

    async def stats(self, _: Request, asked: Asked) -> Response:
        """Statistics of a window, beside those of the same window yesterday and a week ago."""
        texts = selectors_of(asked)
        start, end = self._window(asked)
        if end == start:
            raise bad("end", "a moment after the start would be right")
        history = self._service.must_history()

        def work(allowed: Allowance) -> list[bytes]:
            selectors = [selector(text) for text in texts]
            found, warnings = summaries(history, selectors, (start, end), allowed.now)
            rows = (f'{{"metric":{labels_json(labels)},{to_json(facts)[1:]}' for labels, facts in found)
            head = f'{{"start":"{iso(start)}","end":"{iso(end)}","series":'
            return success(_within(head, data_of(rows), "}"), warnings)

        return Pieces(await self._service.ask(work))

    async def export(self, _: Request, asked: Asked) -> Response:
        """Samples as they are kept, streamed."""
        form = FORMATS.get(asked.text("format", "jsonl"))
        if form is None:
            raise bad("format", f"one of {', '.join(FORMATS)} would be right")
        texts = selectors_of(asked, must_name=False) or ['{__name__!=""}']
        start, end = self._window(asked)
        export = Export(self._service, texts, start, end)
        await export.begin()
        facts = {"Content-Disposition": f'attachment; filename="vigilhost.{form.suffix}"',
                 "X-Series": str(len(export.series))}  # fmt: skip
        return Stream(export.stream(form), form.media_type, facts)

    def _window(self, asked: Asked) -> tuple[int, int]:
        """Start and end; the last hour unless said otherwise."""
        end = asked.moment_or("end", self._service.now_ms())
        start = asked.moment_or("start", end - HOUR_MS)
        if end < start:
            raise bad("end", "end timestamp must not be before start time")
        return start, end


def selectors_of(asked: Asked, *, must_name: bool = True) -> list[str]:
    """What `metric=`, any label by its name, and `match[]=` ask for, as selectors. Raise Refusal."""
    conditions = [f"{_name(name)}={quote(asked.text(name))}" for name in asked.names if name not in _OWN_WORDS]
    found = [f"{{{','.join([f'__name__={quote(metric)}', *conditions])}}}" for metric in asked.all("metric") if metric]
    found += asked.all("match[]")
    if conditions and not found:
        found = [f"{{{','.join(conditions)}}}"]
    if must_name and not found:
        raise Refusal("bad_data", 'which metric? write metric=node_load1, or match[]={__name__=~"node_load.*"}')
    return found


def _name(name: str) -> str:
    """A parameter's name as a label name. Raise Refusal for what can be none."""
    if not (name.isascii() and name.isidentifier()):
        raise bad(name, "is neither a parameter of this endpoint nor a label name")
    return name


def _even_step(start_ms: int, end_ms: int) -> int:
    """The shortest whole second that gives no more than the usual number of points."""
    return max(1000, -(-(end_ms - start_ms) // POINTS_BY_DEFAULT // 1000) * 1000)


def _row(labels: Labels, times_ms: Sequence[int], values: Sequence[float]) -> str:
    return f'{{"metric":{labels_json(labels)},"values":[{points_json(times_ms, values)}]}}'


def _page(rows: list[str], start_ms: int, end_ms: int, step_ms: int, place: tuple[int, int, int]) -> Iterator[str]:
    total, limit, offset = place
    following = offset + limit if limit and offset + limit < total else None
    facts = {"start": iso(start_ms), "end": iso(end_ms), "step": step_ms / 1000, "total": total, "limit": limit,
             "offset": offset, "next_offset": following}  # fmt: skip
    yield from _within(f'{to_json(facts)[:-1]},"series":', data_of(iter(rows)), "}")


def _within(head: str, pieces: Iterator[str], tail: str) -> Iterator[str]:
    yield head
    yield from pieces
    yield tail
