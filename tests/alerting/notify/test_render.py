from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.labels import labels_of
from alerting.notify import render
from alerting.notify.message import Alert, Notification, fingerprint
from tests.alerting.notify.examples import DIGEST, DISK, FIRING, HUGE, RESOLVED
from tests.alerting.pictures import T0

GOLDEN = Path(__file__).parents[2] / "golden" / "notifications"


@pytest.mark.parametrize(
    ("name", "rendered"),
    [
        ("firing.txt", render.text(FIRING)),
        ("resolved.txt", render.text(RESOLVED)),
        ("digest.txt", render.text(DIGEST)),
        ("firing.html", render.html_page(FIRING)),
        ("digest.html", render.html_page(DIGEST)),
    ],
)
def test_people_read_this(name: str, rendered: str) -> None:
    assert rendered + "\n" == (GOLDEN / name).read_text()


@pytest.mark.parametrize(
    ("notification", "title"),
    [
        (FIRING, "[FIRING:2] DiskFull critical"),
        (replace(FIRING, alerts=FIRING.alerts[:1]), "[FIRING] DiskFull db1 critical"),
        (RESOLVED, "[RESOLVED] DiskFull critical"),
        (replace(FIRING, kind="test", alerts=(DISK,)), "[TEST] [FIRING] DiskFull db1 critical"),
        (replace(FIRING, alerts=(replace(DISK, is_flapping=True),)), "[FLAPPING] DiskFull db1 critical"),
        (replace(FIRING, alerts=(DISK, Alert(labels_of({"alertname": "Load"})))), "[FIRING:2] 2 alerts"),
        (DIGEST, "Summary of 2023-11-14: 1 still firing, 4 fired, 1 failed"),
    ],
)
def test_titles(notification: Notification, title: str) -> None:
    assert render.title(notification) == title


def test_an_alert_without_data_says_so() -> None:
    assert render.alert_text(replace(DISK, is_stale=True), FIRING).startswith("FIRING (no data, held): ")


def test_a_title_is_one_line_whatever_the_labels_hold() -> None:
    assert not [char for char in render.title(HUGE) if char in "\r\n\u2028"]


def test_links_are_http_only() -> None:
    page = render.html_page(replace(FIRING, alerts=(replace(DISK, generator_url="javascript:alert(1)"),)))
    assert "javascript:" not in page


@pytest.mark.parametrize(
    ("blocks", "limit", "shown"),
    [
        (["aaa", "bbb"], None, "aaa\n\nbbb"),
        (["aaa", "bbb"], 8, "aaa\n\nbbb"),
        (["a" * 10, "b" * 10, "c" * 10], 30, "aaaaaaaaaa\n\n... and 2 more"),
        (["a" * 50, "b"], 30, "a" * 13 + "…\n\n... and 1 more"),
        (["a" * 50], 30, "a" * 29 + "…"),
    ],
)
def test_whole_alerts_are_left_out_before_one_is_cut(blocks: list[str], limit: int | None, shown: str) -> None:
    assert render.fit(blocks, limit) == shown


@given(st.lists(st.text("a😀\n", max_size=80), max_size=12), st.integers(40, 200), st.integers(0, 3))
def test_a_text_is_never_longer_than_its_limit(blocks: list[str], limit: int, missing: int) -> None:
    assert render.utf16_length(render.fit(blocks, limit, render.utf16_length, missing)) <= limit


def test_the_fingerprint_is_alertmanagers() -> None:
    assert fingerprint(()) == "cbf29ce484222325"
    assert fingerprint((("a", "b"),)) == fingerprint(labels_of({"a": "b"})) != fingerprint((("a", "c"),))


def test_stale_durations_read_well() -> None:
    alert = replace(DISK, starts_at=T0 - 90061, value=None)
    assert render.since(alert, FIRING) == "since 2023-11-13 21:12 UTC (1d1h)"
