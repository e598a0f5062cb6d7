"""The few calls of the Docker API that a backup of volumes needs, over its unix socket. Podman's socket answers too."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from backup.errors import SourceFailed

_ANSWER_S = 60.0
_MOST_BYTES = 64 << 20  # of an answer


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class DockerAPI:
    """A daemon, reached by its socket. Every call raises SourceFailed with the daemon's words."""

    def __init__(self, path: str) -> None:
        self._path = path

    def version(self) -> str:
        """Version of the daemon."""
        return str(self._call("GET", "/version").get("Version", ""))

    def volumes(self) -> list[dict[str, Any]]:
        """Every volume: Name, Driver, Mountpoint, Labels, Options."""
        return list(self._call("GET", "/volumes").get("Volumes") or [])

    def volume(self, name: str) -> dict[str, Any] | None:
        """One volume; None when there is none of that name."""
        found: dict[str, Any] | None = self._call("GET", f"/volumes/{quote(name, safe='')}", missing=None)
        return found

    def create_volume(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._call("POST", "/volumes/create", body={"Name": name})
        return found

    def users(self, volume: str) -> list[dict[str, Any]]:
        """Containers that run (or are paused) and use a volume, as the daemon inspects them."""
        filters = json.dumps({"volume": [volume], "status": ["running", "paused", "restarting"]})
        listed = self._call("GET", f"/containers/json?{urlencode({'filters': filters})}")
        found = [self.container(one["Id"]) for one in listed]
        # The filter takes prefixes of a mount's path as well.
        return [one for one in found if one is not None and volume in _volumes_of(one)]

    def container(self, name: str) -> dict[str, Any] | None:
        """One container; None when it has gone."""
        found: dict[str, Any] | None = self._call("GET", f"/containers/{quote(name, safe='')}/json", missing=None)
        return found

    def change(self, container: str, verb: str, grace_s: int = 0) -> None:
        """`stop`, `start`, `pause` or `unpause`. One that is so already is no error."""
        asked = f"/containers/{quote(container, safe='')}/{verb}"
        if verb == "stop":
            asked += f"?t={grace_s}"
        self._call("POST", asked, timeout_s=_ANSWER_S + grace_s)

    def _call(self, method: str, path: str, *, body: Mapping[str, Any] | None = None, timeout_s: float = _ANSWER_S,
              missing: Any = ...) -> Any:  # fmt: skip
        """The daemon's answer, decoded; `missing` where it has no such thing and that is given."""
        connection = _UnixConnection(self._path, timeout_s)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"} if content else {})
            answer = connection.getresponse()
            status, said = answer.status, answer.read(_MOST_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise SourceFailed(f"{self._path}: {str(error).lower() or type(error).__name__}; is the Docker daemon "
                               "running, and may this user talk to it?") from error  # fmt: skip
        finally:
            connection.close()
        if status == http.HTTPStatus.NOT_FOUND and missing is not ...:
            return missing
        if status >= http.HTTPStatus.BAD_REQUEST:
            raise SourceFailed(f"docker: {method} {path.partition('?')[0]}: {status} {_message(said)}")
        if not said:
            return {}
        try:
            return json.loads(said)
        except ValueError as error:
            raise SourceFailed(f"{self._path}: {path.partition('?')[0]}: no JSON; is this Docker's socket?") from error


def _message(said: bytes) -> str:
    try:
        return str(json.loads(said)["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return said[:200].decode("utf-8", "replace")


def _volumes_of(container: Mapping[str, Any]) -> set[str]:
    return {str(mount.get("Name")) for mount in container.get("Mounts") or () if mount.get("Type") == "volume"}
