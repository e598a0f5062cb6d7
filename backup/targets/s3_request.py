"""Signed requests without a body, for what the object store library has no words for (AWS Signature Version 4)."""

from __future__ import annotations

import hashlib
import hmac
import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from agent.core.clock import NS, SystemClock
from agent.core.secrets import Secret

NO_BUCKET = "NoSuchBucket"
_MOST_BYTES = 8 << 20  # of an answer; a page names a thousand uploads
_PASSING = (500, 502, 503, 504)  # worth asking again; 503 is "slow down"
_OF_LIBRARY = re.compile(
    r".*Error performing (\w+ \S+) in .*? - Server returned non-2xx status code: (\d+)[^<]*", re.DOTALL
)
_MEANING = {
    "AccessDenied": "the key may not do this",
    "InvalidAccessKeyId": "the server knows no such access_key",
    NO_BUCKET: "there is no such bucket; make it, or correct `bucket`",
    "RequestTimeTooSkewed": "the clock of this host or of the server is wrong",
    "SignatureDoesNotMatch": "secret_key is not the one of access_key",
}


@dataclass(frozen=True, slots=True)
class Keys:
    """What requests are signed with."""

    access_key: str
    secret_key: Secret
    session_token: Secret | None = None


class Refusal(Exception):
    """The server answered with an error. `is_forbidden`: the key may not do this."""

    def __init__(self, asked: str, status: int, body: str) -> None:
        super().__init__(explained(asked, status, body))
        self.is_forbidden = status == 403 and tag(body, "Code") in ("AccessDenied", "")


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where requests go. `url`: the bucket's, without a slash at the end; `timeout`: seconds for one request."""

    url: str
    region: str
    keys: Keys
    timeout: float

    def ask(self, method: str, key: str, query: Mapping[str, str]) -> str:
        """The text of the answer; "" where there is nothing of that name. Raise Refusal, urllib3's HTTPError."""
        import urllib3

        url = f"{self.url}/{quote(key)}" if key else self.url
        text = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(query.items()))
        now = datetime.fromtimestamp(SystemClock().wall_ns() / NS, UTC)
        headers = sign(method, url, text, self.region, self.keys, now)
        retries = urllib3.Retry(2, redirect=0, backoff_factor=0.2, status_forcelist=_PASSING, raise_on_status=False,
                                respect_retry_after_header=False)  # fmt: skip
        with urllib3.PoolManager(retries=retries, timeout=self.timeout) as pool:
            answer = pool.request(method, f"{url}?{text}" if text else url, headers=headers, preload_content=False)
            body = answer.read(_MOST_BYTES).decode("utf-8", "replace")
            answer.close()
        if answer.status == 404 and tag(body, "Code") != NO_BUCKET:
            return ""
        if answer.status >= 300:
            raise Refusal(f"{method} {url}", answer.status, body)
        return body


def plain(text: str) -> str:
    """What the object store library says, without its nesting and the server's XML."""
    found = _OF_LIBRARY.match(text)
    return explained(found[1], int(found[2]), text[found.end() :]) if found else text


def explained(asked: str, status: int, body: str) -> str:
    """A refusal in a sentence. Servers differ in what they add: some send no message, and to HEAD none sends a body."""
    code = tag(body, "Code")
    words = (f"{status} {code}".strip(), tag(body, "Message"), _MEANING.get(code, ""))
    return f"{asked}: {': '.join(filter(None, words))}"


def tag(xml: str, name: str) -> str:
    """Text of the first element of that name; "" when there is none."""
    match = re.search(rf"<{name}>([^<]*)</{name}>", xml)
    return html.unescape(match[1]) if match else ""


def sign(method: str, url: str, query: str, region: str, keys: Keys, now: datetime) -> dict[str, str]:
    """Headers of a request without a body; `query` is sorted and quoted, the path of `url` quoted."""
    parts = urlsplit(url)
    stamp, day = f"{now:%Y%m%dT%H%M%SZ}", f"{now:%Y%m%d}"
    empty = hashlib.sha256(b"").hexdigest()
    headers = {"host": parts.netloc, "x-amz-content-sha256": empty, "x-amz-date": stamp}
    if keys.session_token is not None:
        headers["x-amz-security-token"] = keys.session_token.reveal()
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = f"{method}\n{parts.path or '/'}\n{query}\n{lines}\n{names}\n{empty}"
    scope = f"{day}/{region}/s3/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{keys.secret_key.reveal()}".encode()
    for word in (day, region, "s3", "aws4_request"):
        key = hmac.new(key, word.encode(), "sha256").digest()
    signature = hmac.new(key, to_sign.encode(), "sha256").hexdigest()
    credential = f"{keys.access_key}/{scope}"
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return headers
