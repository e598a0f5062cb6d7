"""What became of the messages of each receiver since the start, for /metrics and /health."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.core.errors import Retryable
from alerting.attempts import Outcome
from alerting.notify.message import Notifier, SentReceipt


@dataclass(slots=True)
class Deliveries:
    """Of one receiver. `error`: of the last try, "" when it went well."""

    sent: int = 0
    refused: int = 0
    failed: int = 0
    error: str = ""
    failing_since: float | None = None  # Unix seconds

    def count(self, outcome: Outcome, now: float) -> None:
        """What came of one try."""
        if isinstance(outcome, SentReceipt):
            self.sent += 1
            self.recovered()
            return
        self.error = str(outcome)
        self.failing_since = now if self.failing_since is None else self.failing_since
        if isinstance(outcome, Retryable):
            self.failed += 1
        else:
            self.refused += 1

    def recovered(self) -> None:
        """It works."""
        self.error, self.failing_since = "", None


def carried_over(
    counts: Mapping[str, Deliveries], before: Mapping[str, Notifier], now: Mapping[str, Notifier]
) -> dict[str, Deliveries]:
    """What is known of the receivers there are now; one that is not as it was before has not failed yet."""
    found = {}
    for name, notifier in now.items():
        known = counts.get(name, Deliveries())
        is_same = before.get(name) == notifier
        found[name] = known if is_same else Deliveries(known.sent, known.refused, known.failed)
    return found
