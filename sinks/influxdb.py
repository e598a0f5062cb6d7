"""InfluxDB 1.x, 2.x, 3 and VictoriaMetrics, by their HTTP write paths.

2.x, 3 and VictoriaMetrics (`/api/v2/write`) go through influxdb-client's synchronous write service, 1.x (`/write`)
through urllib3. Lines arrive encoded and are compressed here at level 1: 1.1 us a point, level 6 costs four times that.
"""

from __future__ import annotations

import zlib
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol
from urllib.parse import urlencode

from agent.core.errors import Retryable
from agent.core.options import option, required
from agent.core.secrets import Secret
from agent.core.units import Seconds
from sinks.answers import error_of

_GZIP_WINDOW = 31  # zlib: 15 bits of window, +16 for a gzip header


@dataclass(slots=True)
class InfluxDB:
    """InfluxDB or anything that takes its line protocol over HTTP."""

    name: ClassVar[str] = "influxdb"

    url: str = required("Where it listens, e.g. http://127.0.0.1:8086.", example="http://127.0.0.1:8086")
    version: Literal["2", "1"] = option("2", "2: /api/v2/write (InfluxDB 2 and 3, VictoriaMetrics); 1: /write.")
    org: str = option("", "Organisation (version 2).")
    bucket: str = option("", "Bucket (version 2), required there.")
    token: Secret | None = option(None, "API token (version 2).", example="{file: /etc/vigilhost/influx.token}")
    database: str = option("", "Database (version 1), required there.")
    retention_policy: str = option("", "Retention policy (version 1); empty: the database's default.")
    username: str = option("", "User (version 1).")
    password: Secret | None = option(None, "Password (version 1).", example="{file: /etc/vigilhost/influx.password}")
    flush_interval: Seconds = option(10.0, "Time between two writes.", minimum=1.0)
    timeout: Seconds = option(10.0, "How long one write may take.", minimum=0.1)
    ca_file: str = option("", "CA certificates to trust instead of the system's.")
    verify_tls: bool = option(True, "Check the server's certificate.")
    gzip: bool = option(True, "Compress requests.")
    _post: _Post | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        needed = "bucket" if self.version == "2" else "database"
        if not getattr(self, needed):
            raise ValueError(f"{needed}: missing; version {self.version} needs one")
        if not self.url.startswith(("http://", "https://")) or "@" in self.url:
            raise ValueError("url: not a server's; write it like http://127.0.0.1:8086, secrets in their own options")

    def write(self, lines: bytes) -> None:
        """See `sinks.sink.Sink`."""
        if self._post is None:
            self._post = _post_v2(self) if self.version == "2" else _post_v1(self)
        body = _compress(lines) if self.gzip else lines
        encoding = "gzip" if self.gzip else "identity"
        try:
            status, headers, text = self._post(body, encoding)
        except _network_errors() as error:
            raise Retryable(f"{self.url}: {_reason(error)}", kind="network") from error
        if not 200 <= status < 300:
            raise error_of(status, headers, text, lines)

    def close(self) -> None:
        """Drop the connection; the next write opens a new one."""
        self._post = None


class _Post(Protocol):
    def __call__(self, body: bytes, encoding: str) -> tuple[int, Mapping[str, str], str]: ...


def _post_v2(sink: InfluxDB) -> _Post:
    # Imported here: 13 MB of RSS that only hosts with this sink pay.
    from influxdb_client import InfluxDBClient, WriteService
    from influxdb_client.rest import ApiException

    client = InfluxDBClient(
        url=sink.url.rstrip("/"),
        token=sink.token.reveal() if sink.token else "",
        org=sink.org,
        timeout=round(sink.timeout * 1000),
        verify_ssl=sink.verify_tls,
        ssl_ca_cert=sink.ca_file or None,
    )
    service = WriteService(client.api_client)

    def post(body: bytes, encoding: str) -> tuple[int, Mapping[str, str], str]:
        try:
            _, status, headers = service.post_write_with_http_info(
                sink.org, sink.bucket, body, precision="ns", content_encoding=encoding
            )
        except ApiException as error:
            if not error.status:  # influxdb-client reports a failed TLS handshake as an answer without status
                raise OSError(" ".join(str(error.reason).split())) from error
            return error.status, dict(error.headers or {}), _text(error.body)
        return status, headers, ""

    return post


def _post_v1(sink: InfluxDB) -> _Post:
    import urllib3  # imported here: only hosts with this sink pay

    pool = urllib3.PoolManager(
        cert_reqs="CERT_REQUIRED" if sink.verify_tls else "CERT_NONE",
        ca_certs=sink.ca_file or None,
        timeout=urllib3.Timeout(total=sink.timeout),
        retries=False,
    )
    query = {"db": sink.database, "precision": "ns", "rp": sink.retention_policy}
    url = f"{sink.url.rstrip('/')}/write?{urlencode({key: value for key, value in query.items() if value})}"
    fixed = {"Content-Type": "text/plain; charset=utf-8"}
    if sink.username:
        password = sink.password.reveal() if sink.password else ""
        fixed["Authorization"] = "Basic " + b64encode(f"{sink.username}:{password}".encode()).decode()

    def post(body: bytes, encoding: str) -> tuple[int, Mapping[str, str], str]:
        answer = pool.request("POST", url, body=body, headers={**fixed, "Content-Encoding": encoding})
        return answer.status, dict(answer.headers), _text(answer.data)

    return post


def _network_errors() -> tuple[type[Exception], ...]:
    import urllib3.exceptions

    return (OSError, urllib3.exceptions.HTTPError)


def _reason(error: Exception) -> str:
    """The inmost cause: urllib3 wraps 'connection refused' three times over."""
    cause: BaseException = error
    while inner := (getattr(cause, "reason", None) if isinstance(getattr(cause, "reason", None), Exception) else None):
        cause = inner
    if isinstance(cause.__cause__, OSError) and cause.__cause__.strerror:
        return cause.__cause__.strerror.lower()
    text = str(cause)
    return text.split(": ", 1)[-1] if "object at 0x" in text else text or type(cause).__name__


def _compress(data: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP_WINDOW)
    return packer.compress(data) + packer.flush()


def _text(body: Any) -> str:
    return body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or "")
