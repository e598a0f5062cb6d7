"""One HTTP request of a notifier: with a deadline, without redirects, and with errors that never show a secret.

The addresses of chat services are secrets themselves, so an error names the host and nothing else of the address.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from agent.core.errors import Rejected, Retryable
from agent.core.secrets import Secret
from alerting.notify.masking import masked

_MOST_ANSWER_BYTES = 65_536
_SHOWN_OF_AN_ERROR = 200
_WORTH_RETRYING = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def told(self) -> dict[str, Any]:
        """The JSON object in the body; empty where there is none."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def request(
    method: str,
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    deadline: float,
    ca_file: str = "",
) -> Answer:
    """One request within `deadline` seconds. Raise Retryable when nobody answers, Rejected for what is no address."""
    import urllib3  # 2 MB that a host without such a receiver does not pay

    try:
        host = urlsplit(url).hostname or "an address without a host"
    except ValueError:
        raise Rejected("not an http address; write it like https://host/path", kind="address") from None
    ends_at = time.monotonic() + deadline
    options: dict[str, Any] = {"ca_certs": ca_file} if ca_file else {}
    try:
        with urllib3.PoolManager(num_pools=1, retries=False, timeout=deadline, **options) as pool:
            response = pool.request(
                method, url, body=body, headers=dict(headers), redirect=False, preload_content=False
            )
            content = b""
            for chunk in response.stream(8192):
                content += chunk
                if len(content) > _MOST_ANSWER_BYTES or time.monotonic() > ends_at:
                    break
            response.close()
            return Answer(response.status, {key.lower(): value for key, value in response.headers.items()}, content)
    except (urllib3.exceptions.LocationValueError, urllib3.exceptions.URLSchemeUnknown):
        raise Rejected(f"{host}: not an http address; write it like https://host/path", kind="address") from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        # their texts hold the whole address
        raise Retryable(f"{host}: {_reason(error)}", kind="network") from None


def _reason(error: Exception) -> str:
    import urllib3

    reasons: tuple[tuple[type[Exception], str], ...] = (
        (urllib3.exceptions.SSLError, "TLS failed: is its certificate valid for this name?"),
        (urllib3.exceptions.NameResolutionError, "no such host"),
        (urllib3.exceptions.NewConnectionError, "connection refused"),  # a kind of TimeoutError to urllib3
        (urllib3.exceptions.TimeoutError, "no answer in time"),
        (urllib3.exceptions.ProtocolError, "connection lost"),
    )
    return next((text for kind, text in reasons if isinstance(error, kind)), type(error).__name__)


def post_json(
    url: str,
    value: Any,
    deadline: float,
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
    ca_file: str = "",
) -> Answer:
    """A request with a JSON body."""
    sent = {"Content-Type": "application/json", "User-Agent": "vigilhost", **(headers or {})}
    return request(
        method, url, json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"), sent, deadline, ca_file
    )


def check(who: str, answer: Answer, secrets: Iterable[Secret] = ()) -> Answer:
    """The answer when it is a 2xx. Raise Retryable for 429, 408 and 5xx, Rejected for any other."""
    if 200 <= answer.status < 300:
        return answer
    message = f"{who}: http status {answer.status}: {_shown(answer, secrets)}".rstrip(": ")
    kind = f"http_{answer.status}"
    if answer.status in _WORTH_RETRYING or answer.status >= 500:
        raise Retryable(message, kind=kind, after=asked_wait(answer))
    raise Rejected(message, kind=kind)


def asked_wait(answer: Answer) -> float | None:
    """Seconds the other side asks us to wait, from any of the ways services say it; None when it does not."""
    body = answer.told()
    found = body.get("retry_after")  # Discord, in seconds
    if found is None and isinstance(body.get("parameters"), dict):
        found = body["parameters"].get("retry_after")  # Telegram
    text = answer.headers.get("retry-after") if found is None else str(found)
    text = answer.headers.get("x-ratelimit-reset-after") if text is None else text
    if text is None:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        return _until(text)


def _until(text: str) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _shown(answer: Answer, secrets: Iterable[Secret]) -> str:
    text = " ".join(answer.body[:4096].decode("utf-8", "replace").split())
    return masked(text, secrets)[:_SHOWN_OF_AN_ERROR]
