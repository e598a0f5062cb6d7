"""Alertmanager: alerts as Prometheus sends them, to each of several, again and again while they fire."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from agent.core.errors import Rejected, Retryable
from agent.core.labels import Labels
from agent.core.options import option, required
from agent.core.secrets import Secret
from agent.core.units import Seconds
from alerting.notify.http import check, post_json
from alerting.notify.message import Alert, Notification, SentReceipt
from alerting.notify.payload import rfc3339

_AT_ONCE = 64  # alerts in one request, as Prometheus' own queue has it
_SLACK_S = 24 * 3600.0  # for a message that could not be delivered in time


@dataclass(slots=True)
class Alertmanager:
    """It groups and silences by itself, so a rule engine may `forward` to it each `resend`, past our own routes."""

    urls: list[str] = required("Each Alertmanager of a cluster.", example="[http://alertmanager:9093]")
    bearer_token: Secret = option(Secret(""), "Token for `Authorization: Bearer`.")
    resend: Seconds = option(60.0, "How often a firing alert is sent again.", minimum=1.0)
    ca_file: str = option("", "Certificate authority to trust instead of the system's.")
    deadline: Seconds = option(15.0, "Longest time for one request.", minimum=1.0)

    external_labels: Labels = ()  # no option of its own: added to every alert that has none of that name
    kind: ClassVar[str] = "alertmanager"
    can_summarize: ClassVar[bool] = False

    def send(self, notification: Notification, previous: str | None) -> SentReceipt:  # noqa: ARG002
        # it comes back with its repeat interval at the latest; until then it must not end by itself
        lasts = notification.repeat_interval + _SLACK_S
        return self.forward(notification.alerts, notification.sent_at or notification.at, lasts=lasts)

    def forward(
        self, alerts: Iterable[Alert], now: float, interval: float = 0.0, lasts: float | None = None
    ) -> SentReceipt:
        """Send to all, each on its own; one that takes them is enough, the others get them at the next resend.

        A firing alert ends by itself 4 x max(`interval` of its rules, resend) after `now`, or after `lasts` seconds.
        """
        ends_in = 4 * max(interval, self.resend) if lasts is None else lasts
        posts = [post_alert(alert, now + ends_in, self.external_labels) for alert in alerts]
        failures: list[Retryable | Rejected] = []
        for url in self.urls:
            try:
                self._post_all(url, posts)
            except (Retryable, Rejected) as error:
                failures.append(error)
        if len(failures) < len(self.urls):
            missed = f"; {'; '.join(map(str, failures))}" if failures else ""
            return SentReceipt(detail=f"{len(self.urls) - len(failures)} of {len(self.urls)} took it{missed}")
        raise next((error for error in failures if isinstance(error, Retryable)), failures[0])

    def preview(self, notification: Notification) -> str:
        ends_at = notification.at + 4 * self.resend
        posts = [post_alert(alert, ends_at, self.external_labels) for alert in notification.alerts]
        return json.dumps(posts, indent=2, ensure_ascii=False)

    def _post_all(self, url: str, posts: list[dict[str, Any]]) -> None:
        headers = {"Authorization": f"Bearer {self.bearer_token.reveal()}"} if self.bearer_token else {}
        for start in range(0, len(posts), _AT_ONCE):
            answer = post_json(
                f"{url.rstrip('/')}/api/v2/alerts", posts[start : start + _AT_ONCE], self.deadline, headers,
                ca_file=self.ca_file,
            )  # fmt: skip
            check("alertmanager", answer, (self.bearer_token,))


def post_alert(alert: Alert, ends_at: float, external_labels: Labels = ()) -> dict[str, Any]:
    """One alert as the API takes it. `ends_at`: when it ends unless it is sent again."""
    return {
        "labels": dict(external_labels) | dict(alert.labels),
        "annotations": dict(alert.annotations),
        "startsAt": rfc3339(alert.starts_at),
        "endsAt": rfc3339(ends_at if alert.ends_at is None else alert.ends_at),
        "generatorURL": alert.generator_url,
    }
