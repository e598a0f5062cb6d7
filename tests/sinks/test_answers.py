from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from agent.core.errors import Rejected, Retryable, SinkError, TooLarge
from sinks.answers import error_of, retry_after

LINES = b"m a=1i 1\nm a=oops 2\nm a=3i 3\n"


def error(status: int, body: object = "", headers: dict[str, str] | None = None) -> SinkError:
    return error_of(status, headers or {}, body if isinstance(body, str) else json.dumps(body), LINES)


@pytest.mark.parametrize(
    ("status", "kind", "is_lasting"),
    [(500, "http_500", False), (502, "http_502", False), (503, "http_503", False), (429, "http_429", False),
     (408, "http_408", False), (401, "http_401", True), (403, "http_403", True), (404, "http_404", True),
     (301, "http_301", True), (405, "http_405", True)],
)  # fmt: skip
def test_what_may_pass_later_is_retryable(status: int, kind: str, is_lasting: bool) -> None:
    found = error(status)
    assert isinstance(found, Retryable)
    assert (found.kind, found.is_lasting) == (kind, is_lasting)


def test_413_asks_for_less() -> None:
    assert isinstance(error(413), TooLarge)


@pytest.mark.parametrize(
    ("status", "body", "bad", "stored", "dropped", "why"),
    [
        (400, {"error": "partial write: unable to parse 'm a=oops 2': invalid number dropped=0"}, [1], True, 0,
         "InfluxDB 1 names the line and stores the others"),
        (400, {"error": "partial write: field type conflict: input field \"a\" on measurement \"m\" dropped=1"}, None,
         True, 1, "a type conflict names no line"),
        (400, {"code": "invalid", "message": "unable to parse 'm a=oops 2': invalid number"}, [1], False, None,
         "InfluxDB 2 names the line and stores nothing"),
        (422, {"code": "unprocessable entity", "message": "schema conflict"}, None, False, None, "nothing is named"),
        (400, {"error": "partial write of line protocol occurred", "data": [{"line_number": 2, "error_message": "x"}]},
         [1], True, None, "InfluxDB 3 gives the number"),
        (400, "not json at all", None, False, None, "another server's words"),
        (400, {"error": "unable to parse 'something else': x"}, None, False, None, "a line we did not send"),
    ],
)  # fmt: skip
def test_a_rejection_tells_which_lines_are_bad(
    status: int, body: object, bad: list[int] | None, stored: bool, dropped: int | None, why: str
) -> None:
    found = error(status, body)
    assert isinstance(found, Rejected)
    assert (found.bad_lines, found.stored, found.dropped) == (bad, stored, dropped), why


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("120", 120), ("0", 0), ("-5", 0), ("86400", 600), ("Fri, 20 Nov 2026 12:01:30 GMT", 90), ("soon", None),
     ("nan", None), ("Fri, 20 Nov 2020 12:00:00 GMT", 0)],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date_and_at_most_ten_minutes(value: str, seconds: float | None) -> None:
    now = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
    assert retry_after({"retry-After": value}, now) == seconds
    assert retry_after({}, now) is None


def test_the_text_is_the_sentence_of_the_answer_and_short() -> None:
    assert str(error(503, {"message": "engine:\n  not ready"})) == "HTTP 503: engine: not ready"
    assert len(str(error(500, "x" * 5000))) < 400
