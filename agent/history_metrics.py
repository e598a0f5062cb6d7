"""History's own health as a Group; apart, so that naming it does not import the store."""

from __future__ import annotations

from agent.core.model import Group, counter, gauge

HISTORY = Group("vigilhost_history", (
    gauge("series", "count", "Series remembered.", influx="series", prom="vigilhost_history_series"),
    gauge("head_samples", "count", "Samples in memory.", influx="head_samples",
          prom="vigilhost_history_head_samples"),
    gauge("disk_bytes", "bytes", "Disk space of the history file, as of its last write.", influx="disk_bytes",
          prom="vigilhost_history_disk_bytes"),
    gauge("failing", "bool", "Whether the disk refused the last write.", influx="failing", type=bool,
          prom="vigilhost_history_failing"),
    counter("lost_rows", "count", "Rows that left memory before the disk took them.", influx="lost_rows",
            prom="vigilhost_history_lost_rows_total"),
    counter("refused_series", "count", "Series beyond the most that are remembered.", influx="refused_series",
            prom="vigilhost_history_refused_series_total"),
))  # fmt: skip
