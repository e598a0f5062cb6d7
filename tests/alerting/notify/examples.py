"""Notifications as they come in practice, and as they come at worst."""

from __future__ import annotations

from dataclasses import replace

from agent.core.labels import labels_of
from alerting.notify.message import Alert, DigestEntry, DigestNote, Notification
from tests.alerting.pictures import T0, alert

DISK = Alert(
    labels_of({"alertname": "DiskFull", "instance": "db1", "severity": "critical", "mountpoint": "/var/lib"}),
    labels_of({
        "summary": "/var/lib on db1 is 97% full",
        "description": "At this rate it is full in 3 hours.\nLook for what grows: du -xh /var/lib | sort -h | tail",
        "query": "vigilhost query 'node_filesystem_avail_bytes{mountpoint=\"/var/lib\"}'",
        "runbook_url": "https://runbooks.example.com/disk-full",
    }),
    starts_at=T0 - 725,
    value=97.1234567,
    generator_url="http://127.0.0.1:9811/graph?g0.expr=x",
)  # fmt: skip
HOSTILE = '<script>alert("x")</script> & @everyone <!channel> \r\nBcc: x@example.com \u2028 😀'

FIRING = Notification(
    "ops", '{}:{alertname="DiskFull"}', (DISK, alert("DiskFull", T0 - 60, instance="db2", severity="critical")), T0,
    labels_of({"alertname": "DiskFull"}), "http://127.0.0.1:9811", source="db1", sent_at=T0 + 5, message_id="7f3a",
    reason="2 new",
)  # fmt: skip
RESOLVED = replace(
    FIRING, alerts=tuple(one.resolved(T0 + 60) for one in FIRING.alerts), at=T0 + 61, reason="2 resolved"
)
HUGE = replace(
    FIRING,
    alerts=tuple(
        Alert(labels_of({"alertname": HOSTILE, "instance": f"host{index}"}), (("summary", (HOSTILE + "&" * 5) * 40),),
              starts_at=T0) for index in range(300)
    ),
)  # fmt: skip
DIGEST = Notification(
    "ops", "{}:digest", (replace(DISK, is_flapping=True),), T0, kind="digest", reason="daily summary",
    entries=(
        DigestEntry(replace(DISK, is_flapping=True), fired=3, resolved=2, first_at=T0 - 7000),
        DigestEntry(alert("HighLoad", T0 - 5000, instance="db2").resolved(T0 - 4000), 1, 1, T0 - 5000),
    ),
    notes=(
        DigestNote(T0, True, "backup etc: 12.3MiB in 4s, verified"),
        DigestNote(T0, False, "backup db: no space left"),
    ),
)  # fmt: skip
LONG_DIGEST = replace(
    DIGEST, entries=tuple(DigestEntry(alert("HighLoad", T0, instance=f"host{index}"), fired=1) for index in range(300))
)
MANY = replace(FIRING, alerts=tuple(replace(DISK, labels=(("instance", f"host{index}"),)) for index in range(60)))
