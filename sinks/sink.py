"""What a sink is: a Protocol, so that plugins extend nothing."""

from __future__ import annotations

from typing import Protocol


class Sink(Protocol):
    """Takes line protocol. Options are dataclass fields, `flush_interval` and `timeout` among them."""

    flush_interval: float  # seconds between two writes
    timeout: float  # seconds one write may take, everything included

    def write(self, lines: bytes) -> None:
        """Deliver these lines, each ended by a newline, all or none as far as the other side allows.

        Blocking; called from one thread at a time; sending the same lines twice does no harm. Raise Retryable, TooLarge
        or Rejected.
        """
        ...

    def close(self) -> None:
        """Give connections back."""
        ...
