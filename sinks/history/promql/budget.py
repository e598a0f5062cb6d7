"""What a running query has used, its deadline, and the remarks it has collected."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from agent.core.query import Limits, QueryTimeoutError, TooMuchError
from sinks.history.promql import lexer
from sinks.history.promql.ast import Expr

WORK_BETWEEN_CHECKS: Final = 100_000  # samples walked, about 1 ms, between two looks at the clock


class Budget:
    """Counts against `limits`; `monotonic` gives seconds."""

    def __init__(self, limits: Limits, monotonic: Callable[[], float]) -> None:
        self._limits = limits
        self._monotonic = monotonic
        self._ends_at = monotonic() + limits.deadline_s
        self._samples = 0
        self._work = 0
        self._held = 0  # cells of operands that wait for another operand

    @property
    def samples_left(self) -> int:
        return self._limits.samples - self._samples

    def check(self) -> None:
        """Raise QueryTimeoutError past the deadline."""
        if self._monotonic() > self._ends_at:
            raise QueryTimeoutError(
                f"query took longer than {self._limits.deadline_s:g} s; "
                "ask for fewer series, a shorter range or a longer step"
            )

    def work(self, samples: int) -> None:
        """Note samples walked; look at the clock now and then."""
        self._work += samples + 1
        if self._work > WORK_BETWEEN_CHECKS:
            self._work = 0
            self.check()

    def read(self, samples: int) -> None:
        """Note samples read from the store. Raise TooMuchError."""
        self._samples += samples
        if self._samples > self._limits.samples:
            raise TooMuchError(
                f"query reads more than {self._limits.samples} samples; ask for fewer series or a shorter range"
            )

    def cells(self, series: int, steps: int) -> None:
        """Raise TooMuchError where an intermediate result of this size is too large beside those that are held."""
        if series * steps + self._held > self._limits.cells:
            beside = f" beside {self._held} points of other operands" if self._held else ""
            raise TooMuchError(
                f"query makes {series} series of {steps} steps{beside}, more than {self._limits.cells} points; "
                "ask for fewer series or a longer step"
            )

    @contextmanager
    def holding(self, series: int, steps: int) -> Iterator[None]:
        """An intermediate result of this size stays in memory meanwhile."""
        self._held += series * steps
        try:
            yield
        finally:
            self._held -= series * steps


class Remarks:
    """Warnings and infos in the order found, each once, with the place in the query they speak of."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._warnings: dict[str, None] = {}
        self._infos: dict[str, None] = {}

    def warn(self, message: str, node: Expr) -> None:
        """The answer may be wrong."""
        self._warnings[f"PromQL warning: {message}{self._place(node)}"] = None

    def inform(self, message: str, node: Expr) -> None:
        """The question may be wrong."""
        self._infos[f"PromQL info: {message}{self._place(node)}"] = None

    def _place(self, node: Expr) -> str:
        line, column = lexer.place(self._text, node.start)
        return f" ({line}:{column})"

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(self._warnings)

    @property
    def infos(self) -> tuple[str, ...]:
        return tuple(self._infos)
