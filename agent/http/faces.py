"""What the HTTP face asks of the rest: history and the rules, as Protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from agent.core.labels import Labels, Matcher
from agent.core.query import Querier
from sinks.history.promql.storage import Storage


class MetricFacts(Protocol):
    """Type, help and unit of a metric name; "" where unknown."""

    @property
    def type(self) -> str: ...

    @property
    def help(self) -> str: ...

    @property
    def unit(self) -> str: ...


class HistoryFace(Storage, Protocol):
    """A history that can be asked. Every call may block, so none is made on the event loop."""

    def querier(self, lookback_ms: int | None = None) -> Querier:
        """Whoever answers PromQL; with another lookback than usual where one is given."""
        ...

    def label_names(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> Sequence[str]:
        """Names of the labels of the series that meet all matchers and have samples in [start, end], sorted."""
        ...

    def label_values(self, name: str, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> Sequence[str]:
        """Values of one label of such series, sorted."""
        ...

    def series(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> Sequence[Labels]:
        """Such series, in any order; each once."""
        ...

    def metadata(self) -> Mapping[str, MetricFacts]:
        """What is known of each metric, by name."""
        ...


class AlertsFace(Protocol):
    """The rules and their alerts, in the form of Prometheus' HTTP API; cheap, called on the event loop."""

    def groups(self) -> Sequence[Mapping[str, Any]]:
        """Rule groups, each with `name`, `file`, `interval` and `rules`, whose `type` is alerting or recording."""
        ...

    def alerts(self) -> Sequence[Mapping[str, Any]]:
        """Pending and firing alerts."""
        ...
