"""Multipart uploads that were never completed: found and dropped.

The object store library completes and aborts its own, but cannot list those of a process that was killed; they are
invisible, and paid for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from backup.targets.s3_request import Bucket, Refusal, tag

_UPLOAD = re.compile(r"<Upload>(.*?)</Upload>", re.DOTALL)
_MOST_PAGES = 1000
_NO_UPLOAD = "vigilhost-asks-what-it-may"


def dangling(bucket: Bucket, prefix: str) -> Iterator[tuple[str, str]]:
    """Key and id of each unfinished upload whose key begins with `prefix`. Raise Refusal, urllib3's HTTPError."""
    marker: dict[str, str] = {}
    for _ in range(_MOST_PAGES):
        page = bucket.ask("GET", "", {"uploads": "", "prefix": prefix, **marker})
        for upload in _UPLOAD.findall(page):
            yield tag(upload, "Key"), tag(upload, "UploadId")
        if tag(page, "IsTruncated") != "true":
            return
        marker = {"key-marker": tag(page, "NextKeyMarker"), "upload-id-marker": tag(page, "NextUploadIdMarker")}


def drop(bucket: Bucket, key: str, upload: str) -> None:
    """Abort one upload; one that is gone is no error. Raise Refusal, urllib3's HTTPError."""
    bucket.ask("DELETE", key, {"uploadId": upload})


def refused_to_send(bucket: Bucket, key: str) -> Refusal | None:
    """Why objects may not be written there, found without writing any; None when they may, or nobody can tell.

    A part of an upload that there is not: whoever may write is told so, everybody else is refused before that.
    """
    return _refused(bucket, "PUT", key, {"partNumber": "1", "uploadId": _NO_UPLOAD})


def refused_to_sweep(bucket: Bucket, prefix: str) -> Refusal | None:
    """Why unfinished uploads may not be found or aborted there, asked in the same way."""
    found = _refused(bucket, "GET", "", {"uploads": "", "prefix": prefix})
    return found or _refused(bucket, "DELETE", f"{prefix}any", {"uploadId": _NO_UPLOAD})


def _refused(bucket: Bucket, method: str, key: str, query: dict[str, str]) -> Refusal | None:
    try:
        bucket.ask(method, key, query)
    except Refusal as refusal:
        return refusal if refusal.is_forbidden else None
    return None
