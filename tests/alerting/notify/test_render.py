from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.labels import labels_of
from alerting.matching import parse_matchers
from alerting.notify import mail_page, render
from alerting.notify.message import SUMMARY_KEY, Alert, Notification, fingerprint
from tests.alerting.notify.examples import DIGEST, DISK, FIRING, HUGE, LONG_DIGEST, RESOLVED
from tests.alerting.pictures import T0, alert

GOLDEN = Path(__file__).parents[2] / "golden" / "notifications"


@pytest.mark.parametrize(
    ("name", "rendered"),
    [
        ("firing.txt", render.text(FIRING)),
        ("resolved.txt", render.text(RESOLVED)),
        ("digest.txt", render.text(DIGEST)),
        ("firing.html", mail_page.page(FIRING)),
        ("resolved.html", mail_page.page(RESOLVED)),
        ("digest.html", mail_page.page(DIGEST)),
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


def test_a_link_without_an_address_is_not_told() -> None:
    assert "/graph" not in render.alert_text(replace(DISK, generator_url="/graph?g0.expr=x"), FIRING)
    assert "http://127.0.0.1:9811/graph" in render.alert_text(DISK, FIRING)


def test_an_alert_without_data_says_so() -> None:
    assert render.alert_text(replace(DISK, is_stale=True), FIRING).startswith("FIRING (no data, held): ")


def test_a_title_is_one_line_whatever_the_labels_hold() -> None:
    assert not [char for char in render.title(HUGE) if char in "\r\n\u2028"]


@pytest.mark.parametrize(
    ("notification", "command"),
    [
        (FIRING, "vigilhost silence 2h alertname=DiskFull -m 'why'"),
        (replace(FIRING, alerts=FIRING.alerts[:1]), "vigilhost silence 2h alertname=DiskFull instance=db1 -m 'why'"),
        (
            replace(FIRING, alerts=(alert('it\'s "full"'),)),
            """vigilhost silence 2h 'alertname="it'"'"'s \\"full\\""' -m 'why'""",
        ),
        (RESOLVED, ""),
        (DIGEST, ""),
        (replace(FIRING, kind="test"), ""),
        (replace(FIRING, group_key=SUMMARY_KEY), ""),
        (replace(FIRING, alerts=(DISK, alert("Load", instance="db2"))), ""),
    ],
)
def test_a_mail_says_how_to_silence_what_it_is_about(notification: Notification, command: str) -> None:
    assert render.silence_command(notification) == command
    if command:
        words = shlex.split(command)[3:-2]
        assert all(matcher.matches(dict(notification.firing[0].labels)[matcher.name])
                   for matcher in parse_matchers(words))  # fmt: skip


def luminance(colour: str) -> float:
    """WCAG's relative luminance of #rrggbb."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (one / 12.92 if one <= 0.03928 else ((one + 0.055) / 1.055) ** 2.4 for one in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_a_page_can_be_read_by_day_and_in_the_dark(mode: int) -> None:
    colours = {name: re.findall(r"#[0-9a-f]{6}", both[mode]) for name, both in mail_page._STYLES.items()}
    backs = [colours.pop("page")[0], colours.pop("card")[0]]
    on_code = colours.pop("code")
    pairs = [(front, back) for (front,) in colours.values() for back in backs] + [(on_code[1], on_code[0])]
    for pair in pairs:
        low, high = sorted(map(luminance, pair))
        assert (high + 0.05) / (low + 0.05) >= 4.5, pair


def test_a_page_fits_a_phone_and_every_style_has_its_dark_twin() -> None:
    for page in map(mail_page.page, (FIRING, RESOLVED, DIGEST, HUGE)):
        assert 'name="viewport" content="width=device-width' in page
        used = {word for names in re.findall(r'class="([^"]+)"', page) for word in names.split()}
        assert used <= mail_page._STYLES.keys()
        assert all(f".{name}{{" in page for name in used)


def test_links_are_http_only() -> None:
    page = mail_page.page(replace(FIRING, alerts=(replace(DISK, generator_url="javascript:alert(1)"),)))
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


def in_bytes(text: str) -> int:
    return len(text.encode())


@pytest.mark.parametrize("length", [len, in_bytes, render.utf16_length])
@pytest.mark.parametrize("limit", [0, 1, 2, 3, 10, 50, 100, 150, 200, 400, 1000, 4096, 30_000])
def test_a_digest_is_never_longer_than_its_limit(limit: int, length: Callable[[str], int]) -> None:
    for note in (DIGEST, LONG_DIGEST, replace(LONG_DIGEST, truncated_alerts=7), replace(DIGEST, entries=(), notes=())):
        assert length(render.text(note, limit, length)) <= limit


def test_a_long_digest_loses_lines_of_its_longest_part_and_no_failed_backup() -> None:
    note = replace(LONG_DIGEST, notes=DIGEST.notes, truncated_alerts=7)
    parts = render.text(note, 2000).split("\n\n")
    heads = [part.splitlines()[0] for part in parts]
    assert heads == ["Still firing:", "Failed:", "Done:", "... and 7 more"]
    still = parts[0].splitlines()
    assert still[-1] == f"... and {300 - len(still) + 2} more"
    assert len(still) > 20
    assert parts[1] == "Failed:\n- backup db: no space left"


def test_the_fingerprint_is_alertmanagers() -> None:
    assert fingerprint(()) == "cbf29ce484222325"
    assert fingerprint((("a", "b"),)) == fingerprint(labels_of({"a": "b"})) != fingerprint((("a", "c"),))


def test_stale_durations_read_well() -> None:
    alert = replace(DISK, starts_at=T0 - 90061, value=None)
    assert render.since(alert, FIRING) == "since 2023-11-13 21:12 UTC (1d1h)"
