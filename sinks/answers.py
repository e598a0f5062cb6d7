"""What an HTTP answer to a write means: docs/delivery.md has the table.

InfluxDB 1.x, 2.x and 3 and VictoriaMetrics agree on the status codes, not on the texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from agent.core.errors import Rejected, Retryable, SinkError, TooLarge

LONGEST_RETRY_AFTER_S = 600.0
_LASTING = {
    401: "the token or password is not accepted",
    403: "the token may not write here",
    404: "no such bucket, database or path",
}
_DROPPED = re.compile(r"dropped=(\d+)")
_UNPARSABLE = re.compile(r"unable to parse '(.*?)': ", re.DOTALL)
_TEXT_SHOWN = 300


def error_of(
    status: int, headers: Mapping[str, str], body: str, lines: bytes, now: datetime | None = None
) -> SinkError:
    """The error for an answer that is not 2xx. `lines`: what was sent; `now`: for a Retry-After that is a date."""
    text = f"HTTP {status}: {_message_of(body)}" if body else f"HTTP {status}"
    kind = f"http_{status}"
    if status == 413:
        return TooLarge(text, kind=kind)
    if status in (400, 422):
        return _rejected(text, kind, body, lines)
    if status in _LASTING:
        return Retryable(f"{text} ({_LASTING[status]})", kind=kind, is_lasting=True)
    if status in (408, 425, 429) or status >= 500:
        return Retryable(text, kind=kind, after=retry_after(headers, now))
    return Retryable(f"{text} (not an answer to a write; look at the url)", kind=kind, is_lasting=True)


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3: seconds or a date), at most ten minutes; None without one."""
    value = next((headers[name] for name in headers if name.lower() == "retry-after"), None)
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - (now or datetime.now(UTC))).total_seconds()
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S) if seconds == seconds else None


def _message_of(body: str) -> str:
    """The sentence inside a JSON error, else the body; shortened."""
    try:
        answer = json.loads(body)
    except ValueError:
        text = body
    else:
        text = str(answer.get("message") or answer.get("error") or body) if isinstance(answer, dict) else body
    text = " ".join(text.split())
    return text if len(text) <= _TEXT_SHOWN else f"{text[:_TEXT_SHOWN]}..."


def _rejected(text: str, kind: str, body: str, lines: bytes) -> Rejected:
    is_partial = "partial write" in body  # the good lines of the request are stored
    dropped = _DROPPED.search(body)
    return Rejected(
        text,
        kind=kind,
        bad_lines=_named_lines(body, lines),
        stored=is_partial,
        dropped=int(dropped[1]) if dropped else None,
    )


def _named_lines(body: str, lines: bytes) -> Sequence[int] | None:
    """Indexes of the lines the answer names: by number (InfluxDB 3) or by their text (1.x); None when it names none."""
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    if not isinstance(answer, dict):
        return None
    data = answer.get("data")
    if isinstance(data, list):
        numbers = [item.get("line_number") for item in data if isinstance(item, dict)]
        if numbers and all(isinstance(number, int) and number > 0 for number in numbers):
            return [int(number) - 1 for number in numbers if number]
    named = set(_UNPARSABLE.findall(str(answer.get("error") or answer.get("message") or "")))
    if not named:
        return None
    found = [at for at, line in enumerate(lines.decode("utf-8", "replace").splitlines()) if line in named]
    # A line the answer shortened is not found by its text: then every line has to be looked at.
    return found if len(found) >= len(named) else None
