"""What must be true of something that was restored, and whether it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from agent.core.clock import NS, SystemClock
from agent.core.options import option
from agent.core.units import Percent, Seconds, format_duration
from backup.errors import BackupError, Refused

Query = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Assertion:
    """What must be true of what a drill restored; write at least one of them."""

    archive: str | None = option(None, "Archive it is about; null: the first, or only one.")
    sql: str | None = option(
        None, "Query that gives one value; alone, it must be true.", example="SELECT count(*) > 0 FROM users"
    )
    equals: str | None = option(None, "What `sql` gives.")
    min_rows: dict[str, int] = option(dict, "Table to the least number of its rows.", example="{users: 1000}")
    newest_within: dict[str, Seconds] = option(
        dict, "`table.column` to the most time since its newest value.", example="{orders.created_at: 26h}"
    )
    tolerance: Percent | None = option(None, "Most that row counts differ from the estimates of the manifest.")
    file_exists: list[str] = option(list, "Paths inside what was restored.", example="[etc/passwd]")

    def __post_init__(self) -> None:
        if not (self.sql or self.min_rows or self.newest_within or self.tolerance is not None or self.file_exists):
            raise ValueError("asserts nothing; write sql, min_rows, newest_within, tolerance or file_exists")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One thing that was looked at: whether it is as asserted, and what was found."""

    assertion: str
    is_met: bool
    found: str = ""


def judge(assertion: Assertion, *, now: float, query: Query | None = None, root: str | None = None,
          estimates: Mapping[str, int] | None = None) -> list[Outcome]:  # fmt: skip
    """Look at what was restored: `query` gives the first value of a statement as text, `root` is the directory.

    What cannot be looked at, because there is no database or no directory, is not met.
    """
    return [_outcome(text, look) for text, look in _questions(assertion, now, query, root, estimates or {})]


def judge_all(assertions: Iterable[Assertion], *, query: Query | None = None, root: str | None = None,
              estimates: Mapping[str, int] | None = None) -> list[Outcome]:  # fmt: skip
    """Each of them as `judge` does, at this moment."""
    now = SystemClock().wall_ns() / NS
    return [found for one in assertions for found in judge(one, now=now, query=query, root=root, estimates=estimates)]


_Look = Callable[[], tuple[bool, str]]


def _outcome(text: str, look: _Look) -> Outcome:
    try:
        is_met, found = look()
    except (BackupError, ValueError, OSError) as error:
        return Outcome(text, is_met=False, found=str(error))
    return Outcome(text, is_met, found)


def _questions(assertion: Assertion, now: float, query: Query | None, root: str | None,
               estimates: Mapping[str, int]) -> Iterator[tuple[str, _Look]]:  # fmt: skip
    ask = query if query is not None else _no_database
    if assertion.sql is not None:
        wanted = assertion.equals
        yield (f"{assertion.sql} = {wanted if wanted is not None else 'true'}",
               lambda: _equals(ask(assertion.sql or ""), wanted))  # fmt: skip
    for table, least in assertion.min_rows.items():
        yield f"{table} has at least {least} rows", lambda table=table, least=least: _at_least(ask, table, least)  # type: ignore[misc]
    for column, most in assertion.newest_within.items():
        text = f"the newest {column} is no older than {format_duration(most)}"
        yield text, lambda column=column, most=most: _newest(ask, column, most, now)  # type: ignore[misc]
    if assertion.tolerance is not None:
        for table, rows in estimates.items():
            text = f"{table} has {rows} rows, give or take {assertion.tolerance:g}%"
            yield text, lambda table=table, rows=rows: _near(ask, table, rows, assertion.tolerance or 0.0)  # type: ignore[misc]
        if not estimates:
            yield "row counts are near their estimates", lambda: (False, "the manifest has no estimates")
    for path in assertion.file_exists:
        yield f"{path} exists", lambda path=path: _exists(root, path)  # type: ignore[misc]


def _no_database(_: str) -> str | None:
    raise Refused("what was restored is no database; assert file_exists")


def _equals(value: str | None, wanted: str | None) -> tuple[bool, str]:
    found = "null" if value is None else value
    if wanted is None:
        return found.lower() in ("1", "t", "true"), found
    return value is not None and value == wanted, found


def quoted(name: str) -> str:
    """`schema.table` as SQL identifiers; quotes inside are doubled."""
    return ".".join('"' + word.replace('"', '""') + '"' for word in name.split("."))


def _count(ask: Query, table: str) -> int:
    return int(ask(f"SELECT count(*) FROM {quoted(table)}") or 0)  # noqa: S608 - quoted


def _at_least(ask: Query, table: str, least: int) -> tuple[bool, str]:
    rows = _count(ask, table)
    return rows >= least, f"{rows} rows"


def _near(ask: Query, table: str, expected: int, tolerance: float) -> tuple[bool, str]:
    rows = _count(ask, table)
    return abs(rows - expected) <= expected * tolerance / 100, f"{rows} rows"


def _newest(ask: Query, column: str, most_s: float, now: float) -> tuple[bool, str]:
    table, _, name = column.rpartition(".")
    if not table:
        raise Refused(f"{column}: write it as table.column")
    value = ask(f"SELECT max({quoted(name)}) FROM {quoted(table)}")  # noqa: S608 - quoted
    if value is None:
        return False, "no rows"
    return now - moment(value) <= most_s, value


def moment(text: str) -> float:
    """Unix seconds of a database's time: ISO 8601 (UTC where it names no zone) or a number. Raise ValueError."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"{text[:60]!r} is no time") from None
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


def _exists(root: str | None, path: str) -> tuple[bool, str]:
    if root is None:
        raise Refused("what was restored is no directory; assert sql")
    words = [word for word in path.split("/") if word not in ("", ".")]
    if ".." in words:
        raise Refused(f"{path}: leads outside")
    found = os.path.join(root, *words)
    return os.path.lexists(found), "there" if os.path.lexists(found) else "not there"
