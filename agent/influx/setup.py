"""Brings an InfluxDB 2 to a Plan: what is right stays, what differs is changed, what is missing is made."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, NamedTuple, TypeVar
from urllib.parse import urlencode

import urllib3
from influxdb_client import (
    BucketRetentionRules,
    BucketsService,
    InfluxDBClient,
    OrganizationsService,
    PatchBucketRequest,
    PatchRetentionRule,
    PostBucketRequest,
    TaskCreateRequest,
    TasksService,
    TaskUpdateRequest,
)
from influxdb_client.rest import ApiException

from agent.core.units import format_duration
from agent.influx.plan import Plan, WantedBucket, WantedTask
from sinks.influxdb import InfluxDB

T = TypeVar("T")
Change = Literal["there", "made", "changed"]

_TIMEOUT_MS: Final = 15_000
_MOST: Final = 100  # of one page; names are asked for, so there is one or none


class SetupError(Exception):
    """It cannot be set up; the text says why and what to do."""


class Done(NamedTuple):
    """What became of one bucket, task or token."""

    what: str
    change: Change
    detail: str


class Server:
    """One organisation of an InfluxDB 2. `token`: of somebody who may manage it; the sink's own may do less."""

    def __init__(self, sink: InfluxDB, token: str) -> None:
        """Raise SetupError when the sink's options leave open where to work."""
        if sink.version != "2":
            raise SetupError("version: InfluxDB 1 has no buckets and no tasks; use its own retention policies and "
                             "continuous queries")  # fmt: skip
        if not sink.org:
            raise SetupError("org: is empty; write the organisation's name into the sink")
        if not token:
            raise SetupError("there is no token; give --token-file FILE, INFLUX_TOKEN or the sink's own token")
        self._sink = sink
        self._client = InfluxDBClient(
            url=sink.url.rstrip("/"), token=token, org=sink.org, timeout=_TIMEOUT_MS, verify_ssl=sink.verify_tls,
            ssl_ca_cert=sink.ca_file or None,
        )  # fmt: skip
        self._buckets = BucketsService(self._client.api_client)
        self._tasks = TasksService(self._client.api_client)
        self._org_id = ""

    def apply(self, plan: Plan, *, may_shorten: bool) -> Iterator[Done]:
        """Do one thing after the other and say what became of it. Raise SetupError at the first that cannot be done.

        `may_shorten`: a bucket that is there may get a shorter retention, which deletes what is older.
        """
        self._org_id = self._organisation()
        found = {wanted.name: self._bucket(wanted.name) for wanted in plan.buckets}
        for wanted in plan.buckets:
            _refuse_to_delete(wanted, found[wanted.name], may_shorten=may_shorten)
        for wanted in plan.buckets:
            yield self._put_bucket(wanted, found[wanted.name])
        for task in plan.tasks:
            yield self._put_task(task)

    def check_writing(self) -> Done:
        """May the sink's own token write? Nothing is written. Raise SetupError when it may not."""
        sink = self._sink
        own = sink.token.reveal() if sink.token else ""
        answer = self._write_nothing(own)
        # Without points InfluxDB says so (400), but only to those who may write.
        if answer.status in {204, 400}:
            return Done(f"token of the sink may write to {sink.bucket}", "there", "")
        raise SetupError(f"the sink's token may not write to {sink.bucket}: {_message(answer.status, answer.data)}; "
                         f"make one with `influx auth create --org {sink.org} --write-bucket ID`")  # fmt: skip

    def _write_nothing(self, token: str) -> Any:
        sink = self._sink
        pool = urllib3.PoolManager(
            cert_reqs="CERT_REQUIRED" if sink.verify_tls else "CERT_NONE", ca_certs=sink.ca_file or None,
            timeout=urllib3.Timeout(total=_TIMEOUT_MS / 1000), retries=False,
        )  # fmt: skip
        headers = {"Authorization": f"Token {token}", "Content-Type": "text/plain; charset=utf-8"}
        fields = {"org": sink.org, "bucket": sink.bucket, "precision": "ns"}
        url = f"{sink.url.rstrip('/')}/api/v2/write"
        try:
            return pool.request("POST", f"{url}?{urlencode(fields)}", body=b"", headers=headers)
        except (OSError, urllib3.exceptions.HTTPError) as error:
            raise SetupError(f"{sink.url}: {error}") from error

    def close(self) -> None:
        self._client.close()

    def _organisation(self) -> str:
        """The organisation's id."""
        name = self._sink.org
        service = OrganizationsService(self._client.api_client)
        try:
            found = self._call("organisations", lambda: service.get_orgs(org=name))
        except _NotFound as error:
            raise SetupError(f"org: there is no organisation {name!r} on {self._sink.url}, or this token may not see "
                             "it; `influx org list` names them") from error  # fmt: skip
        if found.orgs is None:
            raise self._stranger("its answer about organisations has none of an InfluxDB 2's properties")
        for one in found.orgs:
            if name in (one.name, one.id):
                return str(one.id)
        raise SetupError(f"org: there is no organisation {name!r} on {self._sink.url}, or this token may not see it")

    def _bucket(self, name: str) -> Any:
        """The bucket of that name, None when there is none."""
        try:
            found = self._call("buckets", lambda: self._buckets.get_buckets(org_id=self._org_id, name=name))
        except _NotFound:
            return None
        return next((one for one in found.buckets or [] if one.name == name), None)

    def _put_bucket(self, wanted: WantedBucket, found: Any) -> Done:
        what, keeps = f"bucket {wanted.name}", f"keeps {_lasting(wanted.seconds)}"
        if found is None:
            rules = [BucketRetentionRules(type="expire", every_seconds=wanted.seconds)] if wanted.seconds else []
            request = PostBucketRequest(
                org_id=self._org_id, name=wanted.name, description=wanted.description, retention_rules=rules
            )
            self._call(what, lambda: self._buckets.post_buckets(request))
            return Done(what, "made", keeps)
        before = _seconds_of(found)
        if before == wanted.seconds:
            return Done(what, "there", keeps)
        rule = PatchRetentionRule(type="expire", every_seconds=wanted.seconds)
        change = PatchBucketRequest(retention_rules=[rule])
        self._call(what, lambda: self._buckets.patch_buckets_id(found.id, change))
        return Done(what, "changed", f"{keeps}, before: {_lasting(before)}")

    def _put_task(self, wanted: WantedTask) -> Done:
        what = f"task {wanted.name}"
        found = self._call(what, lambda: self._tasks.get_tasks(org_id=self._org_id, name=wanted.name, limit=_MOST))
        same = [one for one in found.tasks or [] if one.name == wanted.name]
        if len(same) > 1:
            ids = ", ".join(str(one.id) for one in same)
            raise SetupError(f"{what}: there are {len(same)} of this name ({ids}); delete all but one")
        if not same:
            request = TaskCreateRequest(
                org_id=self._org_id, flux=wanted.flux, description=wanted.description, status="active"
            )
            self._call(what, lambda: self._tasks.post_tasks(request))
            return Done(what, "made", "active")
        (one,) = same
        if one.flux.strip() == wanted.flux.strip() and one.status == "active":
            return Done(what, "there", "active")
        why = "was inactive" if one.status != "active" else "its Flux differed"
        update = TaskUpdateRequest(flux=wanted.flux, status="active", description=wanted.description)
        self._call(what, lambda: self._tasks.patch_tasks_id(one.id, update))
        return Done(what, "changed", why)

    def _call(self, what: str, request: Callable[[], T]) -> T:
        """One request; errors become sentences. Raise SetupError, _NotFound for a 404 that an InfluxDB 2 gave."""
        try:
            return request()
        except ApiException as error:
            raise self._explained(what, error) from error
        except (OSError, urllib3.exceptions.HTTPError) as error:
            raise SetupError(f"{self._sink.url}: cannot be reached: {error}") from error
        except (ValueError, TypeError, AttributeError) as error:  # an answer that is none of the API's
            raise self._stranger(f"its answer about {what} cannot be read: {error}") from error

    def _explained(self, what: str, error: ApiException) -> Exception:
        status, text = error.status, _message(error.status, error.body)
        if not status:  # influxdb-client reports a failed TLS handshake as an answer without status
            return SetupError(f"{self._sink.url}: {' '.join(str(error.reason).split())}")
        is_ours = _code(error.body) is not None
        if status == 401:
            return SetupError(f"the token is not accepted: {text}; an operator's or an all-access token of the "
                              "organisation is needed (`influx auth list`)")  # fmt: skip
        if status == 403:
            return SetupError(f"{what}: the token may not do this: {text}; an all-access token of the organisation may")
        if status == 404 and is_ours:
            return _NotFound(text)
        if not is_ours and status < 500:
            return self._stranger(text)
        return SetupError(f"{what}: {text}")

    def _stranger(self, text: str) -> SetupError:
        return SetupError(f"{self._sink.url} does not answer as an InfluxDB 2 does ({text}): InfluxDB 1 and 3 and "
                          "VictoriaMetrics have no buckets with tasks; set their retention their own way")  # fmt: skip


class _NotFound(Exception):
    """An InfluxDB 2 says that there is no such thing."""


def _refuse_to_delete(wanted: WantedBucket, found: Any, *, may_shorten: bool) -> None:
    before = _seconds_of(found) if found is not None else None
    if before is None or may_shorten:
        return
    if wanted.seconds and (before == 0 or before > wanted.seconds):
        raise SetupError(f"bucket {wanted.name}: keeps {_lasting(before)} now; {_lasting(wanted.seconds)} would "
                         "delete what is older; --shorten allows it, or ask for what it keeps (--raw)")  # fmt: skip


def _seconds_of(bucket: Any) -> int:
    """Its retention in seconds, 0 for ever: no rule, or one of 0."""
    return int(next((rule.every_seconds for rule in bucket.retention_rules or []), 0) or 0)


def _lasting(seconds: int) -> str:
    return format_duration(float(seconds)) if seconds else "for ever"


def _code(body: Any) -> str | None:
    """The error code of an InfluxDB 2, None when the body is none of its errors."""
    try:
        found = json.loads(body)
    except (ValueError, TypeError):
        return None
    return found.get("code") if isinstance(found, dict) and isinstance(found.get("message"), str) else None


def _message(status: int | None, body: Any) -> str:
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or "")
    if _code(body) is not None:
        text = json.loads(text)["message"]
    text = " ".join(text.split())
    return f"HTTP {status}: {text[:200]}" if text else f"HTTP {status}"
