"""Telegraf's numbers for systemd's state words: fields `load_code`, `active_code` and `sub_code`."""

from __future__ import annotations

from collections.abc import Mapping

LOAD_CODES: Mapping[str, int] = {
    word: code
    for code, word in enumerate(("loaded", "stub", "not-found", "bad-setting", "error", "merged", "masked"))
}  # fmt: skip

ACTIVE_CODES: Mapping[str, int] = {
    word: code
    for code, word in enumerate(("active", "reloading", "inactive", "failed", "activating", "deactivating"))
}  # fmt: skip

# Each kind of unit has a block of numbers; a word that several kinds use stands in the first of them.
_SUB_BLOCKS: Mapping[int, str] = {
    0x00: "running dead start-pre start exited reload stop stop-watchdog stop-sigterm stop-sigkill stop-post "
          "final-sigterm failed auto-restart condition cleaning",
    0x10: "waiting reload-signal reload-notify final-watchdog dead-before-auto-restart failed-before-auto-restart "
          "dead-resources-pinned auto-restart-queued",
    0x20: "tentative plugged",
    0x30: "mounting mounting-done mounted remounting unmounting remounting-sigterm remounting-sigkill "
          "unmounting-sigterm unmounting-sigkill",
    0x50: "abandoned",
    0x60: "active",
    0x70: "start-chown start-post listening stop-pre stop-pre-sigterm stop-pre-sigkill final-sigkill",
    0x80: "activating activating-done deactivating deactivating-sigterm deactivating-sigkill",
    0xA0: "elapsed",
}  # fmt: skip

SUB_CODES: Mapping[str, int] = {
    word: block + at for block, words in _SUB_BLOCKS.items() for at, word in enumerate(words.split())
}
