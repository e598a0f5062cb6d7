"""The words of judging: rules and groups of rules, as read from rule files. Durations are seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from agent.core.problems import Place
from alerting.expressions import Expression
from alerting.templates.expander import Template

NoData: TypeAlias = Literal["hold", "resolve"]

NO_DATA: Final = "vigilhost_no_data"  # the annotation by which a rule says what the absence of its inputs means


@dataclass(frozen=True, slots=True)
class AlertRule:
    """Fires for each series that `expression` yields for as long as `hold`.

    `no_data`: what becomes of an alert whose inputs are gone because a collector failed.
    """

    name: str
    expression: Expression
    place: Place
    hold: float = 0.0
    keep_firing_for: float = 0.0
    labels: tuple[tuple[str, Template], ...] = ()
    annotations: tuple[tuple[str, Template], ...] = ()
    no_data: NoData = "hold"

    @property
    def key(self) -> tuple[str, ...]:
        """Kind, name and labels as written: what makes two rules the same."""
        return ("alert", self.name, *(f"{name}\xff{text.text}" for name, text in self.labels))


@dataclass(frozen=True, slots=True)
class RecordRule:
    """Keeps what `expression` yields as series called `name`; a label with an empty value is taken away."""

    name: str
    expression: Expression
    place: Place
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> tuple[str, ...]:
        """Kind, name and labels: what makes two rules the same."""
        return ("record", self.name, *(f"{name}\xff{text}" for name, text in self.labels))


Rule: TypeAlias = AlertRule | RecordRule


@dataclass(frozen=True, slots=True)
class RuleGroup:
    """Rules evaluated one after another at the same moments.

    `interval` None: the default of whoever evaluates. `limit`: alerts or series of one rule at most, 0 for no limit.
    `query_offset`: how long before the moment of evaluation the expressions look.
    """

    name: str
    file: str
    rules: tuple[Rule, ...]
    place: Place
    interval: float | None = None
    limit: int = 0
    query_offset: float = 0.0

    @property
    def key(self) -> str:
        """Unique among all groups; stays the same over restarts."""
        return f"{self.file};{self.name}"
