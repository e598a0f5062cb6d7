"""Strict stand-ins for chat services that cannot be had here: each refuses what its reference says it refuses."""

from __future__ import annotations

import html
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], bytes]


@dataclass
class Call:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Stub:
    """Answers with `answer`, or with what stands in `next_replies` as long as that lasts."""

    calls: list[Call] = field(default_factory=list)
    next_replies: list[Reply] = field(default_factory=list)
    url: str = ""

    def answer(self, call: Call) -> Reply:
        return 200, {}, b"ok"

    @contextmanager
    def serving(self) -> Iterator[None]:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def _do(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                call = Call(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                stub.calls.append(call)
                status, headers, content = stub.next_replies.pop(0) if stub.next_replies else stub.answer(call)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_PATCH = _do  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Nothing: the calls are kept."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def utf16(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def refused(text: str, status: int = 400) -> Reply:
    return status, {"Content-Type": "application/json"}, json.dumps({"ok": False, "error": text}).encode()


def told(value: Any, status: int = 200) -> Reply:
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()


@dataclass
class SlackStub(Stub):
    """Incoming webhook at /services/..., chat.postMessage and chat.update below /api."""

    messages: dict[str, dict[str, Any]] = field(default_factory=dict)  # by ts
    token: str = "xoxb-secret"

    def answer(self, call: Call) -> Reply:
        body = call.json()
        problem = self.problem(body)
        if call.path.startswith("/services/"):
            return (400, {}, problem.encode()) if problem else (200, {}, b"ok")
        if call.headers.get("authorization") != f"Bearer {self.token}":
            return told({"ok": False, "error": "invalid_auth"})
        if problem:
            return told({"ok": False, "error": problem})
        if call.path == "/api/chat.update":
            if body["ts"] not in self.messages or body["channel"] != "C1":
                return told({"ok": False, "error": "message_not_found"})
            self.messages[body["ts"]] = body
            return told({"ok": True, "channel": "C1", "ts": body["ts"]})
        stamp = f"1700000000.{len(self.messages):06d}"
        self.messages[stamp] = body
        return told({"ok": True, "channel": "C1", "ts": stamp})

    def problem(self, body: dict[str, Any]) -> str:
        if not body.get("text") or len(body["text"]) > 40_000:
            return "no_text"
        for attachment in body.get("attachments", []):
            blocks = attachment["blocks"]
            if len(blocks) > 50:
                return "invalid_blocks"
            if sum(len(block["text"]["text"]) for block in blocks) > 13_000:
                return "msg_blocks_too_long"
            for block in blocks:
                text, limit = block["text"]["text"], {"header": 150, "section": 3000}[block["type"]]
                if not 1 <= len(text) <= limit:
                    return "invalid_blocks_format"
                if block["type"] == "section" and re.search(r"[<>]|&(?!amp;|lt;|gt;)", text):
                    return "invalid_blocks_format"
        return ""


@dataclass
class DiscordStub(Stub):
    """A webhook; PATCH edits a message by its id."""

    messages: dict[str, dict[str, Any]] = field(default_factory=dict)

    def answer(self, call: Call) -> Reply:
        body = call.json()
        (embed,) = body["embeds"]
        too_long = (utf16(embed["title"]) > 256 or utf16(embed["description"]) > 4096 or utf16(body["content"]) > 2000
                    or utf16(embed["title"] + embed["description"]) > 6000)  # fmt: skip
        if too_long or not embed["description"]:
            return told({"message": "Invalid Form Body", "code": 50035}, 400)
        if call.method == "PATCH":
            id = call.path.rpartition("/")[2]
            if id not in self.messages:
                return told({"message": "Unknown Message", "code": 10008}, 404)
            self.messages[id] = body
            return told({"id": id})
        id = str(1000 + len(self.messages))
        self.messages[id] = body
        return told({"id": id}) if call.path.endswith("?wait=true") else (204, {}, b"")


@dataclass
class TelegramStub(Stub):
    """sendMessage with parse_mode HTML: unknown tags and open entities are refused."""

    def answer(self, call: Call) -> Reply:
        body = call.json()
        if call.path != "/bot123:secret/sendMessage":
            return told({"ok": False, "error_code": 404, "description": "Not Found"}, 404)
        bare = body["text"]
        for tag in ("<b>", "</b>"):
            bare = bare.replace(tag, "")
        if re.search(r"[<>]|&(?!amp;|lt;|gt;|quot;|#x27;|#\d+;)", bare):
            return told({"ok": False, "error_code": 400, "description": "Bad Request: can't parse entities"}, 400)
        if not 1 <= utf16(html.unescape(bare)) <= 4096:
            return told({"ok": False, "error_code": 400, "description": "Bad Request: message is too long"}, 400)
        return told({"ok": True, "result": {"message_id": 40 + len(self.calls)}})


@dataclass
class PagerDutyStub(Stub):
    """Events API v2: which incidents are open, by dedup key."""

    open: dict[str, dict[str, Any]] = field(default_factory=dict)

    def answer(self, call: Call) -> Reply:
        event = call.json()
        if event.get("routing_key") != "R" * 32 or len(event["dedup_key"]) > 255 or len(call.body) > 512_000:
            return told({"status": "invalid event"}, 400)
        if event["event_action"] == "resolve":
            self.open.pop(event["dedup_key"], None)
        else:
            payload = event["payload"]
            fits = len(payload["summary"]) <= 1024 and payload["severity"] in {"critical", "error", "warning", "info"}
            if not fits or not payload["source"] or not re.fullmatch(r"\d{4}-.*Z", payload["timestamp"]):
                return told({"status": "invalid event"}, 400)
            self.open[event["dedup_key"]] = payload
        return told({"status": "success", "dedup_key": event["dedup_key"]}, 202)


@dataclass
class NtfyStub(Stub):
    """Publishing as JSON at the root."""

    def answer(self, call: Call) -> Reply:
        body = call.json()
        is_topic = call.path == "/" and re.fullmatch(r"[-_A-Za-z0-9]{1,64}", body["topic"])
        is_right = (is_topic and body["priority"] in range(1, 6)
                    and 1 <= len(body["message"].encode()) <= 4096 and isinstance(body["tags"], list))  # fmt: skip
        if not is_right:
            return told({"code": 40024, "http": 400, "error": "invalid request"}, 400)
        if call.headers.get("authorization") != "Bearer tk_secret":
            return told({"code": 40301, "http": 403, "error": "forbidden"}, 403)
        return told({"id": "xE73Iyuabi", "event": "message"})
