"""Backups as Groups; apart, so that naming them does not import what makes backups.

A timestamp of 0 says never: a series that were absent then would be taken for a healthy one.
"""

from __future__ import annotations

from agent.core.model import Group, gauge

STATES = ("ok", "warn", "fail", "never")

JOB = Group("vigilhost_backup", (
    gauge("rpo_age_seconds", "seconds", "Age of the newest good copy on any target; before the first one, time since "
          "the job was first seen.", influx="rpo_age_seconds", prom="vigilhost_backup_rpo_age_seconds"),
    gauge("rpo_target_seconds", "seconds", "Oldest that the newest good copy may be, where the job says so.",
          influx="rpo_target_seconds", prom="vigilhost_backup_rpo_target_seconds"),
    gauge("rto_measured_seconds", "seconds", "Duration of the last restore drill that passed.",
          influx="rto_measured_seconds", prom="vigilhost_backup_rto_measured_seconds"),
    gauge("rto_target_seconds", "seconds", "Longest that a restore may take, where the job says so.",
          influx="rto_target_seconds", prom="vigilhost_backup_rto_target_seconds"),
    gauge("last_drill_timestamp_seconds", "seconds", "Unix time of the last restore drill that passed, 0: never; only "
          "of jobs with drills.", influx="last_drill_timestamp_seconds",
          prom="vigilhost_backup_last_drill_timestamp_seconds"),
    gauge("duration_seconds", "seconds", "Duration of the last run.", influx="duration_seconds",
          prom="vigilhost_backup_duration_seconds"),
), ("job",))  # fmt: skip
TARGET = Group("vigilhost_backup_target", (
    gauge("last_success_timestamp_seconds", "seconds", "Unix time at which the newest complete copy was finished, 0: "
          "never.", influx="last_success_timestamp_seconds", prom="vigilhost_backup_last_success_timestamp_seconds"),
    gauge("last_verified_timestamp_seconds", "seconds", "Unix time at which a copy was last verified, 0: never.",
          influx="last_verified_timestamp_seconds", prom="vigilhost_backup_last_verified_timestamp_seconds"),
    gauge("size_bytes", "bytes", "Size of the newest copy as it is stored.", influx="size_bytes",
          prom="vigilhost_backup_size_bytes"),
), ("job", "target"))  # fmt: skip
STATE = Group("vigilhost_backup_state", (
    gauge("status", "bool", "1 for the state that the last run of the job left it in, 0 for the others.",
          influx="status", prom="vigilhost_backup_status", type=bool),
), ("job", "state"))  # fmt: skip
GROUPS = (JOB, TARGET, STATE)
