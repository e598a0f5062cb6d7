"""Ceph's S3 gateway over a cluster of one monitor and one store in memory: versions, object lock, users and policies.

What the other S3 server of the tests does not know, this one enforces. Nobody logs in to the cluster behind it.
"""

from __future__ import annotations

import uuid
from contextlib import ExitStack
from pathlib import Path

from tests.servers.process import LOOPBACK, Server, listens, run
from tests.servers.programs import need, program

_CLUSTER = """[global]
fsid = {fsid}
mon host = [v2:{address}:{port}]
public addr = {address}
auth cluster required = none
auth service required = none
auth client required = none
# Without a login there is no session key to encrypt with.
ms mon client mode = crc
ms bind msgr1 = false
mon data = {directory}/monitor
mon allow pool size one = true
# The maps that each step of a start waits for are agreed on at once instead of every second.
paxos propose interval = 0.05
paxos min wait = 0.01
osd pool default size = 1
osd pool default pg num = 1
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 1073741824
run dir = {directory}
admin socket =
crash dir = {directory}
log file =
log to stderr = true
err to stderr = true
"""


class _Monitor(Server):
    """Knows who belongs to the cluster. Its port is in its own map, so each start makes an empty cluster."""

    name = "ceph-mon"

    def command(self) -> list[str]:
        self.fsid = str(uuid.uuid4())
        text = _CLUSTER.format(fsid=self.fsid, address=LOOPBACK, port=self.port, directory=self.data_dir)
        (self.data_dir / "ceph.conf").write_text(text)
        members = self.data_dir / "members"
        address = f"[v2:{LOOPBACK}:{self.port}]"
        run("monmaptool", "--create", "--clobber", "--addv", "a", address, "--fsid", self.fsid,
            "--set-min-mon-release", "pacific", members)  # fmt: skip
        run("rm", "--recursive", "--force", self.data_dir / "monitor")
        run(*self.program(self.name), "--id=a", "--mkfs", f"--monmap={members}")
        return [*self.program(self.name), "--id=a", "--foreground", f"--public-addr={address}"]

    def program(self, name: str) -> list[str]:
        """How a program of the cluster's is called."""
        return [name, f"--conf={self.data_dir}/ceph.conf"]


class _Store(Server):
    """Keeps the objects, in memory."""

    name = "ceph-osd"

    def __init__(self, monitor: _Monitor) -> None:
        super().__init__()
        self._monitor = monitor

    def prepare(self) -> None:
        own, ceph = str(uuid.uuid4()), self._monitor.program
        number = run(*ceph("ceph"), "--connect-timeout=30", "osd", "new", own).strip()
        (self.data_dir / "objects").mkdir()
        self._program = [*ceph(self.name), f"--id={number}", f"--osd-data={self.data_dir}/objects"]
        run(*self._program, "--mkfs", f"--osd-uuid={own}")

    def command(self) -> list[str]:
        return [*self._program, "--foreground"]

    def ready(self) -> bool:
        return "state: booting -> active" in self.log


def need_radosgw() -> None:
    """Skip the running test where a part of this, or its owner's `aws`, is missing; with CI=true, fail it."""
    need("ceph-mon", "ceph-osd", "radosgw", "aws")


class RadosGw(Server):
    """The gateway; `add_user` makes somebody with a key. The cluster starts before it and ends after it."""

    name = "radosgw"

    def __init__(self) -> None:
        super().__init__()
        self._cluster = ExitStack()

    def prepare(self) -> None:
        self._monitor = self._cluster.enter_context(_Monitor())
        self._cluster.enter_context(_Store(self._monitor))

    def command(self) -> list[str]:
        where = f"--rgw-frontends=beast endpoint={LOOPBACK}:{self.port}"
        return [*self._monitor.program(self.name), "--name=client.rgw", "--foreground", where]

    def ready(self) -> bool:
        return listens(self.port)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._cluster.close()

    def add_user(self, name: str, access_key: str, secret_key: str) -> None:
        """Somebody with a key who may make buckets, and what policies of other buckets allow."""
        run(*self._monitor.program("radosgw-admin"), "user", "create", f"--uid={name}", f"--display-name={name}",
            f"--access-key={access_key}", f"--secret-key={secret_key}")  # fmt: skip

    def make_aws(self, directory: Path, access_key: str, secret_key: str) -> None:
        """A program `aws` in the directory, which is Amazon's with this server and key."""
        words = {
            "AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key, "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_PAGER": "",
            # Newer ones send checksums in a form that this server does not know.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required", "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }  # fmt: skip
        exports = "".join(f"export {name}={value}\n" for name, value in words.items())
        file = directory / "aws"
        file.write_text(f'#!/bin/sh\n{exports}exec {program("aws")} --endpoint-url {self.url} "$@"\n')
        file.chmod(0o755)
