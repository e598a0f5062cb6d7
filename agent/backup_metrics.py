"""Backups as Groups; apart, so that naming them does not import what makes backups.

A timestamp of 0 says never: a series that were absent then would be taken for a healthy one.
"""

from __future__ import annotations

from agent.core.model import Field, Group, gauge

STATES = ("ok", "warn", "fail", "never")


def _own(name: str, unit: str, help: str, type: type = float) -> Field:
    """A gauge with one name in both dialects."""
    return gauge(name, unit, help, type=type, influx=name, prom=f"vigilhost_backup_{name}")


JOB = Group("vigilhost_backup", (
    _own("rpo_age_seconds", "seconds", "Age of the newest good copy on any target; before the first one, time since "
         "the job was first seen."),
    _own("rpo_target_seconds", "seconds", "Oldest that the newest good copy may be; where the job does not say, twice "
         "the longest time between two of its runs."),
    _own("rto_measured_seconds", "seconds", "Duration of the last restore drill that passed."),
    _own("rto_target_seconds", "seconds", "Longest that a restore may take, where the job says so."),
    _own("last_drill_timestamp_seconds", "seconds", "Unix time of the last restore drill that passed, 0: never; only "
         "of jobs with drills."),
    _own("drill_age_seconds", "seconds", "Time since a restore drill last passed; before one did, since the job was "
         "first seen with drills."),
    _own("drill_age_target_seconds", "seconds", "Longest that may be: a fifth more than the longest time between two "
         "drills; of jobs that are drilled by themselves."),
    _own("drill_passed", "bool", "Whether the last restore drill that could be done passed, once there was one.", bool),
    _own("drill_done", "bool", "Whether the last restore drill could be done, whatever it found; 0 where a key, the "
         "helper or room was missing.", bool),
    _own("duration_seconds", "seconds", "Duration of the last run."),
    _own("next_run_timestamp_seconds", "seconds", "Unix time of the next run; of jobs that will run by themselves."),
    _own("running", "bool", "Whether the job or its drill runs now.", bool),
), ("job",))  # fmt: skip
TARGET = Group("vigilhost_backup_target", (
    _own("last_success_timestamp_seconds", "seconds", "Unix time at which the newest complete copy was finished, 0: "
         "never."),
    _own("last_verified_timestamp_seconds", "seconds", "Unix time at which a copy was last verified, 0: never."),
    _own("size_bytes", "bytes", "Size of the newest copy as it is stored."),
    _own("expected_bytes", "bytes", "Size that the next copy will probably have: a tenth more than the largest of the "
         "last three."),
    _own("free_bytes", "bytes", "Free space on the target, where it can say; after the last run, and of a directory "
         "every 15 minutes."),
), ("job", "target"))  # fmt: skip
STATE = Group("vigilhost_backup_state", (
    _own("status", "bool", "1 for the state that the last run of the job left it in, 0 for the others.", bool),
), ("job", "state"))  # fmt: skip
GROUPS = (JOB, TARGET, STATE)
