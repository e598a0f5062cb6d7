"""The names of our notifiers. A class is imported when a receiver uses it."""

from __future__ import annotations

from collections.abc import Mapping

NOTIFIERS: Mapping[str, str] = {
    "email": "alerting.notify.email:Email",
    "slack": "alerting.notify.slack:Slack",
    "discord": "alerting.notify.discord:Discord",
    "webhook": "alerting.notify.webhook:Webhook",
    "alertmanager": "alerting.notify.alertmanager:Alertmanager",
    "telegram": "alerting.notify.telegram:Telegram",
    "pagerduty": "alerting.notify.pagerduty:PagerDuty",
    "ntfy": "alerting.notify.ntfy:Ntfy",
    "exec": "alerting.notify.exec:Exec",
    "apprise": "alerting.notify.apprise:Apprise",
}
GROUP = "vigilhost.notifiers"  # the entry-point group in which other packages offer more
