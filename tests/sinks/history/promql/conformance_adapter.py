"""The engine as a conformance runner of Prometheus' test scripts wants it; the runner is the module `promqltest`."""

from typing import Any

import promqltest  # type: ignore[import-not-found]

from agent.core.labels import Labels, labels_of
from agent.core.query import QueryError, Result, UnsupportedError
from sinks.history.promql.engine import Engine
from tests.sinks.history.promql.memory_storage import MemoryStorage


class Adapter:
    """Loads floats, leaves native histograms out, answers with dictionaries of labels."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.loaded: dict[Labels, dict[int, float]] = {}
        self.engine: Engine | None = None

    def load(self, series: list[tuple[dict[str, str], list[tuple[int, Any]]]]) -> None:
        for labels, samples in series:
            known = self.loaded.setdefault(labels_of(labels), {})
            known.update({time_ms: value for time_ms, value in samples if isinstance(value, float)})
        self.engine = None

    def _ready(self) -> Engine:
        if self.engine is None:
            storage = MemoryStorage()
            for labels, samples in self.loaded.items():
                storage.add(dict(labels), sorted(samples.items()))
            self.engine = Engine(storage)
        return self.engine

    def query(self, expr: str, t_ms: int) -> Any:
        return self._answer(lambda engine: engine.instant(expr, t_ms))

    def query_range(self, expr: str, start_ms: int, end_ms: int, step_ms: int) -> Any:
        return self._answer(lambda engine: engine.range(expr, start_ms, end_ms, step_ms))

    def _answer(self, ask: Any) -> Any:
        try:
            result: Result = ask(self._ready())
        except UnsupportedError as error:
            raise promqltest.Unsupported(str(error)) from error
        except QueryError as error:
            raise promqltest.QueryError(str(error)) from error
        value: Any = result.value
        if result.kind == "vector":
            value = [(dict(sample.labels), sample.value) for sample in result.vector()]
        elif result.kind == "matrix":
            value = [(dict(p.labels), list(zip(p.times_ms, p.values, strict=True))) for p in result.matrix()]
        return promqltest.Result(result.kind, value, list(result.warnings), list(result.infos))


def factory() -> Adapter:
    """A fresh engine over an empty store."""
    return Adapter()
