"""A notification as the HTML part of a mail: one column that a phone shows without zooming, light or dark.

Mail programs know little CSS: all of it stands in inline styles, so that nothing is lost where they drop the style
sheet, which only says what is different in the dark. Everything from labels and annotations is escaped.
"""

from __future__ import annotations

import html
import re
from typing import Final

from alerting.notify import render
from alerting.notify.message import Alert, DigestEntry, Notification

_MOST_ALERTS: Final = 100  # shown one by one; a person reads no more

# class: (inline style, what is different in the dark); contrasts of at least 4.5 on page and card
_STYLES: Final = {
    "page": ("background:#ffffff", "background:#0d1117"),
    "text": ("color:#1f2328", "color:#e6edf3"),
    "soft": ("color:#57606a", "color:#9da7b3"),
    "card": ("background:#f6f8fa", "background:#161b22"),
    "code": ("background:#e7ebef;color:#1f2328", "background:#262c36;color:#e6edf3"),
    "link": ("color:#0b57d0", "color:#6cb6ff"),
    "red": ("color:#b42318", "color:#ff8a80"),
    "amber": ("color:#8a5a00", "color:#e3b341"),
    "green": ("color:#1a6b30", "color:#56d364"),
}
_DARK: Final = "".join(
    f".{name}{{{dark.replace(';', ' !important;')} !important}}" for name, (_, dark) in _STYLES.items()
)
_HEAD: Final = (
    '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    '<meta name="color-scheme" content="light dark"><meta name="supported-color-schemes" content="light dark">'
    f"<style>:root{{color-scheme:light dark}}@media (prefers-color-scheme:dark){{{_DARK}}}</style>"
)
_FONT: Final = "font:16px/1.5 -apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif;overflow-wrap:anywhere"
_MONO: Final = "font:13px/1.6 ui-monospace,Menlo,Consolas,monospace;border-radius:4px"


def page(notification: Notification) -> str:
    """The whole document."""
    is_digest = notification.kind == "digest"
    title = render.title(notification)
    colour = "text" if is_digest else _colour(notification.firing[0]) if notification.firing else "green"
    body = (
        _preheader(notification)
        + _element("h1", colour, title, "font-size:20px;line-height:1.3;margin:0 0 16px")
        + (_digest(notification) if is_digest else _alerts(notification))
        + _footer(notification)
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{_HEAD}<title>{_escape(title)}</title></head>\n'
        f'<body class="page text" style="margin:0;{_STYLES["page"][0]};{_STYLES["text"][0]}">\n'
        f'<div style="max-width:640px;margin:0 auto;padding:16px 12px;{_FONT}">\n{body}</div>\n</body></html>'
    )


def _preheader(notification: Notification) -> str:
    """What a list of mails shows beside the subject."""
    alerts = [*notification.firing, *notification.resolved]
    words = f"{render.headline(alerts[0])}; {render.since(alerts[0], notification)}" if alerts else notification.reason
    return f'<div style="display:none;max-height:0;overflow:hidden">{_escape(words)}</div>\n'


def _footer(notification: Notification) -> str:
    lines = [_escape(f"Why now: {notification.reason}")]
    command = render.silence_command(notification)
    if command:
        lines.append(
            f"To be told no more for two hours: {_element('code', 'code', command, f'{_MONO};padding:1px 4px')}"
        )
    lines.append(_link(notification.external_url, "Open Vigilhost"))
    inner = "<br>".join(line for line in lines if line)
    return f'<p class="soft" style="font-size:14px;margin:16px 0 0;{_STYLES["soft"][0]}">{inner}</p>\n'


# Alerts.


def _alerts(notification: Notification) -> str:
    alerts = [*notification.firing, *notification.resolved]
    missing = max(0, len(alerts) - _MOST_ALERTS) + notification.truncated_alerts
    cards = "".join(_card(alert, notification) for alert in alerts[:_MOST_ALERTS])
    return cards + (_element("p", "soft", render.more_line(missing)) if missing else "")


def _card(alert: Alert, notification: Notification) -> str:
    parts = [
        _element("div", _colour(alert), render.state_word(alert), "font-size:13px;font-weight:700"),
        _element("div", "text", render.headline(alert), "font-size:17px;font-weight:600;line-height:1.35"),
        *(_element("p", "text", one, "margin:8px 0;white-space:pre-line") for one in render.sayings(alert)[1:]),
        _element("p", "soft", render.since(alert, notification), "margin:8px 0;font-size:14px"),
        '<p style="margin:8px 0;line-height:2">',
        " ".join(
            _element("span", "code", f"{name}={value}", f"{_MONO};padding:2px 6px")
            for name, value in render.told_labels(alert)
        ),
        "</p>",
        *(_note(name, value) for name, value in render.other_annotations(alert)),
    ]
    if link := _link(alert.generator_url, "Show the query"):
        parts.append(f'<div style="margin:10px 0 0">{link}</div>')
    return _boxed(_colour(alert), "".join(parts))


def _boxed(colour: str, inner: str) -> str:
    """A card whose left edge has the colour."""
    style = f"border-left:4px solid;border-radius:6px;padding:12px 14px;margin:0 0 14px;{_STYLES['card'][0]}"
    return f'<div class="card {colour}" style="{style};{_STYLES[colour][0]}">{inner}</div>\n'


def _note(name: str, value: str) -> str:
    """An annotation such as runbook_url or query: a link, something to copy, or words."""
    head = _element("div", "soft", name, "font-size:13px;margin:8px 0 2px")
    if link := _link(value, value):
        return head + link
    return head + _element("div", "code", value, f"{_MONO};padding:6px 8px;white-space:pre-wrap")


def _colour(alert: Alert) -> str:
    return "amber" if alert.is_flapping else "red" if alert.is_firing else "green"


# Digests.


def _digest(notification: Notification) -> str:
    firing = [entry for entry in notification.entries if entry.alert.is_firing]
    over = [entry for entry in notification.entries if not entry.alert.is_firing]
    bad = [render.one_line(note.text) for note in notification.notes if not note.is_good]
    good = [render.one_line(note.text) for note in notification.notes if note.is_good]
    found = (
        _section("Still firing", "red", [_entry(one, notification) for one in firing])
        + _section("Failed", "red", [_escape(line) for line in bad])
        + _section("Fired and resolved", "green", [_entry(one, notification) for one in over])
        + _section("Done", "green", [_escape(line) for line in good])
    )
    return found or _element("p", "text", "Nothing happened.")


def _section(head: str, colour: str, lines: list[str]) -> str:
    if not lines:
        return ""
    rows = "".join(f'<div class="text" style="margin:6px 0 0;{_STYLES["text"][0]}">{line}</div>' for line in lines)
    return _boxed(colour, _element("div", colour, f"{head} ({len(lines)})", "font-weight:700") + rows)


def _entry(entry: DigestEntry, notification: Notification) -> str:
    alert = entry.alert
    return (
        f"<b>{_escape(alert.name)}</b>: {_escape(render.headline(alert))}<br>"
        f"{_element('span', 'soft', render.entry_times(entry, notification), 'font-size:14px')}"
    )


# HTML.


def _element(tag: str, name: str, words: str, style: str = "") -> str:
    """Words, escaped, in an element of that class."""
    return f'<{tag} class="{name}" style="{_STYLES[name][0]}{style and ";" + style}">{_escape(words)}</{tag}>'


def _link(url: str, shown: str) -> str:
    """A link where the text is an http address; else nothing (other schemes could run a script)."""
    if not re.match(r"https?://[^\s\"'<>]+$", url):
        return ""
    return f'<a href="{_escape(url)}" class="link" style="{_STYLES["link"][0]}">{_escape(shown)}</a>'


def _escape(words: str) -> str:
    return html.escape(words, quote=True)
