"""The table of notifiers. A module is imported when its notifier is first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

NOTIFIERS: Mapping[str, tuple[str, str]] = {
    "email": ("alerting.notify.email", "Email"),
    "slack": ("alerting.notify.slack", "Slack"),
    "discord": ("alerting.notify.discord", "Discord"),
    "webhook": ("alerting.notify.webhook", "Webhook"),
    "alertmanager": ("alerting.notify.alertmanager", "Alertmanager"),
    "telegram": ("alerting.notify.telegram", "Telegram"),
    "pagerduty": ("alerting.notify.pagerduty", "PagerDuty"),
    "ntfy": ("alerting.notify.ntfy", "Ntfy"),
    "exec": ("alerting.notify.exec", "Exec"),
    "apprise": ("alerting.notify.apprise", "Apprise"),
}


def notifier_class(kind: str) -> type[Any]:
    """The dataclass of a kind of notifier; its instances satisfy Notifier. Raise KeyError for an unknown kind."""
    module, name = NOTIFIERS[kind]
    found: type[Any] = getattr(importlib.import_module(module), name)
    return found
