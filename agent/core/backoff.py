"""How long to wait before trying again: exponential with jitter, unless the other side said."""

from __future__ import annotations

from tenacity import RetryCallState, wait_exponential_jitter

from agent.core.errors import Retryable

FIRST_S, LONGEST_S = 1.0, 60.0


class Backoff:
    """A tenacity wait strategy: 1 s doubling to 60 s, each with up to a second of jitter.

    What the other side asked for (Retry-After) wins; what only a person can mend (a revoked token) is tried slowly.
    """

    def __init__(self, first: float = FIRST_S, longest: float = LONGEST_S) -> None:
        self._longest = longest
        self._exponential = wait_exponential_jitter(initial=first, max=longest, jitter=first)

    def __call__(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        if isinstance(error, Retryable):
            if error.after is not None:
                return error.after
            if error.is_lasting:
                return self._longest
        return self._exponential(state)
