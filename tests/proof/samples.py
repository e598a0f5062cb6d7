"""What was measured and what a store holds, in one form, so that the two can be compared point by point."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from agent.core.clock import NS, SystemClock
from agent.core.model import Tick
from collectors.influx_line import FieldValue, Point, parse_influx_lines
from sinks.journal import Journal, Limits
from sinks.line_protocol import Encoder
from tests.servers.influxdb1 import InfluxDB1
from tests.servers.victoriametrics import VictoriaMetrics

Tags = tuple[tuple[str, str], ...]
Key = tuple[str, str, Tags, int]  # measurement, field, tags, time in ns
Values = dict[Key, set[FieldValue]]  # more than one: two runs of the agent measured in the same second

_STAMPED = re.compile(r"^[a-z]\S* .* \d{19}$")
_KEEP_ALL = Limits(min_free_bytes=0, max_age=1e10, keep=1e10)
SAME_NAME = frozenset({"timex"})  # a tag and a field of one name, which an InfluxQL answer cannot tell apart


def printed_points(text: str) -> list[Point]:
    """The whole lines that the stdout sink printed, between those of the log."""
    lines = [line for line in text.splitlines() if _STAMPED.match(line)]
    return parse_influx_lines("\n".join(lines).encode(), most_points=10**9) if lines else []


def values_of(points: Iterable[Point]) -> Values:
    values: Values = defaultdict(set)
    for point in points:
        for name, value in point.fields:
            values[point.measurement, name, point.tags, point.time_ns or 0].add(value)
    return values


def add(total: Values, more: Values) -> None:
    for key, values in more.items():
        total.setdefault(key, set()).update(values)


def before_the_last_second(values: Values) -> Values:
    """Without what was measured in the newest second: a crash may take that with it."""
    newest = max((key[3] for key in values), default=0) // NS * NS
    return {key: found for key, found in values.items() if key[3] < newest}


def journaled(state_dir: Path, tags: dict[str, str]) -> Values:
    """Everything that the journal's files hold, from a copy of them: what the agent has accepted."""
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(state_dir / "journal", copy, dirs_exist_ok=True)
        journal = Journal(copy, SystemClock(), _KEEP_ALL)
        encoder, values = Encoder(tags), Values()
        for ticks in _batches(journal):
            add(values, values_of(parse_influx_lines("\n".join(encoder.encode(ticks)).encode(), 10**9)))
        journal.close()
    return values


def _batches(journal: Journal) -> Iterator[list[Tick]]:
    reader = journal.reader("a proof", "oldest")
    while (batch := reader.read()) is not None:
        yield batch.ticks
        reader.commit(batch.next_position)


def without_text(values: Values) -> Values:
    """VictoriaMetrics keeps numbers only."""
    return {key: found for key, found in values.items() if not any(isinstance(value, str) for value in found)}


def in_victoriametrics(store: VictoriaMetrics, match: str) -> dict[tuple[str, Tags, int], float]:
    """Every sample by series name, tags (without the bucket) and ms. Raise AssertionError where one comes twice."""
    found: dict[tuple[str, Tags, int], float] = {}
    for series in store.export(match):
        name = series.labels["__name__"]
        tags = tuple(sorted((k, v) for k, v in series.labels.items() if k not in ("__name__", "db")))
        for second, value in zip(series.times, series.values, strict=True):
            key = name, tags, round(second * 1000)
            assert key not in found, f"{key} is visible twice"
            found[key] = value
    return found


def in_influxdb1(store: InfluxDB1, database: str) -> dict[Key, FieldValue]:
    """Every field of every point. Raise AssertionError where one comes twice."""
    found: dict[Key, FieldValue] = {}
    tag_names = defaultdict(set)
    for row in store.query("SHOW TAG KEYS", database):
        tag_names[row["_measurement"]].add(row["tagKey"])
    for row in store.query("SELECT * FROM /.*/ GROUP BY *", database):
        measurement = row["_measurement"]
        names = tag_names[measurement]
        tags = tuple(sorted((name, row[name]) for name in names if row.get(name)))
        for name, value in row.items():
            if name in names or name in ("time", "_measurement") or value is None:
                continue
            key = measurement, name, tags, row["time"]
            assert key not in found, f"{key} is visible twice"
            found[key] = value
    return found


def missing_in_victoriametrics(wanted: Values, found: dict[tuple[str, Tags, int], float]) -> list[Key]:
    """Points that are not there or have another value than was measured (it keeps twelve decimal digits)."""
    return [
        key
        for key, values in without_text(wanted).items()
        if not _is_one_of(found.get((f"{key[0]}_{key[1]}", key[2], key[3] // 10**6)), values)
    ]


def missing_in_influxdb1(wanted: Values, found: dict[Key, FieldValue]) -> list[Key]:
    return [key for key, values in wanted.items() if key[0] not in SAME_NAME and found.get(key) not in values]


def _is_one_of(value: float | None, wanted: set[FieldValue]) -> bool:
    return value is not None and any(abs(value - float(one)) <= 1e-11 * abs(float(one)) for one in wanted)


def slots(values: Values | Iterable[Point], measurement: str) -> list[int]:
    """The seconds for which a measurement has points, in order."""
    times = (
        (key[3] for key in values if key[0] == measurement)
        if isinstance(values, dict)
        else (point.time_ns or 0 for point in values if point.measurement == measurement)
    )
    return sorted({time // NS for time in times})


def missed(seconds: list[int], skipped: int) -> int:
    """How many slots of a collector that runs each second are missing and were not counted as skipped.

    A machine that is busy with other things makes the agent skip one now and then. Raise AssertionError where half
    of all is missing: that is no busy machine.
    """
    span = seconds[-1] - seconds[0] + 1
    assert 2 * len(seconds) > span, f"only {len(seconds)} of {span} slots"
    return max(0, span - len(seconds) - skipped)
