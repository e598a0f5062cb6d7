"""Slack, Discord, Telegram, PagerDuty and ntfy against strict stand-ins."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import pytest

from agent.core.errors import Rejected, Retryable
from agent.core.secrets import Secret
from alerting.notify.discord import Discord
from alerting.notify.message import Notification, Notifier
from alerting.notify.ntfy import Ntfy
from alerting.notify.pagerduty import PagerDuty, dedup_key
from alerting.notify.slack import Slack, slack_message
from alerting.notify.telegram import Telegram
from alerting.notify.webhook import Webhook
from tests.alerting.notify.examples import DIGEST, FIRING, HUGE, LONG_DIGEST, MANY, RESOLVED
from tests.alerting.notify.stubs import (
    DiscordStub,
    NtfyStub,
    PagerDutyStub,
    SlackStub,
    Stub,
    TelegramStub,
    told,
)
from tests.servers.process import free_port

CANARY = "s3cr3t-canary"
Make = Callable[[str], Notifier]
MAKERS: dict[str, tuple[type[Stub], Make]] = {
    "slack webhook": (SlackStub, lambda url: Slack(webhook_url=Secret(f"{url}/services/{CANARY}"))),
    "slack bot": (SlackStub, lambda url: Slack(bot_token=Secret("xoxb-secret"), channel="#a", api_url=f"{url}/api")),
    "discord": (DiscordStub, lambda url: Discord(Secret(f"{url}/api/webhooks/1/{CANARY}"))),
    "telegram": (TelegramStub, lambda url: Telegram(Secret("123:secret"), "-100", api_url=url)),
    "pagerduty": (PagerDutyStub, lambda url: PagerDuty(Secret("R" * 32), api_url=f"{url}/v2/enqueue")),
    "ntfy": (NtfyStub, lambda url: Ntfy("my-hosts", url, Secret("tk_secret"))),
    "webhook": (Stub, lambda url: Webhook(Secret(f"{url}/{CANARY}"))),
}


@pytest.fixture(params=MAKERS)
def service(request: pytest.FixtureRequest) -> Iterator[tuple[Stub, Notifier]]:
    stub_class, make = MAKERS[request.param]
    stub = stub_class()
    with stub.serving():
        yield stub, make(stub.url)


def served(name: str) -> tuple[Any, Make]:
    stub_class, make = MAKERS[name]
    return stub_class(), make


@pytest.mark.parametrize(
    "note",
    [FIRING, RESOLVED, HUGE, MANY, DIGEST, LONG_DIGEST],
    ids=["firing", "resolved", "huge and hostile", "many", "digest", "long digest"],
)
def test_every_notification_keeps_within_the_services_limits(
    service: tuple[Stub, Notifier], note: Notification
) -> None:
    stub, notifier = service
    notifier.send(note, None)
    assert stub.calls
    assert "DiskFull" in notifier.preview(FIRING)


@pytest.mark.parametrize(
    ("reply", "after"),
    [
        ((429, {"Retry-After": "17"}, b""), 17.0),
        ((429, {"X-RateLimit-Reset-After": "1.5"}, b'{"message": "limited", "retry_after": 1.5}'), 1.5),
        (told({"ok": False, "parameters": {"retry_after": 9}}, 429), 9.0),
        ((429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, b""), 0.0),
        ((503, {}, b"<html>"), None),
        ((500, {"Retry-After": "soon"}, b"[]"), None),
        ((408, {}, b""), None),
    ],
)
def test_what_may_pass_is_retryable(service: tuple[Stub, Notifier], reply: Any, after: float | None) -> None:
    stub, notifier = service
    stub.next_replies.append(reply)
    with pytest.raises(Retryable) as caught:
        notifier.send(FIRING, None)
    assert caught.value.after == after


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 410])
def test_what_will_not_pass_is_rejected_without_showing_a_secret(service: tuple[Stub, Notifier], status: int) -> None:
    stub, notifier = service
    values = (getattr(notifier, field.name) for field in fields(notifier))  # type: ignore[arg-type]
    secrets = [value.reveal().rpartition("/")[2] for value in values if isinstance(value, Secret) and value]
    assert secrets
    stub.next_replies.append((status, {"Location": "/elsewhere"}, f"no such {' '.join(secrets)}".encode()))
    with pytest.raises(Rejected, match=f"http status {status}: no such") as caught:
        notifier.send(FIRING, None)
    assert (caught.value.kind, len(stub.calls)) == (f"http_{status}", 1)
    assert not [secret for secret in secrets if secret in str(caught.value)]


def test_errors_of_the_network_are_retryable_and_show_only_the_host() -> None:
    for name, (_, make) in MAKERS.items():
        with pytest.raises(Retryable, match=r"^127.0.0.1: connection refused$") as caught:
            make(f"http://127.0.0.1:{free_port()}").send(FIRING, None)
        assert (caught.value.__cause__, caught.value.__suppress_context__) == (None, True), name


def test_a_server_that_never_ends_its_answer_is_left_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = threading.Event()

        def trickle() -> None:
            connection, _ = listener.accept()
            connection.recv(65536)
            done.wait(20)
            connection.close()

        thread = threading.Thread(target=trickle)
        thread.start()
        hook = Webhook(Secret(f"http://127.0.0.1:{listener.getsockname()[1]}/"), deadline=0.2)
        with pytest.raises(Retryable, match="no answer in time"):
            hook.send(FIRING, None)
        done.set()
        thread.join()


def test_an_address_that_is_none_is_rejected() -> None:
    with pytest.raises(Rejected, match="not an http address"):
        Webhook(Secret("ftp://example.com/x")).send(FIRING, None)


def test_slacks_bot_turns_its_message_green_and_says_so_in_the_thread() -> None:
    stub, make = served("slack bot")
    with stub.serving():
        bot = make(stub.url)
        first = bot.send(FIRING, None)
        assert first.provider_id == "C1 1700000000.000000 #a"
        receipt = bot.send(RESOLVED, first.provider_id)
        assert receipt.provider_id == first.provider_id
    (root, reply) = stub.messages.values()
    assert (root["attachments"][0]["color"], root["text"]) == ("#1e8449", "[RESOLVED] DiskFull critical")
    assert (reply["thread_ts"], reply["reply_broadcast"]) == ("1700000000.000000", False)


def test_slacks_bot_posts_anew_when_its_message_was_deleted() -> None:
    stub, make = served("slack bot")
    with stub.serving():
        assert make(stub.url).send(RESOLVED, "C1 1.0 #a").provider_id == "C1 1700000000.000000 #a"


@pytest.mark.parametrize("error", ["channel_not_found", "not_in_channel", "is_archived", "cant_update_message"])
@pytest.mark.parametrize("step", [0, 1], ids=["update", "reply"])
def test_slacks_bot_posts_anew_when_its_message_takes_nothing_more(step: int, error: str) -> None:
    stub, make = served("slack bot")
    with stub.serving():
        bot = make(stub.url)
        first = bot.send(FIRING, None).provider_id
        taken = [(200, {}, b'{"ok": true, "channel": "C1", "ts": "1700000000.000000"}')] * step
        stub.next_replies += [*taken, told({"ok": False, "error": error})]
        assert bot.send(FIRING, first).detail == "posted"
    assert stub.calls[-1].json()["channel"] == "#a"


def test_slacks_bot_posts_anew_when_it_was_given_another_channel() -> None:
    stub, _ = served("slack bot")
    with stub.serving():
        for channel in ("#a", "#b"):
            bot = Slack(bot_token=Secret("xoxb-secret"), channel=channel, api_url=f"{stub.url}/api")
            assert bot.send(FIRING, "C1 1700000000.000000 #a" if channel == "#b" else None).detail == "posted"
    assert [call.json()["channel"] for call in stub.calls] == ["#a", "#b"]


def test_slack_leaves_out_whole_alerts_and_whole_lines_and_counts_them() -> None:
    def texts(note: Notification) -> list[str]:
        (attachment,) = slack_message(note)["attachments"]
        return [block["text"]["text"] for block in attachment["blocks"]]

    *alerts, last = texts(MANY)[1:]
    assert all(text.startswith("FIRING: /var/lib on db1") for text in alerts)
    assert last == f"... and {60 - len(alerts)} more"
    assert len(alerts) > 20
    lines = texts(LONG_DIGEST)[1].splitlines()
    assert lines[-1] == f"... and {300 + 1 - len(lines[:-1])} more"
    assert lines[-2].endswith(")")


@pytest.mark.parametrize(("error", "kind"), [("ratelimited", Retryable), ("channel_not_found", Rejected)])
def test_slacks_errors_come_with_status_200(error: str, kind: type[Exception]) -> None:
    stub, make = served("slack bot")
    stub.next_replies.append((200, {"Retry-After": "3"}, f'{{"ok": false, "error": "{error}"}}'.encode()))
    with stub.serving(), pytest.raises(kind, match=error):
        make(stub.url).send(FIRING, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [({}, "either webhook_url or bot_token"), ({"bot_token": Secret("x")}, "channel: missing")],
)
def test_slack_without_its_options_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Slack(**options)


def test_nothing_in_a_label_can_mention_anybody() -> None:
    stub, make = served("slack webhook")
    with stub.serving():
        make(stub.url).send(HUGE, None)
    assert "<!channel>" not in stub.calls[0].json()["text"]  # the sections are the stub's business
    discord, make = served("discord")
    with discord.serving():
        make(discord.url).send(HUGE, None)
    assert discord.calls[0].json()["allowed_mentions"] == {"parse": []}


def test_discord_edits_its_message_when_all_is_over() -> None:
    stub, make = served("discord")
    with stub.serving():
        hook = make(stub.url)
        first = hook.send(FIRING, None)
        hook.send(RESOLVED, first.provider_id)
        assert [message["embeds"][0]["title"] for message in stub.messages.values()] == ["[RESOLVED] DiskFull critical"]
        assert hook.send(RESOLVED, "999").provider_id == "1001"
        stub.next_replies.append(told({"message": "Cannot edit a message authored by another user"}, 403))
        assert hook.send(RESOLVED, first.provider_id).provider_id == "1002"


def test_discord_says_when_its_window_is_used_up() -> None:
    stub, make = served("discord")
    stub.next_replies.append((200, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset-After": "2.5"}, b'{"id": "1"}'))
    with stub.serving():
        assert make(stub.url).send(FIRING, None).rest == 2.5
        assert make(stub.url).send(FIRING, None).rest == 0.0


def test_the_id_of_another_services_message_is_no_thread_of_ours() -> None:
    ids: dict[str, str | None] = {"email": "<7f3a@host.example>", "pagerduty": "f" * 64, "ntfy": "xE73Iyuabi"}
    for name in ("telegram", "discord", "slack bot", "pagerduty"):  # a receiver may have changed its kind
        stub, make = served(name)
        with stub.serving():
            ids[name] = make(stub.url).send(FIRING, None).provider_id
    for name in ("telegram", "discord", "slack bot"):
        for kind, id in ids.items():
            stub, make = served(name)
            with stub.serving():
                receipt = make(stub.url).send(RESOLVED, id)
            if kind != name:
                assert (receipt.detail, receipt.provider_id == id) == ("posted", False), (name, kind)
                assert "reply_parameters" not in stub.calls[-1].json()


def test_telegram_answers_its_first_message() -> None:
    stub, make = served("telegram")
    with stub.serving():
        bot = make(stub.url)
        first = bot.send(FIRING, None)
        assert bot.send(RESOLVED, first.provider_id).provider_id == first.provider_id
    one, two = (call.json() for call in stub.calls)
    assert (one["disable_notification"], two["disable_notification"]) == (False, True)
    assert first.provider_id == "-100/0 41"
    assert two["reply_parameters"]["message_id"] == 41


def test_telegram_answers_nothing_in_another_chat() -> None:
    stub, _ = served("telegram")
    with stub.serving():
        receipt = Telegram(Secret("123:secret"), "-200", api_url=stub.url).send(RESOLVED, "-100/0 41")
    assert receipt.provider_id == "-200/0 41"
    assert "reply_parameters" not in stub.calls[0].json()


def test_pagerduty_closes_the_incident_it_opened() -> None:
    stub, make = served("pagerduty")
    with stub.serving():
        duty = make(stub.url)
        duty.send(FIRING, None)
        (payload,) = stub.open.values()
        assert (payload["severity"], payload["class"], payload["timestamp"]) == (
            "critical", "DiskFull", "2023-11-14T22:01:15Z",
        )  # fmt: skip
        duty.send(RESOLVED, None)
        assert stub.open == {}


def test_two_hosts_that_share_a_pagerduty_service_have_an_incident_each() -> None:
    stub, make = served("pagerduty")
    one = replace(FIRING, group_key="{}:{}")
    other = replace(one, source="db2")
    with stub.serving():
        duty = make(stub.url)
        opened = duty.send(one, None).provider_id
        duty.send(other, None)
        assert len(stub.open) == 2
        duty.send(replace(RESOLVED, group_key="{}:{}"), opened)
        assert len(stub.open) == 1
        duty.send(replace(RESOLVED, group_key="{}:{}", source="db2"), None)
        assert stub.open == {}


def test_an_incident_of_pagerduty_is_closed_under_the_key_that_opened_it() -> None:
    stub, make = served("pagerduty")
    with stub.serving():
        duty = make(stub.url)
        opened = duty.send(replace(FIRING, source="the name it had"), None).provider_id
        assert duty.send(RESOLVED, opened).provider_id == opened
        assert stub.open == {}
        assert duty.send(FIRING, "<7f3a@host.example>").provider_id == dedup_key(FIRING)


def test_ntfys_critical_alerts_have_the_highest_priority() -> None:
    stub, make = served("ntfy")
    with stub.serving():
        page, mild = ((("severity", "page"),), ())
        others = [replace(FIRING, alerts=(replace(FIRING.alerts[0], labels=labels),)) for labels in (page, mild)]
        for note in (FIRING, RESOLVED, *others):
            make(stub.url).send(note, None)
    assert [call.json()["priority"] for call in stub.calls] == [5, 3, 5, 4]
