"""An S3-compatible object store: AWS, MinIO, and whatever speaks their protocol.

What is written streams there in parts, without a temporary file, and has a name only once the last part is in. Each
request carries a SHA-256 of its body in its signature, which the server compares: that is how the other side confirms
what it got. ETags are not looked at: they differ between servers, and with the size of parts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar
from urllib.parse import urlsplit

from agent.core.options import option, required
from agent.core.secrets import Secret
from agent.core.units import Bytes, Seconds
from backup.children import one_line
from backup.errors import Absent, Forbidden, TargetFailed
from backup.relay import READ_BYTES
from backup.target import Upload, check_name
from backup.targets.s3_multipart import dangling, drop, refused_to_send, refused_to_sweep
from backup.targets.s3_request import NO_BUCKET, Bucket, Keys, Refusal, plain
from backup.targets.s3_upload import S3Upload
from backup.targets.stream_reader import stream_reader

if TYPE_CHECKING:
    from obstore.store import S3Store

_WHOLE_DOWNLOAD = timedelta(days=7)
_AMAZON = re.compile(r"\.amazonaws\.com(\.cn)?$")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


def _check_bucket(text: str) -> None:
    if not _BUCKET.fullmatch(text):
        raise ValueError("is no name of a bucket; use 3 or more letters, digits, dots and hyphens")


def _check_prefix(text: str) -> None:
    if text:
        try:
            check_name(text)
        except ValueError:
            raise ValueError("is no plain path; write it like backups/web, without / at either end") from None


def _check_endpoint(text: str) -> None:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
        raise ValueError("is no plain URL; write it like https://s3.example.org:9000")


@dataclass(slots=True)
class S3:
    """Keeps copies as objects of a bucket, which must exist.

    Without keys here those of the environment are used: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN.
    Give them no right to other buckets, and where the server can, none to delete versions.
    """

    bucket: str = required("Bucket.", check=_check_bucket, example="backups")
    prefix: str = option("", "Path inside the bucket.", check=_check_prefix, example="vigilhost")
    endpoint: str | None = option(
        None, "URL of the server; null: Amazon's.", check=_check_endpoint, example="https://s3.example.org:9000"
    )
    region: str = option("us-east-1", "Region; servers that have none take any.")
    path_style: bool = option(True, "Bucket in the path of the URL; false: in front of its host name.")
    access_key: str | None = option(None, "Name of the key; null: from the environment.")
    secret_key: Secret | None = option(
        None, "The key itself; null: from the environment.", example="{file: /etc/vigilhost/s3.key}"
    )
    session_token: Secret | None = option(None, "Token of temporary keys; null: from the environment.")
    part_size: Bytes = option(
        16 << 20, "Size of a part, twice of which is held in memory; an object has 10,000 at most.",
        minimum=5 << 20, maximum=1 << 30,
    )  # fmt: skip
    refuse_overwrite: bool = option(
        True,
        "Have the server itself refuse to replace small archives; false for servers that do not know If-None-Match.",
    )
    checksum: bool | None = option(
        None, "Name the SHA-256 of what is sent in a header of its own too, as buckets with object lock want it; null: "
        "where the server is Amazon's.",
    )  # fmt: skip
    connect_timeout: Seconds = option(10.0, "Most time for a connection.", minimum=0.1)
    timeout: Seconds = option(60.0, "Most time for one request, and so for one part.", minimum=1)
    retry: Seconds = option(60.0, "How long a request that fails is repeated.", minimum=0)

    is_near: ClassVar[bool] = False

    def check(self) -> None:
        """Raise TargetFailed unless the bucket can be listed with these keys, and as far as can be told written to."""
        import obstore

        with self.as_failure(""):
            next(iter(obstore.list(self.store(), self.key("") or None, chunk_size=1)), None)
            if (refusal := refused_to_send(self._bucket(), self.key("any"))) is not None:
                raise refusal

    def begin(self, name: str) -> Upload:
        check_name(name)
        if self.size(name) is not None:
            raise TargetFailed(f"{self.shown(name)}: is there already; nothing is overwritten")
        return S3Upload(self, name)

    def put(self, name: str, content: bytes) -> None:
        import obstore

        check_name(name)
        with self.as_failure(name):
            obstore.put(self.store(), self.key(name), content, use_multipart=False)

    def names(self, prefix: str) -> Iterator[str]:
        import obstore

        below = len(self.key("x")) - 1
        with self.as_failure(prefix):
            for batch in obstore.list(self.store(), self.key(prefix) or None):
                for found in batch:
                    name = found["path"][below:]
                    try:
                        check_name(name)
                    except ValueError:
                        continue  # not ours
                    yield name

    def open(self, name: str) -> BinaryIO:
        import obstore

        check_name(name)
        with self.as_failure(name):
            # One request for all of it: a limit on the whole would fail what is large. Silence is limited.
            found = obstore.get(self.store(total=_WHOLE_DOWNLOAD), self.key(name))
            stream = found.stream(min_chunk_size=READ_BYTES)

        def chunks() -> Iterator[bytes]:
            with self.as_failure(name):
                for chunk in stream:
                    yield bytes(chunk)

        return stream_reader(chunks(), lambda: None)

    def delete(self, name: str) -> None:
        check_name(name)
        with self.as_failure(name):
            # Not by the library: it sends a list of one, which some servers do not know, and others judge by the rights
            # to the bucket (radosgw 16) instead of those to the object.
            self._bucket().ask("DELETE", self.key(name), {})

    def sweep(self, prefix: str) -> list[str]:
        """Abort the multipart uploads of killed runs."""
        removed = []
        below = len(self.key("x")) - 1
        with self.as_failure(prefix):
            bucket = self._bucket()
            for key, upload in list(dangling(bucket, f"{self.key(prefix)}/")):
                drop(bucket, key, upload)
                removed.append(key[below:])
        return removed

    def lacks(self) -> list[str]:
        """What its key may not do and a backup can do without, asked without leaving a trace. Raise TargetFailed.

        Whether it may delete cannot be asked so: in a bucket with versions that leaves a marker.
        """
        with self.as_failure(""):
            if (refusal := refused_to_sweep(self._bucket(), self.key("x")[:-1])) is None:
                return []
        why = self._failure("", refusal)
        return [f"what killed uploads leave cannot be removed: {why}; let it, or leave that to the server"]

    def free_bytes(self) -> int | None:
        return None

    def directories(self) -> list[str]:
        return []

    def fetch_command(self, name: str) -> list[str]:
        where = ["--endpoint-url", self.endpoint] if self.endpoint else []
        return ["aws", *where, "--region", self.region, "s3", "cp", f"s3://{self.bucket}/{self.key(name)}", "-"]

    @property
    def bucket_url(self) -> str:
        """Where the bucket is, without a slash at the end."""
        url = (self.endpoint or f"https://s3.{self.region}.amazonaws.com").rstrip("/")
        if self.path_style:
            return f"{url}/{self.bucket}"
        scheme, _, host = url.partition("://")
        return f"{scheme}://{self.bucket}.{host}"

    def key(self, name: str) -> str:
        return "/".join(word for word in (self.prefix, name) if word)

    def shown(self, name: str) -> str:
        return f"s3://{self.bucket}/{self.key(name)}"

    def _keys(self) -> Keys:
        """Raise TargetFailed when there are none."""
        access = self.access_key or os.environ.get("AWS_ACCESS_KEY_ID")
        secret = self.secret_key or _from_environment("AWS_SECRET_ACCESS_KEY")
        if not access or secret is None:
            raise TargetFailed(f"{self.shown('')}: has no keys; set access_key and secret_key")
        token = self.session_token or (_from_environment("AWS_SESSION_TOKEN") if self.access_key is None else None)
        return Keys(access, secret, token)

    def _bucket(self) -> Bucket:
        return Bucket(self.bucket_url, self.region, self._keys(), self.timeout)

    def store(self, total: timedelta | None = None) -> S3Store:
        """A client; connections are shared by those of one kind. `total`: limit of a whole request."""
        from obstore.store import S3Store

        keys = self._keys()
        limit = timedelta(seconds=self.timeout)
        url = self.bucket_url
        config: dict[str, Any] = {
            "endpoint": url.removesuffix(f"/{self.bucket}") if self.path_style else url,
            "region": self.region, "access_key_id": keys.access_key, "secret_access_key": keys.secret_key.reveal(),
            "virtual_hosted_style_request": not self.path_style,
        }  # fmt: skip
        if keys.session_token is not None:
            config["session_token"] = keys.session_token.reveal()
        if self.checksum if self.checksum is not None else _AMAZON.search(urlsplit(url).hostname or ""):
            config["checksum_algorithm"] = "SHA256"
        return S3Store(
            self.bucket, config=config,  # type: ignore[arg-type]
            client_options={
                "allow_http": url.startswith("http://"), "connect_timeout": timedelta(seconds=self.connect_timeout),
                "timeout": total or limit, "read_timeout": limit, "user_agent": "vigilhost",
            },
            retry_config={
                "max_retries": 10, "retry_timeout": timedelta(seconds=self.retry),
                "backoff": {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=10), "base": 2},
            },
        )  # fmt: skip

    def size(self, name: str) -> int | None:
        """Bytes of an object, None when there is none."""
        import obstore

        with self.as_failure(name):
            try:
                return int(obstore.head(self.store(), self.key(name))["size"])
            except FileNotFoundError:
                return None

    @contextmanager
    def as_failure(self, name: str) -> Iterator[None]:
        """Turns what the library raises into TargetFailed, on one line and without the keys."""
        from obstore.exceptions import BaseError, PermissionDeniedError
        from urllib3.exceptions import HTTPError

        try:
            yield
        except TargetFailed:
            raise
        except FileNotFoundError as error:
            if NO_BUCKET in str(error):  # which is no word about the object
                raise TargetFailed(self._failure(name, error)) from None
            raise Absent(f"{self.shown(name)}: no such object") from error
        except (BaseError, HTTPError, Refusal, OSError, ValueError) as error:
            may_not = isinstance(error, PermissionDeniedError) or (isinstance(error, Refusal) and error.is_forbidden)
            raise (Forbidden if may_not else TargetFailed)(self._failure(name, error)) from None

    def _failure(self, name: str, error: Exception) -> str:
        # Below this line the library prints its own structures.
        said = one_line(plain(str(error).partition("\n\nDebug source")[0]))
        return f"{self.shown(name)}: {self._without_secrets(said)}"

    def _without_secrets(self, text: str) -> str:
        keys = self._keys()
        for secret in (keys.secret_key, keys.session_token):
            if secret is not None:
                text = text.replace(secret.reveal(), "***")
        return text


def _from_environment(name: str) -> Secret | None:
    text = os.environ.get(name)
    return Secret(text) if text else None
