"""Alerting's own health as Groups; apart, so that naming them does not import the rule engine."""

from __future__ import annotations

from agent.core.model import Group, counter, gauge

ALERTING = Group("vigilhost_alerting", (
    gauge("rules", "count", "Rules in force.", influx="rules", prom="vigilhost_alerting_rules"),
    gauge("failing_rules", "count", "Rules whose last evaluation failed.", influx="failing_rules",
          prom="vigilhost_alerting_failing_rules"),
    gauge("firing", "count", "Alerts that fire.", influx="firing", prom="vigilhost_alerting_firing"),
    gauge("pending", "count", "Alerts that are pending.", influx="pending", prom="vigilhost_alerting_pending"),
    gauge("evaluation_seconds", "seconds", "Duration of the last evaluation of all groups together.",
          influx="evaluation_seconds", prom="vigilhost_alerting_evaluation_seconds"),
    counter("rule_failures", "count", "Evaluations of rules that failed.", influx="rule_failures",
            prom="vigilhost_alerting_rule_failures_total"),
    counter("missed_evaluations", "count", "Evaluations of groups that never took place.",
            influx="missed_evaluations", prom="vigilhost_alerting_missed_evaluations_total"),
    gauge("queued", "count", "Messages that wait.", influx="queued", prom="vigilhost_alerting_queued_messages"),
    gauge("memory_only", "bool", "Whether the disk refused alerting's file, so that a restart would forget.",
          type=bool, influx="memory_only", prom="vigilhost_alerting_memory_only"),
))  # fmt: skip
RECEIVER = Group("vigilhost_receiver", (
    counter("sent", "count", "Messages taken by the receiver.", influx="sent", prom="vigilhost_receiver_sent_total"),
    counter("refused", "count", "Messages the receiver will never take.", influx="refused",
            prom="vigilhost_receiver_refused_total"),
    counter("failures", "count", "Tries that failed and are repeated.", influx="failures",
            prom="vigilhost_receiver_failures_total"),
    gauge("failing", "bool", "Whether the last try failed.", type=bool, influx="failing",
          prom="vigilhost_receiver_failing"),
), ("receiver",))  # fmt: skip
GROUPS = (ALERTING, RECEIVER)
