"""A bucket with object lock, made as the manual says, and keys that may do less: Ceph's gateway enforces both."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.core.secrets import Secret
from backup.errors import Forbidden, TargetFailed
from backup.target import Target
from backup.targets.s3 import S3
from backup.targets.s3_multipart import dangling
from backup.targets.s3_request import Bucket, Keys, Refusal, tag
from tests.agent.cli.test_backup_cmd import Operator
from tests.backup.hosts import BackedUp, ended
from tests.backup.targets.contract import (
    MIB,
    NAME,
    backups,
    comes_back,
    each_promise,
    far,
    fill,
    job_to,
    keeps_two_and_restores,
    send,
)
from tests.servers.process import LOOPBACK, wait_until
from tests.servers.radosgw import RadosGw, need_radosgw
from tests.servers.tcp_proxy import TcpProxy

PAGE = (Path(__file__).parents[3] / "docs" / "backup-cookbook.md").read_text()
LOCKED = "backups-locked"  # the manual's
PLAIN = "backups-plain"  # without versions, for keys that may do less
OWNER = "owner"
WRITES, NEVER_DELETES, READS = "web1", "keeper", "reader"  # who may do what
MAY = {
    NEVER_DELETES: ["s3:ListBucket", "s3:ListBucketMultipartUploads", "s3:PutObject", "s3:GetObject"],
    READS: ["s3:ListBucket", "s3:ListBucketMultipartUploads", "s3:GetObject"],
}


def secret_of(user: str) -> str:
    return f"canary-secret-of-{user}"


@dataclass
class Vault:
    """The server, and a directory in which each user has an `aws` of his own."""

    server: RadosGw
    directory: Path

    def add(self, user: str) -> None:
        self.server.add_user(user, user, secret_of(user))
        (self.directory / user).mkdir()
        self.server.make_aws(self.directory / user, user, secret_of(user))

    def types(self, user: str, text: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{self.directory / user}:{os.environ['PATH']}", "HOME": str(self.directory)}
        return subprocess.run(["bash", "-euo", "pipefail", "-c", text], capture_output=True, text=True, check=False,
                              cwd=self.directory, env=environment, timeout=120)  # fmt: skip

    def lets(self, bucket: str, policy: dict[str, Any]) -> None:
        (self.directory / f"{bucket}.json").write_text(json.dumps(policy))
        done = self.types(OWNER, f"aws s3api put-bucket-policy --bucket={bucket} --policy=file://{bucket}.json")
        assert done.returncode == 0, done.stderr

    def versions(self, prefix: str) -> dict[str, dict[str, str]]:
        """Key to id of the versions of the locked bucket, and of its delete markers."""
        page = self.bucket(OWNER, LOCKED).ask("GET", "", {"versions": "", "prefix": prefix})
        return {kind: {tag(one, "Key"): tag(one, "VersionId") for one in re.findall(f"<{kind}>(.*?)</{kind}>", page)}
                for kind in ("Version", "DeleteMarker")}  # fmt: skip

    def bucket(self, user: str, name: str) -> Bucket:
        return Bucket(f"{self.server.url}/{name}", "us-east-1", Keys(user, Secret(secret_of(user))), 20.0)

    def s3(self, user: str, bucket: str, prefix: str, **more: Any) -> S3:
        return S3(**{"bucket": bucket, "prefix": prefix, "endpoint": self.server.url, "access_key": user,
                     "secret_key": Secret(secret_of(user)), "part_size": 5 * MIB, "retry": 2.0, "timeout": 20.0,
                     "checksum": True, **more})  # fmt: skip

    def entry(self, user: str, bucket: str, prefix: str, directory: Path, **more: Any) -> dict[str, Any]:
        """The same as a job's file has it."""
        key = directory / f"{user}.key"
        key.write_text(secret_of(user))
        key.chmod(0o600)
        return {"type": "s3", "bucket": bucket, "prefix": prefix, "endpoint": self.server.url, "access_key": user,
                "secret_key": {"file": str(key)}, "part_size": "5MiB", "retry": "2s",
                "checksum": True, **more}  # fmt: skip


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    need_radosgw()
    with RadosGw() as server:
        made = Vault(server, tmp_path_factory.mktemp("vault"))
        for user in (OWNER, WRITES, NEVER_DELETES, READS):
            made.add(user)
        for block in manual():
            done = made.types(OWNER, block)
            assert done.returncode == 0, f"{block}\n{done.stderr}"
        made.bucket(OWNER, PLAIN).ask("PUT", "", {})
        made.lets(PLAIN, policy())
        # Here who writes an object owns it, as the manual says of such servers.
        manuals = json.loads((made.directory / "policy.json").read_text())
        made.lets(LOCKED, {**manuals, "Statement": [*manuals["Statement"], allowed(OWNER, ["s3:*"], LOCKED)]})
        yield made


def manual() -> list[str]:
    """The blocks of commands of the chapter, for an account of this server: they have no number here."""
    chapter = PAGE.partition("## What a thief of the host cannot delete")[2].partition("\n## ")[0]
    blocks = re.findall(r"^( *)```sh\n(.*?)^ *```$", chapter, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    return [re.sub(f"^{indent}", "", text, flags=re.MULTILINE).replace("iam::123456789012:", "iam:::")
            for indent, text in blocks]  # fmt: skip


def policy() -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": [allowed(user, actions, PLAIN) for user, actions in MAY.items()]}


def allowed(user: str, actions: list[str], bucket: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam:::user/{user}"}, "Action": actions,
            "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]}  # fmt: skip


# The bucket of the manual, with a key that may do what the manual says and no more.


@each_promise
def test_it_keeps_what_a_target_promises(
    vault: Vault, holds: Callable[[Target], None], request: pytest.FixtureRequest
) -> None:
    holds(vault.s3(WRITES, LOCKED, f"promise/{holds.__name__}"))


def test_retention_hides_and_the_thief_of_the_key_takes_nothing_away(
    vault: Vault, host: BackedUp, tmp_path: Path
) -> None:
    keeps_two_and_restores(host, vault.entry(WRITES, LOCKED, "kept", tmp_path), tmp_path / "to")
    kept = {f"kept/{name}" for name in far(host).names("")}
    before = vault.versions("kept/")
    hidden = before["Version"].keys() - kept
    assert hidden == before["DeleteMarker"].keys()
    assert len(hidden) == 2  # an archive and its manifest
    key = min(hidden)
    nothing_takes_away(vault, key, before["Version"][key])
    assert vault.versions("kept/") == before


def test_doctor_is_content_with_the_rights_that_the_manual_gives(vault: Vault, host: BackedUp, tmp_path: Path) -> None:
    job_to(host, vault.entry(WRITES, LOCKED, "asked", tmp_path))
    said = Operator(host).types("doctor", "job").stdout
    assert [line for line in said.splitlines() if "target far" in line] == [
        "ok   job: target far: 0 backups", "warn job: target far: holds no verified backup yet",
    ]  # fmt: skip
    assert vault.versions("asked/") == {"Version": {}, "DeleteMarker": {}}


def nothing_takes_away(vault: Vault, key: str, version: str) -> None:
    """Neither the host's key nor, while it is locked, the owner's takes a version away."""
    for user in (WRITES, OWNER):
        with pytest.raises(Refusal, match="403 AccessDenied"):
            vault.bucket(user, LOCKED).ask("DELETE", key, {"versionId": version})
    asked = vault.bucket(OWNER, LOCKED)
    lock = asked.ask("GET", key, {"retention": "", "versionId": version})
    assert "COMPLIANCE" in lock
    what, where = f"--bucket={LOCKED} --key={key} --version-id={version}", f"--bucket={LOCKED}"
    soon = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    shorter = f"put-object-retention {what} --retention Mode=COMPLIANCE,RetainUntilDate={soon}"
    for user, attempt in (
        (WRITES, f"delete-objects {where} --delete 'Objects=[{{Key={key},VersionId={version}}}]' "),
        (WRITES, shorter),
        (WRITES, f"put-object-lock-configuration {where} --object-lock-configuration ObjectLockEnabled=Enabled"),
        (WRITES, f"put-bucket-policy {where} --policy=file://{PLAIN}.json"),
        (OWNER, f"delete-object {what} --bypass-governance-retention"),
        (OWNER, f"{shorter} --bypass-governance-retention"),
        (OWNER, f"put-bucket-versioning {where} --versioning-configuration Status=Suspended"),
    ):
        assert vault.types(user, f"aws s3api {attempt}").returncode != 0, (user, attempt)
    assert asked.ask("GET", key, {"retention": "", "versionId": version}) == lock
    assert "Enabled" in asked.ask("GET", "", {"versioning": ""})


# Keys that may not delete, or not write.


def test_a_key_that_may_not_delete_makes_good_backups_and_says_what_stays(
    vault: Vault, host: BackedUp, tmp_path: Path
) -> None:
    targets = {
        "far": vault.entry(NEVER_DELETES, PLAIN, "denied", tmp_path),
        "store": {"type": "local", "path": str(host.store)},
    }  # fmt: skip
    host.job_now = host.job(targets=targets, retention={"keep_last": 2})
    for number in range(4):
        fill(host)
        ran = host.run()
        assert ran.code == 0, ran.result
        assert {one["status"] for one in ran.result["targets"].values()} == {"ok"}
        assert ran.result["status"] == ("ok" if number < 2 else "warn")
    (warning,) = ran.result["warnings"]
    assert warning.startswith("far: retention: 2 backups that no rule keeps stay: s3://backups-plain/denied/web1/job/")
    assert "403 AccessDenied: the key may not do this; let it delete, or write `retention: forever`" in warning
    assert [len(backups(host, name)) for name in targets] == [4, 2]
    comes_back(host, backups(host)[-1], tmp_path / "to")

    operator = Operator(host)
    assert "job: far: 2 backups that no rule keeps stay: s3://" in operator.types("prune", code=1).stderr
    assert len(backups(host)) == 4
    doctor = operator.types("doctor", "job").stdout
    assert "warn job: target far: what killed uploads leave cannot be removed: s3://backups-plain/denied: " in doctor

    job_to(host, targets["far"])  # retention: forever
    ran = host.run()
    assert (ran.result["status"], ran.result["warnings"]) == ("ok", [])


def test_a_prune_goes_on_with_the_other_targets(vault: Vault, host: BackedUp, tmp_path: Path) -> None:
    targets = {
        "far": vault.entry(NEVER_DELETES, PLAIN, "pruned", tmp_path),
        "store": {"type": "local", "path": str(host.store)},
    }  # fmt: skip
    host.job_now = host.job(targets=targets)
    for _ in range(3):
        fill(host)
        assert host.run().code == 0
    host.job_now = host.job(targets=targets, retention={"keep_last": 2})
    plans = {one["target"]: one for one in Operator(host).json("prune", code=1)["plans"]}
    assert [len(plans[name]["deleted"]) for name in targets] == [0, 1]
    assert [len(backups(host, name)) for name in targets] == [3, 2]


def test_what_a_killed_run_left_and_may_not_be_removed_harms_no_backup(
    vault: Vault, host: BackedUp, tmp_path: Path
) -> None:
    with TcpProxy(vault.server.port) as proxy:
        url = f"http://{LOOPBACK}:{proxy.port}"
        job_to(host, vault.entry(NEVER_DELETES, PLAIN, "killed", tmp_path, endpoint=url),
               compression={"program": "none"})  # fmt: skip
        fill(host, 20 * MIB)
        worker = host.start()
        proxy.slow(2_000_000)
        wait_until(lambda: unfinished(vault, "killed/") != [], "the upload to begin", 30)
        os.kill(worker.pid, signal.SIGKILL)
        assert ended(worker).code == -signal.SIGKILL
        proxy.pass_through()
        ran = host.run()
        assert (ran.code, ran.result["status"]) == (0, "warn"), ran.result
        (warning,) = ran.result["warnings"]
        assert warning.startswith(
            "far: what a broken run left there cannot be removed: s3://backups-plain/killed/web1/job:"
        )
        assert "403 AccessDenied: the key may not do this" in warning
        assert len(unfinished(vault, "killed/")) == 1
        comes_back(host, backups(host)[-1], tmp_path / "to")


def unfinished(vault: Vault, prefix: str) -> list[str]:
    return [key for key, _ in dangling(vault.bucket(OWNER, PLAIN), prefix)]


def test_a_key_that_may_not_write_is_found_before_the_dump(vault: Vault, host: BackedUp, tmp_path: Path) -> None:
    send(vault.s3(OWNER, PLAIN, "read"), NAME, b"old")
    target = vault.s3(READS, PLAIN, "read")
    assert list(target.names("")) == [NAME]
    for call in (
        target.check,
        lambda: target.put("a", b""),
        lambda: send(target, "b", b"x"),
        lambda: target.delete(NAME),
    ):
        with pytest.raises(Forbidden, match=r"403 AccessDenied: the key may not do this$"):
            call()
    job_to(host, vault.entry(READS, PLAIN, "read", tmp_path))
    ran = host.run()
    assert (ran.code, ran.result["status"]) == (1, "fail")
    assert ran.phases == ["sweep"]
    doctor = Operator(host).types("doctor", "job", code=1)
    assert "FAIL job: target far: s3://backups-plain/read: PUT" in doctor.stdout
    assert unfinished(vault, "read/") == []
    assert list(target.names("")) == [NAME]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"secret_key": Secret("wrong-secret")}, "403 SignatureDoesNotMatch: secret_key is not the one of access_key"),
        ({"access_key": "nobody"}, "403 InvalidAccessKeyId: the server knows no such access_key"),
        ({"bucket": "missing"}, "404 NoSuchBucket: there is no such bucket; make it, or correct `bucket`"),
    ],
)
def test_what_cannot_be_used_says_why_in_one_sentence(vault: Vault, given: dict[str, Any], says: str) -> None:
    target = vault.s3(**{"user": OWNER, "bucket": PLAIN, "prefix": "errors", **given})
    for call in (target.check, lambda: target.put("a", b""), lambda: list(target.names("")), lambda: target.open("a"),
                 lambda: target.sweep("a")):  # fmt: skip
        with pytest.raises(TargetFailed) as failed:
            call()
        assert str(failed.value).endswith(says), failed.value
        assert "\n" not in str(failed.value)
        assert "<" not in str(failed.value)
