"""What can go wrong, by what the caller can do about it."""

from __future__ import annotations

from collections.abc import Sequence


class VigilhostError(Exception):
    """An expected failure: its text is for the operator and says where, what was found, what would be right."""


class SourceError(VigilhostError):
    """A collector could not read its source this time; the next slot tries again."""


class SourceMissing(SourceError):
    """The host has nothing of this kind (no sensors, no RAID, a container): said once, looked at again rarely."""


class SinkError(VigilhostError):
    """A sink did not take what it was given. `kind` names the cause for the error counter: `network`, `http_503`."""

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class Retryable(SinkError):
    """Trying the same again later may help.

    `after`: seconds the other side asked us to wait, None when it did not say.
    `is_lasting`: someone must act first (revoked token, missing bucket), so retry slowly and tell.
    """

    def __init__(self, message: str, *, kind: str, after: float | None = None, is_lasting: bool = False) -> None:
        super().__init__(message, kind=kind)
        self.after = after
        self.is_lasting = is_lasting


class TooLarge(SinkError):
    """The request was too big: the same lines in smaller requests may pass (HTTP 413)."""


class Rejected(SinkError):
    """The other side will never take these lines as they are.

    `bad_lines`: indexes of the offending lines where the answer tells them, None where it does not (then bisect).
    `stored`: True when all other lines of the request were stored (a partial write), so only `bad_lines` are lost.
    `dropped`: how many lines the other side says it dropped, where it tells a number.
    """

    def __init__(self, message: str, *, kind: str, bad_lines: Sequence[int] | None = None, stored: bool = False,
                 dropped: int | None = None) -> None:  # fmt: skip
        super().__init__(message, kind=kind)
        self.bad_lines = bad_lines
        self.stored = stored
        self.dropped = dropped
