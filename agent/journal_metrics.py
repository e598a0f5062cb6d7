"""The journal's own health as readings, and as /health shows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agent.core.model import Group, Reading, counter, gauge
from sinks.journal import Journal

JOURNAL = Group("vigilhost_journal", (
    gauge("bytes", "bytes", "Disk space the journal uses.", influx="bytes", prom="vigilhost_journal_bytes"),
    gauge("segments", "count", "Files of the journal.", influx="segments", prom="vigilhost_journal_segments"),
    gauge("waiting_records", "count", "Records in memory, not written yet.", influx="waiting_records",
          prom="vigilhost_journal_waiting_records"),
    gauge("failing", "bool", "Whether the disk refused the last write, or has not answered for 10 s.",
          influx="failing", type=bool, prom="vigilhost_journal_failing"),
    counter("appended_records", "count", "Records appended.", influx="appended_records",
            prom="vigilhost_journal_appended_records_total"),
    counter("appended_points", "count", "Readings appended.", influx="appended_points",
            prom="vigilhost_journal_appended_points_total"),
    counter("written_bytes", "bytes", "Bytes written, compressed files included.", influx="written_bytes",
            prom="vigilhost_journal_written_bytes_total"),
    counter("dropped_records", "count", "Records gone before every sink had them: caps, or memory full.",
            influx="dropped_records", prom="vigilhost_journal_dropped_records_total"),
    counter("dropped_points", "count", "Readings gone before every sink had them.", influx="dropped_points",
            prom="vigilhost_journal_dropped_points_total"),
    counter("damaged_records", "count", "Records found unreadable.", influx="damaged_records",
            prom="vigilhost_journal_damaged_records_total"),
    counter("set_aside_files", "count", "Files set aside because they could not be read.", influx="set_aside_files",
            prom="vigilhost_journal_set_aside_files_total"),
    counter("errors", "count", "Calls the file system refused.", influx="errors",
            prom="vigilhost_journal_errors_total"),
))  # fmt: skip
CURSOR = Group("vigilhost_journal_reader", (
    gauge("lag_records", "count", "Records the reader has not had.", influx="lag_records",
          prom="vigilhost_journal_reader_lag_records"),
    gauge("lag_bytes", "bytes", "Size of those on disk.", influx="lag_bytes",
          prom="vigilhost_journal_reader_lag_bytes"),
    gauge("oldest_age_seconds", "seconds", "Age of the oldest of those.", influx="oldest_age_seconds",
          prom="vigilhost_journal_reader_oldest_age_seconds"),
    counter("lost_records", "count", "Records dropped before this reader had them.", influx="lost_records",
            prom="vigilhost_journal_reader_lost_records_total"),
), ("reader",))  # fmt: skip
GROUPS = (JOURNAL, CURSOR)


def readings(journal: Journal) -> Iterator[Reading]:
    """One reading of the journal and one a reader of it."""
    stats = journal.stats
    tally = stats.tally
    yield JOURNAL.row((), (
        stats.bytes, stats.segments, stats.waiting_records, stats.is_failing, tally.appended_records,
        tally.appended_points, tally.written_bytes + tally.packed_bytes, tally.dropped_records, tally.dropped_points,
        tally.damaged_records, len(tally.set_aside), sum(tally.errors.values()),
    ))  # fmt: skip
    for name, state in sorted(stats.cursors.items()):
        lag = state.lag
        yield CURSOR.row((name,), (lag.records, lag.bytes, lag.oldest_age_s, state.lost_records))


def summary(journal: Journal) -> dict[str, Any]:
    """For /health and `vigilhost journal status`."""
    stats = journal.stats
    tally = stats.tally
    return {
        "state": "failing" if stats.is_failing else "ok",
        "bytes": stats.bytes,
        "segments": stats.segments,
        "waiting_records": stats.waiting_records,
        "dropped_records": tally.dropped_records,
        "dropped_points": tally.dropped_points,
        "damaged_records": tally.damaged_records,
        "set_aside": tally.set_aside,
        "newer": tally.newer,
        "errors": dict(tally.errors),
        "readers": {
            name: {
                "lag_records": state.lag.records,
                "lag_bytes": state.lag.bytes,
                "oldest_age_s": round(state.lag.oldest_age_s, 1),
                "lost_records": state.lost_records,
                "damaged_records": state.damaged_records,
            }
            for name, state in sorted(stats.cursors.items())
        },
    }
