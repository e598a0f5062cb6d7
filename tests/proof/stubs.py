"""Stand-ins for stores that refuse: they answer as InfluxDB's API describes, and keep the lines they took."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.servers.scripted_http import Reply, Request, as_json


@dataclass
class LineStore:
    """Answers a write with the next of `faults`, then as `judge` does: the reply, and which lines it stores."""

    faults: list[Reply] = field(default_factory=list)
    judge: Callable[[list[str]], tuple[Reply, list[str]]] = lambda lines: (Reply(204), lines)
    lines: list[str] = field(default_factory=list)
    asked: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: Request) -> Reply:
        with self._lock:
            self.asked += 1
            if self.faults:
                return self.faults.pop(0)
            reply, stored = self.judge(request.text.splitlines())
            self.lines += stored
            return reply


def refuses_all_naming_one(is_bad: Callable[[str], bool]) -> Callable[[list[str]], tuple[Reply, list[str]]]:
    """InfluxDB 2, 400: the first unparsable line is quoted and nothing of the request is stored."""

    def judge(lines: list[str]) -> tuple[Reply, list[str]]:
        bad = [line for line in lines if is_bad(line)]
        if not bad:
            return Reply(204), lines
        message = f"unable to parse '{bad[0]}': invalid boolean"
        return as_json({"code": "invalid", "message": message}, 400), []

    return judge


def refuses_all_naming_none(is_bad: Callable[[str], bool]) -> Callable[[list[str]], tuple[Reply, list[str]]]:
    """InfluxDB 2, 400 without saying which line."""

    def judge(lines: list[str]) -> tuple[Reply, list[str]]:
        if not any(map(is_bad, lines)):
            return Reply(204), lines
        return as_json({"code": "invalid", "message": "a field does not match the schema"}, 400), []

    return judge


def stores_the_others(is_bad: Callable[[str], bool]) -> Callable[[list[str]], tuple[Reply, list[str]]]:
    """InfluxDB 2, 422: a type conflict; the other lines are stored, only the number of dropped ones is told."""

    def judge(lines: list[str]) -> tuple[Reply, list[str]]:
        good = [line for line in lines if not is_bad(line)]
        if len(good) == len(lines):
            return Reply(204), good
        message = (
            'failure writing points to database: partial write: field type conflict: input field "odd" on measurement '
            f'"poison" is type float, already exists as type string dropped={len(lines) - len(good)}'
        )
        return as_json({"code": "unprocessable entity", "message": message}, 422), good

    return judge


def numbers_the_bad(is_bad: Callable[[str], bool]) -> Callable[[list[str]], tuple[Reply, list[str]]]:
    """InfluxDB 3, 400: the others are stored, the bad ones are told by their number."""

    def judge(lines: list[str]) -> tuple[Reply, list[str]]:
        bad = [number for number, line in enumerate(lines, 1) if is_bad(line)]
        if not bad:
            return Reply(204), lines
        told = [{"line_number": number, "error_message": "x", "original_line": "x"} for number in bad]
        answer = {"error": "partial write of line protocol occurred", "data": told}
        return as_json(answer, 400), [line for line in lines if not is_bad(line)]

    return judge


def takes_at_most(most_bytes: int) -> Callable[[list[str]], tuple[Reply, list[str]]]:
    """413 beyond that many bytes of line protocol."""

    def judge(lines: list[str]) -> tuple[Reply, list[str]]:
        if len("\n".join(lines)) <= most_bytes:
            return Reply(204), lines
        return Reply(413, json.dumps({"code": "request too large", "message": "cannot write"})), []

    return judge
