"""`GET /api/v1/backups`: each job with its last result, its next run, and the backups that are kept of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from starlette.requests import Request
from starlette.responses import Response

from agent.http.asked import Asked
from agent.http.encoding import success, to_json
from agent.http.openapi import Operation, Parameter
from agent.http.refusals import Refusal, bad
from agent.http.service import Endpoint, Pieces, endpoint

_BACKUPS: Final = Operation(
    "/api/v1/backups", "Backup jobs: last run and drill, next run, RPO and RTO, and what is kept of each.",
    (Parameter("job", "Only this job."),), statuses=(200, 400, 503),
)  # fmt: skip


class Backups(Protocol):
    """Whoever knows the jobs; cheap, called on the event loop."""

    def listing(self) -> dict[str, Any]: ...


def operations(backups: Callable[[], Backups | None]) -> Sequence[tuple[Operation, Endpoint]]:
    """The endpoint with its entry in the OpenAPI document. `backups` gives None while the agent starts."""

    async def listed(_: Request, asked: Asked) -> Response:
        found = backups()
        if found is None:
            raise Refusal("unavailable", "the agent is still starting")
        told = found.listing()
        if wanted := asked.text("job"):
            known = ", ".join(one["job"] for one in told["jobs"]) or "none"
            told["jobs"] = [one for one in told["jobs"] if one["job"] == wanted]
            if not told["jobs"]:
                raise bad("job", f"no such job; there are: {known}")
        return Pieces(success(iter((to_json(told),))))

    return ((_BACKUPS, endpoint(listed)),)
