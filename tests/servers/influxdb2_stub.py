"""A scripted STUB of InfluxDB 2's management API; Debian has no InfluxDB 2, and no other server has this API.

It keeps organisations, buckets and tasks in memory and is strict: unknown paths, parameters and properties, missing
required ones and wrong types are refused, as the v2 OpenAPI document declares them. It runs no Flux.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.servers.scripted_http import Reply, Request, ScriptedHttp, as_json

ORG_ID = "0000000000000001"
NOW = "2026-01-02T03:04:05Z"
_BUCKET = {"orgID": str, "name": str, "description": str, "rp": str, "retentionRules": list, "schemaType": str}
_PATCH_BUCKET = {"name": str, "description": str, "retentionRules": list}
_RULE = {"type": str, "everySeconds": int, "shardGroupDurationSeconds": int}
_TASK = {"orgID": str, "org": str, "status": str, "flux": str, "description": str}
_PATCH_TASK = {
    "status": str, "flux": str, "name": str, "every": str, "cron": str, "offset": str, "description": str,
}  # fmt: skip
_OPTION = re.compile(r'^option task = \{name: "((?:[^"\\]|\\.)*)", every: (\w+), offset: (\w+)\}$', re.MULTILINE)


class RefusedError(Exception):
    """An answer that is an error: status, code, message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.reply = as_json({"code": code, "message": message}, status)


@dataclass
class InfluxDB2Stub:
    """What it holds. `admin`: the token that may do everything; `writer`: one that may only write."""

    org: str = "home"
    admin: str = "admin-token"
    writer: str = "writer-token"
    buckets: dict[str, dict[str, Any]] = field(default_factory=dict)  # by id
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)  # method and path of every request that changed something

    def serve(self) -> ScriptedHttp:
        return ScriptedHttp(self.answer)

    def add_bucket(self, name: str, seconds: int) -> None:
        """One that somebody made before."""
        rules = [{"type": "expire", "everySeconds": seconds, "shardGroupDurationSeconds": 3600}]
        id = f"{len(self.buckets) + 0xB0:016x}"
        self.buckets[id] = {"id": id, "name": name, "orgID": ORG_ID, "type": "user", "retentionRules": rules}

    def answer(self, request: Request) -> Reply:
        try:
            return self._answer(request)
        except RefusedError as error:
            return error.reply

    def _answer(self, request: Request) -> Reply:
        token = request.headers.get("authorization", "").removeprefix("Token ")
        if token not in (self.admin, self.writer):
            raise RefusedError(401, "unauthorized", "unauthorized access")
        if (request.method, request.path) == ("POST", "/api/v2/write"):
            return self._write(request)
        if token != self.admin:
            raise RefusedError(403, "forbidden", "insufficient permissions")
        kind, _, id = request.path.removeprefix("/api/v2/").partition("/")
        handler = getattr(self, f"_{request.method.lower()}_{kind}{'_id' if id else ''}", None)
        if handler is None or not request.path.startswith("/api/v2/"):
            raise RefusedError(404, "not found", "path not found")
        if request.method in {"POST", "PATCH"}:
            self.changes.append(f"{request.method} {request.path}")
        reply: Reply = handler(request, id) if id else handler(request)
        return reply

    def _write(self, request: Request) -> Reply:
        (bucket,) = request.query["bucket"]
        if bucket not in {one["name"] for one in self.buckets.values()}:
            raise RefusedError(404, "not found", f'bucket "{bucket}" not found')
        if not request.content:
            raise RefusedError(400, "invalid", "writing requires points")
        return Reply(204)

    def _get_orgs(self, request: Request) -> Reply:
        wanted = _query(request, {"org", "orgID", "limit", "offset"}).get("org", self.org)
        if wanted != self.org:
            raise RefusedError(404, "not found", f'organization name "{wanted}" not found')
        links = {"self": "/api/v2/orgs"}
        return as_json({"links": links, "orgs": [{"id": ORG_ID, "name": self.org, "createdAt": NOW, "updatedAt": NOW}]})

    def _get_buckets(self, request: Request) -> Reply:
        asked = _query(request, {"name", "org", "orgID", "limit", "offset", "after", "id"})
        self._must_be_ours(asked.get("orgID", ORG_ID))
        found = [one for one in self.buckets.values() if asked.get("name") in (None, one["name"])]
        if asked.get("name") and not found:
            raise RefusedError(404, "not found", f'bucket "{asked["name"]}" not found')
        return as_json({"links": {"self": "/api/v2/buckets"}, "buckets": found})

    def _post_buckets(self, request: Request) -> Reply:
        body = _body(request, _BUCKET, {"orgID", "name"})
        self._must_be_ours(body["orgID"])
        if any(one["name"] == body["name"] for one in self.buckets.values()):
            raise RefusedError(422, "conflict", f"bucket with name {body['name']} already exists")
        id = f"{len(self.buckets) + 0xB0:016x}"
        made = {"id": id, "type": "user", "createdAt": NOW, "updatedAt": NOW, **body}
        made["retentionRules"] = _rules(body.get("retentionRules", []), least=3600)
        self.buckets[id] = made
        return as_json(made, 201)

    def _patch_buckets_id(self, request: Request, id: str) -> Reply:
        body = _body(request, _PATCH_BUCKET, set())
        if "retentionRules" in body:
            body["retentionRules"] = _rules(body["retentionRules"], least=3600)
        self.buckets[id].update(body)
        return as_json(self.buckets[id])

    def _get_tasks(self, request: Request) -> Reply:
        asked = _query(request, {"name", "after", "user", "org", "orgID", "status", "limit", "type"})
        self._must_be_ours(asked.get("orgID", ORG_ID))
        found = [one for one in self.tasks.values() if asked.get("name") in (None, one["name"])]
        return as_json({"links": {"self": "/api/v2/tasks"}, "tasks": found})

    def _post_tasks(self, request: Request) -> Reply:
        body = _body(request, _TASK, {"flux"})
        self._must_be_ours(body.get("orgID", ""))
        id = f"{len(self.tasks) + 0x7A:016x}"
        made = {"id": id, "type": "", "org": self.org, "ownerID": ORG_ID, "createdAt": NOW, "updatedAt": NOW, **body}
        self.tasks[id] = made | self._schedule(body["flux"])
        return as_json(self.tasks[id], 201)

    def _patch_tasks_id(self, request: Request, id: str) -> Reply:
        body = _body(request, _PATCH_TASK, set())
        self.tasks[id].update(body | (self._schedule(body["flux"]) if "flux" in body else {}))
        return as_json(self.tasks[id])

    def _schedule(self, flux: str) -> dict[str, str]:
        """What InfluxDB reads out of the script, which must name buckets that are there."""
        options = _OPTION.findall(flux)
        if len(options) != 1:
            raise RefusedError(400, "invalid", "no task options defined")
        names = {one["name"] for one in self.buckets.values()}
        missing = set(re.findall(r'(?:from|to)\(bucket: "([^"]*)"\)', flux)) - names
        if missing:
            raise RefusedError(400, "invalid", f"could not find bucket {min(missing)!r}")
        name, every, offset = options[0]
        return {"name": name, "every": every, "offset": offset}

    @staticmethod
    def _must_be_ours(org_id: str) -> None:
        if org_id != ORG_ID:
            raise RefusedError(404, "not found", f"organization {org_id!r} not found")


def _query(request: Request, known: set[str]) -> dict[str, str]:
    if unknown := request.query.keys() - known:
        raise RefusedError(400, "invalid", f"unknown parameters: {sorted(unknown)}")
    return {name: values[0] for name, values in request.query.items()}


def _body(request: Request, properties: Mapping[str, type], required: set[str]) -> dict[str, Any]:
    try:
        found = json.loads(request.content)
    except ValueError as error:
        raise RefusedError(400, "invalid", f"invalid json: {error}") from error
    _must_be(found, properties, required)
    checked: dict[str, Any] = found
    return checked


def _must_be(found: Any, properties: Mapping[str, type], required: set[str]) -> None:
    if not isinstance(found, dict) or found.keys() - properties.keys() or required - found.keys():
        raise RefusedError(400, "invalid", f"not the properties declared: {sorted(found)}")
    for name, value in found.items():
        if not isinstance(value, properties[name]) or isinstance(value, bool):
            raise RefusedError(400, "invalid", f"{name}: {value!r} has a wrong type")


def _rules(rules: list[Any], least: int) -> list[dict[str, Any]]:
    """The rules as they are stored: for ever is a rule of 0 seconds in the answers of InfluxDB 2."""
    for rule in rules:
        _must_be(rule, _RULE, {"everySeconds"})
        if 0 < rule["everySeconds"] < least or rule.get("type", "expire") != "expire":
            raise RefusedError(422, "unprocessable entity", "retention period must be at least an hour")
    return [{"type": "expire", "shardGroupDurationSeconds": 3600, **rule} for rule in rules] or [
        {"type": "expire", "everySeconds": 0, "shardGroupDurationSeconds": 604800}
    ]
