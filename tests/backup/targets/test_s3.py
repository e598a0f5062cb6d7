"""An S3 bucket: rclone's server, with real signatures, multipart uploads and listings."""

from __future__ import annotations

import base64
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.core.secrets import Secret
from backup.errors import TargetFailed
from backup.target import Target
from backup.targets.s3 import S3
from backup.targets.s3_multipart import dangling
from backup.targets.s3_request import Bucket, Keys, sign
from tests.backup.hosts import BackedUp, ended
from tests.backup.targets.contract import (
    MIB,
    NAME,
    backups,
    comes_back,
    content_of,
    each_promise,
    fill,
    job_to,
    keeps_two_and_restores,
    send,
    write_on,
)
from tests.servers.process import LOOPBACK, free_port, wait_until
from tests.servers.rclone_s3 import ACCESS_KEY, BUCKET, SECRET_KEY, RcloneS3
from tests.servers.scripted_http import Reply, ScriptedHttp
from tests.servers.tcp_proxy import TcpProxy

REGION = "us-east-1"


def options(url: str, **more: Any) -> dict[str, Any]:
    """In a hurry: parts are small and nothing is repeated for long."""
    return {"bucket": BUCKET, "prefix": "hosts/all", "endpoint": url, "access_key": ACCESS_KEY, "part_size": "5MiB",
            "retry": "2s", "timeout": "20s", **more}  # fmt: skip


def s3(url: str, **more: Any) -> S3:
    given = options(url, part_size=5 * MIB, retry=2.0, timeout=20.0, secret_key=Secret(SECRET_KEY))
    return S3(**{**given, **more})


def entry(url: str, directory: Path, **more: Any) -> dict[str, Any]:
    """The same as a job's file has it, with the key in a file."""
    key = directory / "s3.key"
    key.write_text(SECRET_KEY)
    key.chmod(0o600)
    return {"type": "s3", **options(url), "secret_key": {"file": str(key)}, **more}


def unfinished(server: RcloneS3) -> list[str]:
    bucket = Bucket(f"{server.url}/{BUCKET}", REGION, Keys(ACCESS_KEY, Secret(SECRET_KEY)), 20.0)
    return [key for key, _ in dangling(bucket, "")]


@pytest.fixture
def proxy(rclone_s3: RcloneS3) -> Iterator[TcpProxy]:
    with TcpProxy(rclone_s3.port) as proxy:
        yield proxy


@each_promise
def test_it_keeps_what_a_target_promises(rclone_s3: RcloneS3, holds: Callable[[Target], None]) -> None:
    # This server does not look at If-None-Match; what it has to do with it is tested below.
    holds(s3(rclone_s3.url))
    wait_until(lambda: unfinished(rclone_s3) == [], "no upload to be left")


def test_backups_are_kept_by_the_rules_and_come_back(host: BackedUp, rclone_s3: RcloneS3, tmp_path: Path) -> None:
    keeps_two_and_restores(host, entry(rclone_s3.url, tmp_path), tmp_path / "to", compression={"program": "none"})
    assert unfinished(rclone_s3) == []
    assert os.listdir(rclone_s3.bucket) == ["hosts"]


def test_memory_does_not_grow_with_what_is_sent(rclone_s3: RcloneS3) -> None:
    upload = s3(rclone_s3.url).begin(NAME)
    for _ in range(20):
        upload.write(b"x" * MIB)
    before = resident()
    for _ in range(100):
        upload.write(b"x" * MIB)
    assert resident() - before < 40 * MIB
    upload.commit()


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_the_server_is_asked_to_refuse_what_is_there(scripted_http: ScriptedHttp) -> None:
    scripted_http.answer(Reply(404), Reply(412, b"<Error><Code>PreconditionFailed</Code></Error>"))
    upload = s3(scripted_http.url).begin(NAME)
    upload.write(b"small")
    with pytest.raises(TargetFailed, match="is there already"):
        upload.commit()
    assert scripted_http.requests[1].headers["if-none-match"] == "*"


@pytest.mark.parametrize("given", [{"checksum": True}, {"checksum": None}])
def test_a_checksum_goes_where_one_is_wanted(scripted_http: ScriptedHttp, given: dict[str, Any]) -> None:
    scripted_http.answer(Reply(200, headers={"ETag": '"e"'}))
    s3(scripted_http.url, **given).put("a", b"small")
    wanted = base64.b64encode(hashlib.sha256(b"small").digest()).decode() if given["checksum"] else None
    assert scripted_http.requests[0].headers.get("x-amz-checksum-sha256") == wanted


@pytest.mark.parametrize(
    ("endpoint", "is_amazons"),
    [(None, True), ("https://s3.eu-west-1.amazonaws.com", True), ("https://s3.cn-north-1.amazonaws.com.cn", True),
     ("https://s3.example.org", False), ("https://amazonaws.com.example.org", False)],
)  # fmt: skip
def test_amazons_own_servers_want_one(endpoint: str | None, *, is_amazons: bool) -> None:
    assert (s3("", endpoint=endpoint).store().config.get("checksum_algorithm") is not None) == is_amazons


def test_a_deletion_is_asked_for_again_of_a_server_that_is_busy(scripted_http: ScriptedHttp) -> None:
    scripted_http.answer(Reply(503, b"<Error><Code>SlowDown</Code></Error>"), Reply(204))
    s3(scripted_http.url).delete(NAME)
    assert [(one.method, one.path) for one in scripted_http.requests] == 2 * [("DELETE", f"/{BUCKET}/hosts/all/{NAME}")]


def test_a_deletion_that_fails_says_so(scripted_http: ScriptedHttp) -> None:
    scripted_http.answer(*3 * [Reply(503, b"<Error><Code>SlowDown</Code><Message>later</Message></Error>")])
    with pytest.raises(TargetFailed, match=r"503 SlowDown: later$"):
        s3(scripted_http.url).delete(NAME)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"secret_key": Secret("wrong-secret")}, "SignatureDoesNotMatch"),
        ({"access_key": "AKIANOBODY"}, "403"),
        ({"bucket": "missing"}, "NoSuchBucket"),
        ({"endpoint": f"http://{LOOPBACK}:1"}, "error sending request"),
        ({"access_key": None}, "has no keys"),
    ],
)
def test_what_cannot_be_used_says_so_before_the_dump(
    rclone_s3: RcloneS3, given: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    s3(rclone_s3.url).check()
    for call in (lambda target: target.check(), lambda target: target.put("a", b"")):
        with pytest.raises(TargetFailed) as failed:
            call(s3(rclone_s3.url, **given))
        assert "s3://" in str(failed.value)
        assert "\n" not in str(failed.value)
        assert "wrong-secret" not in str(failed.value)
    with pytest.raises(TargetFailed, match=says):
        s3(rclone_s3.url, **given).check()


def test_keys_may_come_from_the_environment(rclone_s3: RcloneS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    target = s3(rclone_s3.url, access_key=None, secret_key=None)
    send(target, NAME, b"x")
    assert content_of(target, NAME) == b"x"
    assert target.sweep("web1") == []


def test_a_server_that_does_not_answer_fails_within_its_time(proxy: TcpProxy) -> None:
    proxy.hang()
    with pytest.raises(TargetFailed, match=r"timed out|error sending request"):
        s3(proxy.url, timeout=1.0, retry=1.0).check()


def test_a_part_that_takes_too_long_fails(proxy: TcpProxy) -> None:
    upload = s3(proxy.url, timeout=1.0, retry=1.0).begin(NAME)
    proxy.slow(100_000)
    with pytest.raises(TargetFailed):
        write_on(upload, 40)
    proxy.pass_through()
    upload.abort()


def test_a_server_that_dies_in_the_middle_fails_and_nothing_counts(rclone_s3: RcloneS3) -> None:
    target = s3(rclone_s3.url)
    upload = target.begin(NAME)
    for _ in range(12):
        upload.write(os.urandom(MIB))
    wait_until(lambda: unfinished(rclone_s3) != [], "the upload to begin")
    port = rclone_s3.port
    rclone_s3.kill()
    with pytest.raises(TargetFailed):
        write_on(upload, 40)
    upload.abort()
    rclone_s3.start(port)
    assert list(target.names("")) == []
    send(target, NAME, b"again")
    assert content_of(target, NAME) == b"again"


def test_a_download_that_breaks_off_is_an_error_and_not_the_end(rclone_s3: RcloneS3, proxy: TcpProxy) -> None:
    send(s3(rclone_s3.url), NAME, os.urandom(12 * MIB))
    target = s3(proxy.url, retry=1.0)
    proxy.cut(answer_after=1 * MIB)
    with target.open(NAME) as file, pytest.raises(TargetFailed):
        file.read()


def test_what_the_server_kept_is_counted(rclone_s3: RcloneS3, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = s3(rclone_s3.url).begin(NAME)
    upload.write(b"four")
    monkeypatch.setattr(S3, "size", lambda *_: 3)
    with pytest.raises(TargetFailed, match="the server has 3 bytes of 4"):
        upload.commit()
    assert list(s3(rclone_s3.url).names("")) == []


def test_killed_while_it_sends_nothing_counts_and_the_next_run_sweeps(
    host: BackedUp, rclone_s3: RcloneS3, proxy: TcpProxy, tmp_path: Path
) -> None:
    job_to(host, entry(proxy.url, tmp_path), compression={"program": "none"})
    fill(host)
    assert host.run().code == 0
    (good,) = backups(host)
    fill(host, 20 * MIB)
    worker = host.start()
    proxy.slow(2_000_000)
    wait_until(lambda: unfinished(rclone_s3) != [], "the upload to begin", 30)
    os.kill(worker.pid, signal.SIGKILL)
    assert ended(worker).code == -signal.SIGKILL
    proxy.pass_through()
    assert backups(host) == [good]
    assert len(unfinished(rclone_s3)) == 1
    ran = host.run()
    assert ran.result["status"] == "ok", ran.result
    assert [event for event in ran.events if event["event"] == "swept"] != []
    assert unfinished(rclone_s3) == []
    assert backups(host)[0] == good
    comes_back(host, backups(host)[-1], tmp_path / "to")


def test_a_sweep_leaves_the_uploads_of_others(rclone_s3: RcloneS3) -> None:
    keep, drop = s3(rclone_s3.url, prefix="hosts/all2"), s3(rclone_s3.url)
    uploads = [keep.begin("web1/job/a"), drop.begin("web1/job2/b"), drop.begin("web1/job/c")]
    for upload in uploads:
        for _ in range(7):
            upload.write(b"x" * MIB)
    wait_until(lambda: len(unfinished(rclone_s3)) == 3, "the uploads to begin")
    assert drop.sweep("web1/job") == ["web1/job/c"]
    assert sorted(unfinished(rclone_s3)) == ["hosts/all/web1/job2/b", "hosts/all2/web1/job/a"]
    for upload in uploads:
        upload.abort()


def test_a_full_disk_over_there_fails_and_leaves_the_backup_before(
    host: BackedUp, small_disk: Path, tmp_path: Path
) -> None:
    with RcloneS3(small_disk) as server:
        job_to(host, entry(server.url, tmp_path), compression={"program": "none"})
        fill(host)
        assert host.run().code == 0
        (good,) = backups(host)
        fill(host, 16 * MIB)
        ran = host.run()
        assert (ran.code, ran.result["status"]) == (1, "fail"), ran.result
        assert backups(host) == [good]
        fill(host, MIB)
        assert host.run().code == 0
        comes_back(host, backups(host)[-1], tmp_path / "to")


def test_one_that_fails_does_not_spoil_the_others(host: BackedUp, rclone_s3: RcloneS3, tmp_path: Path) -> None:
    targets = {
        "far": entry(rclone_s3.url, tmp_path), "away": entry(f"http://{LOOPBACK}:{free_port()}", tmp_path),
        "store": {"type": "local", "path": str(host.store)},
    }  # fmt: skip
    host.job_now = host.job(targets=targets)
    fill(host)
    ran = host.run()
    assert (ran.code, ran.result["status"], ran.result["is_slot_done"]) == (1, "fail", True)
    assert [name for name, one in ran.result["targets"].items() if one["status"] == "ok"] == ["far", "store"]
    comes_back(host, backups(host)[0], tmp_path / "to")


def test_the_key_is_in_no_word_that_is_said(host: BackedUp, rclone_s3: RcloneS3, tmp_path: Path) -> None:
    for url in (rclone_s3.url, f"http://{LOOPBACK}:1"):
        job_to(host, entry(url, tmp_path))
        fill(host)
        worker = host.start()
        with open(f"/proc/{worker.pid}/cmdline", "rb") as file:
            assert SECRET_KEY.encode() not in file.read()
        ran = ended(worker)
        assert SECRET_KEY not in repr(ran)
    job_to(host, entry(rclone_s3.url, tmp_path))
    assert SECRET_KEY not in repr(backups(host))
    assert SECRET_KEY not in repr(host.job_now)
    assert not any(SECRET_KEY.encode() in path.read_bytes() for path in rclone_s3.bucket.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "https://s3.example.org:9000/backups"),
        ({"path_style": False}, "https://backups.s3.example.org:9000"),
        ({"endpoint": None, "region": "eu-west-1"}, "https://s3.eu-west-1.amazonaws.com/backups"),
        ({"endpoint": None, "region": "eu-west-1", "path_style": False}, "https://backups.s3.eu-west-1.amazonaws.com"),
    ],
)
def test_where_the_bucket_is(given: dict[str, Any], url: str) -> None:
    assert s3("https://s3.example.org:9000/", **given).bucket_url == url


def test_a_request_is_signed_as_amazon_documents_it() -> None:
    """The example `GET Bucket (List Objects)` of the documentation of Signature Version 4."""
    keys = Keys("AKIAIOSFODNN7EXAMPLE", Secret("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"))
    now = datetime(2013, 5, 24, tzinfo=UTC)
    headers = sign("GET", "https://examplebucket.s3.amazonaws.com/", "max-keys=2&prefix=J", REGION, keys, now)
    signature = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
    assert headers["authorization"].endswith(f"Signature={signature}")


def test_importing_it_does_not_import_the_library() -> None:
    code = "import sys, backup.targets.s3; sys.exit('obstore' in sys.modules or 'urllib3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
