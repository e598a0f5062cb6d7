"""Multipart uploads that were never completed: found and dropped.

The object store library completes and aborts its own, but cannot list those of a process that was killed; they are
invisible, and paid for. These two requests are signed here (AWS Signature Version 4).
"""

from __future__ import annotations

import hashlib
import hmac
import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from agent.core.clock import NS, SystemClock
from agent.core.secrets import Secret

_UPLOAD = re.compile(r"<Upload>(.*?)</Upload>", re.DOTALL)
_MOST_PAGES = 1000
_MOST_BYTES = 8 << 20  # of an answer; a page names a thousand uploads


@dataclass(frozen=True, slots=True)
class Keys:
    """What requests are signed with."""

    access_key: str
    secret_key: Secret
    session_token: Secret | None = None


class Refusal(Exception):
    """The server answered with an error."""


def dangling(bucket_url: str, prefix: str, region: str, keys: Keys, timeout: float) -> Iterator[tuple[str, str]]:
    """Key and id of each unfinished upload whose key begins with `prefix`. Raise Refusal, urllib3's HTTPError."""
    marker: dict[str, str] = {}
    for _ in range(_MOST_PAGES):
        page = request("GET", bucket_url, {"uploads": "", "prefix": prefix, **marker}, region, keys, timeout)
        for upload in _UPLOAD.findall(page):
            yield _text(upload, "Key"), _text(upload, "UploadId")
        if _text(page, "IsTruncated") != "true":
            return
        marker = {"key-marker": _text(page, "NextKeyMarker"), "upload-id-marker": _text(page, "NextUploadIdMarker")}


def drop(bucket_url: str, key: str, upload: str, region: str, keys: Keys, timeout: float) -> None:
    """Abort one upload; one that is gone is no error. Raise Refusal, urllib3's HTTPError."""
    request("DELETE", f"{bucket_url}/{quote(key)}", {"uploadId": upload}, region, keys, timeout)


def request(method: str, url: str, query: Mapping[str, str], region: str, keys: Keys, timeout: float) -> str:
    """Send a signed request without a body; the answer's text."""
    import urllib3

    text = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(query.items()))
    headers = sign(method, url, text, region, keys, datetime.fromtimestamp(SystemClock().wall_ns() / NS, UTC))
    with urllib3.PoolManager(retries=urllib3.Retry(2, redirect=0, backoff_factor=0.2), timeout=timeout) as pool:
        answer = pool.request(method, f"{url}?{text}", headers=headers, preload_content=False)
        body = answer.read(_MOST_BYTES).decode("utf-8", "replace")
        answer.close()
    if answer.status >= 300 and answer.status != 404:
        raise Refusal(f"{method} {url}: {answer.status} {_text(body, 'Code')}: {_text(body, 'Message')}")
    return body


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


def _text(xml: str, tag: str) -> str:
    match = re.search(rf"<{tag}>([^<]*)</{tag}>", xml)
    return html.unescape(match[1]) if match else ""
