"""The query API that Prometheus and VictoriaMetrics share, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.servers.http_call import call, must
from tests.servers.process import ServerError

Labels = dict[str, str]


@dataclass(frozen=True, slots=True)
class Series:
    """One series: labels (`__name__` among them), values and their times in Unix seconds, oldest first."""

    labels: Labels
    values: list[float]
    times: list[float]

    @property
    def name(self) -> str:
        return self.labels.get("__name__", "")


def query(url: str, expr: str, at: float | None = None) -> list[Series]:
    """Instant query: one value a series; a scalar has no labels. `at` None: now. Raise ServerError on a bad query."""
    params = {"query": expr, "nocache": "1"} | ({} if at is None else {"time": f"{at:.3f}"})
    return _series(must(call(f"{url}/api/v1/query", "POST", params=params)).json())


def query_range(url: str, expr: str, start: float, end: float, step: float) -> list[Series]:
    """Range query over [start, end] in Unix seconds. Raise ServerError on a bad query."""
    params = {"query": expr, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:g}", "nocache": "1"}
    return _series(must(call(f"{url}/api/v1/query_range", "POST", params=params)).json())


def _series(answer: dict[str, Any]) -> list[Series]:
    data = answer["data"]
    match data["resultType"]:
        case "scalar":
            return [Series({}, [float(data["result"][1])], [float(data["result"][0])])]
        case "vector":
            return [Series(r["metric"], [float(r["value"][1])], [float(r["value"][0])]) for r in data["result"]]
        case "matrix":
            return [
                Series(r["metric"], [float(v) for _, v in r["values"]], [float(t) for t, _ in r["values"]])
                for r in data["result"]
            ]
        case other:
            raise ServerError(f"result type {other!r}; expected scalar, vector or matrix")
