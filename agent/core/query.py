"""The words of a query: what rules, the command line and HTTP ask history, and what they get back.

Times are integer milliseconds since the epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol, TypeAlias

from agent.core.labels import Labels

Kind: TypeAlias = Literal["scalar", "string", "vector", "matrix"]


class Sample(NamedTuple):
    """One series at one moment."""

    labels: Labels
    time_ms: int
    value: float


class Points(NamedTuple):
    """One series over time; both sequences are of the same length, times ascending."""

    labels: Labels
    times_ms: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Result:
    """The answer: a float, a text, samples (ordered where the query sorts) or points.

    `warnings` say that the answer may be wrong, `infos` that the question may be; both end with the place in the query.
    """

    kind: Kind
    value: float | str | list[Sample] | list[Points]
    time_ms: int  # the moment asked for; the end of a range
    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()

    def vector(self) -> list[Sample]:
        """The samples of a vector; a scalar is one sample without labels. Raise ExecutionError for the other kinds."""
        if isinstance(self.value, float):
            return [Sample((), self.time_ms, self.value)]
        if self.kind == "vector" and isinstance(self.value, list):
            return [sample for sample in self.value if isinstance(sample, Sample)]
        raise ExecutionError(f"result is a {self.kind}; an instant vector or a scalar would be right")

    def matrix(self) -> list[Points]:
        """The points of a matrix. Raise ExecutionError for the other kinds."""
        if self.kind == "matrix" and isinstance(self.value, list):
            return [points for points in self.value if isinstance(points, Points)]
        raise ExecutionError(f"result is a {self.kind}; a range of points would be right")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one query may cost; passing a limit raises TooMuchError or QueryTimeoutError."""

    samples: int = 5_000_000  # read from history, 16 bytes each
    steps: int = 11_000  # points of one resulting series
    cells: int = 2_000_000  # series times steps of one intermediate result, up to 32 bytes each
    deadline_s: float = 30.0


DEFAULT_LIMITS = Limits()


class QueryError(Exception):
    """A query without an answer. `kind` is the error type of Prometheus' HTTP API."""

    kind: ClassVar[str] = "execution"


class ParseError(QueryError):
    """Text that is no query; `str()` is `line:column: found ..., expected ...; hint`."""

    kind: ClassVar[str] = "bad_data"

    def __init__(self, message: str, line: int, column: int, hint: str = "") -> None:
        super().__init__(f"{line}:{column}: {message}" + (f"; {hint}" if hint else ""))
        self.message = message
        self.line = line
        self.column = column
        self.hint = hint


class UnsupportedError(ParseError):
    """PromQL that this engine leaves out, such as native histograms and experimental operators."""


class ParameterError(QueryError):
    """Bounds that make no query: an end before the start, a step below 1 ms."""

    kind: ClassVar[str] = "bad_data"


class ExecutionError(QueryError):
    """A valid query that these series cannot answer, such as an ambiguous match."""


class TooMuchError(ExecutionError):
    """The query would cost more than its limits allow; the text names the limit and what would help."""


class QueryTimeoutError(QueryError):
    """The deadline passed before the answer was complete."""

    kind: ClassVar[str] = "timeout"


class Querier(Protocol):
    """Whoever can answer PromQL. Raise QueryError and nothing else for what is wrong with the question."""

    def instant(self, expr: str, time_ms: int, limits: Limits = DEFAULT_LIMITS) -> Result:
        """The value of `expr` at one moment."""
        ...

    def range(self, expr: str, start_ms: int, end_ms: int, step_ms: int, limits: Limits = DEFAULT_LIMITS) -> Result:
        """The values of `expr` at start, start + step, ... up to and including end: always a matrix."""
        ...
