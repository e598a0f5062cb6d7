"""Bytes on their way: every status is looked at, and a taker that fails or hangs is alone with it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.core.secrets import Secret
from backup import children, relay
from backup.children import Group, Guard, Step, check_statuses, run
from backup.coding import Coding, Compression, check_recipient, decode_steps
from backup.errors import Damaged, Refused, SourceFailed, Stopped, TargetFailed
from backup.pipeline import Decoder, Recorded, Settings, record
from backup.redact import Redactor
from backup.relay import Outlet
from backup.source import Stream, Work
from tests.backup.hosts import BackedUp, age_key, running

ASLEEP = 3_000_000 + os.getpid()
PLAIN = Settings(Compression("none"), stall_s=5.0)
CONTENT = os.urandom(200_000) * 20


class Kept:
    """A taker that keeps what it gets."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.is_finished = False

    def write(self, chunk: bytes) -> None:
        self.chunks.append(chunk)

    def finish(self) -> None:
        self.is_finished = True


class Breaking(Kept):
    """Takes one chunk and no more."""

    def write(self, chunk: bytes) -> None:
        if self.chunks:
            raise OSError(28, "No space left on device")
        super().write(chunk)


class Hanging(Kept):
    """Never takes anything until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def write(self, chunk: bytes) -> None:
        self.go.wait(60)


@pytest.fixture
def work(host: BackedUp) -> Work:
    return host.work()


@pytest.fixture
def content(host: BackedUp) -> Stream:
    """A stream of four megabytes."""
    file = host.directory / "content"
    file.write_bytes(CONTENT)
    return Stream("content", "bin", (Step(("cat", str(file))),))


def sh(text: str, **more: object) -> Step:
    return Step(("sh", "-c", text), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("program", ["zstd", "none"])
def test_what_goes_through_is_counted_and_hashed_at_both_ends(work: Work, content: Stream, program: str) -> None:
    kept = Kept()
    done = record(content, {"kept": kept}, Settings(Compression(program)), work)  # type: ignore[arg-type]
    stored = b"".join(kept.chunks)
    assert done.raw_bytes == len(CONTENT)
    assert (done.digest.size, done.digest.sha256) == (len(stored), hashlib.sha256(stored).hexdigest())
    assert kept.is_finished
    assert max(map(len, kept.chunks)) <= 1 << 20


def test_how_hard_to_compress_is_the_jobs_to_say_and_else_the_streams(work: Work) -> None:
    def size(level: int, of_job: int | None) -> int:
        stream = Stream("x", "txt", (Step(("seq", "200000")),), level=level)
        return record(stream, {"kept": Kept()}, Settings(Compression(level=of_job)), work).digest.size

    assert size(1, None) > size(12, None) == size(1, 12)


# Before 1.5.4; the real one does the work.
OLD_ZSTD = """#!/bin/sh
case " $* " in *" --no-asyncio "*) echo 'Incorrect parameter: --no-asyncio' >&2; exit 1;; esac
exec {zstd} "$@"
"""


def test_an_older_zstd_is_not_asked_for_what_it_does_not_know(
    work: Work, content: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zstd").write_text(OLD_ZSTD.format(zstd=shutil.which("zstd")))
    (tmp_path / "zstd").chmod(0o755)
    monkeypatch.setattr(children, "PATH", f"{tmp_path}:{children.PATH}")
    kept = Kept()
    done = record(content, {"kept": kept}, Settings(Compression()), work)
    assert done.raw_bytes == len(CONTENT)
    assert done.statuses[-1].argv == ("zstd", "-3", "-T2", "--check", "-q", "-c")
    plain = subprocess.run(["zstd", "-dcq"], input=b"".join(kept.chunks), capture_output=True, check=True).stdout
    assert plain == CONTENT


def test_programs_joined_by_pipes(work: Work) -> None:
    kept = Kept()
    record(
        Stream("x", "txt", (sh("echo b; echo a"), Step(("sort",)), Step(("tr", "a-z", "A-Z")))),
        {"kept": kept},
        PLAIN,
        work,
    )
    assert b"".join(kept.chunks) == b"A\nB\n"


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        pytest.param((sh("exit 3"), Step(("cat",))), "sh exited 3", id="the first of them fails"),
        pytest.param((sh("echo x"), sh("cat; exit 4")), "sh exited 4", id="the last of them fails"),
        pytest.param((Step(("yes",)), sh("echo broke >&2; exit 5")), "sh exited 5: broke", id="not who was cut off"),
        pytest.param((sh("kill -TERM $$"),), "was ended by SIGTERM", id="a signal is a failure"),
        pytest.param((Step(("nosuchprogram",)),), "no such program", id="a program that is not there"),
    ],
)  # fmt: skip
def test_every_exit_status_counts(work: Work, steps: tuple[Step, ...], said: str) -> None:
    kept = Kept()
    with pytest.raises(SourceFailed, match=said):
        record(Stream("x", "bin", steps), {"kept": kept}, PLAIN, work)
    assert not kept.is_finished


def test_a_status_that_is_only_a_warning(work: Work) -> None:
    step = sh("echo x; echo careful >&2; exit 1", warning_statuses=frozenset({1}))
    assert record(Stream("x", "bin", (step,)), {"kept": Kept()}, PLAIN, work).warnings == ("sh exited 1: careful",)


@pytest.mark.parametrize("bad", [Breaking, Hanging])
def test_a_taker_that_fails_or_hangs_does_not_spoil_the_other(
    work: Work, content: Stream, bad: Callable[[], Kept]
) -> None:
    good, other = Kept(), bad()
    steps = (*content.steps, *[Step(("cat",))])
    stream = Stream("x", "bin", (sh(f"for i in 1 2 3; do cat {steps[0].argv[1]}; done"),))
    done = record(stream, {"good": good, "bad": other}, Settings(Compression("none"), stall_s=1.0), work)
    assert list(done.failed) == ["bad"]
    assert hashlib.sha256(b"".join(good.chunks)).hexdigest() == done.digest.sha256
    assert not other.is_finished
    if isinstance(other, Hanging):
        other.go.set()


class Slow(Kept):
    """Takes everything, a chunk each tenth of a second."""

    def write(self, chunk: bytes) -> None:
        time.sleep(0.1)
        super().write(chunk)


def test_a_taker_that_holds_up_the_others_too_long_in_sum_is_given_up(work: Work, content: Stream) -> None:
    good, slow = Kept(), Slow()
    stream = Stream("x", "bin", (sh(f"for i in 1 2 3 4; do cat {content.steps[0].argv[1]}; done"),))
    settings = Settings(Compression("none"), stall_s=30.0, patience_s=0.5)
    done = record(stream, {"good": good, "slow": slow}, settings, work)
    assert [str(error).partition(" for ")[0] for error in done.failed.values()] == [
        "slow: is too slow: it has held up the others"
    ]
    assert hashlib.sha256(b"".join(good.chunks)).hexdigest() == done.digest.sha256
    # Where all are slow, or there is no other, it is waited for.
    for takers in ({"slow": Slow()}, {"slow": Slow(), "other": Slow()}):
        assert record(stream, takers, settings, work).failed == {}


def test_a_stop_does_not_wait_for_a_taker_that_hangs(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_LAST_S", 0.5)
    hanging = Hanging()
    threading.Timer(0.5, work.guard.stop, ("it was ended",)).start()
    with pytest.raises(Stopped, match="it was ended"):
        record(Stream("x", "bin", (Step(("yes", str(ASLEEP))),)), {"a": hanging},
               Settings(Compression("none"), stall_s=3600.0), work)  # fmt: skip
    assert not running(f"yes {ASLEEP}")
    hanging.go.set()


def test_when_no_taker_is_left_the_source_is_ended(work: Work) -> None:
    with pytest.raises(TargetFailed, match="No space left"):
        record(Stream("x", "bin", (Step(("yes", str(ASLEEP))),)), {"a": Breaking(), "b": Breaking()}, PLAIN, work)
    assert not running(f"yes {ASLEEP}")


def decoding(work: Work, content: Stream, settings: Settings, check: Callable[[bytes], None]) -> Recorded:
    def decode(plain: int) -> None:
        parts = []
        while part := os.read(plain, 1 << 16):
            parts.append(part)
        check(b"".join(parts))

    return record(content, {"kept": Kept()}, settings, work, decode=decode)


def fail(_: bytes) -> None:
    raise Damaged("is not right")


@pytest.mark.parametrize("is_encrypted", [False, True])
def test_the_plain_bytes_are_checked_on_the_way(
    host: BackedUp, work: Work, content: Stream, is_encrypted: bool
) -> None:
    settings = Settings(Compression(), (age_key(host)[0],) if is_encrypted else ())
    seen: list[bytes] = []
    assert decoding(work, content, settings, seen.append).is_decoded
    assert seen == [CONTENT]
    with pytest.raises(Damaged, match="is not right"):
        decoding(work, content, settings, fail)


def test_a_recipient_that_age_refuses_is_an_error(work: Work, content: Stream) -> None:
    with pytest.raises(SourceFailed, match=r"age exited 1: .*malformed recipient"):
        record(content, {"kept": Kept()}, Settings(Compression(), ("age1nonsense",)), work)


def test_a_decoder_hears_all_of_it_and_tells_what_was_found(work: Work) -> None:
    decoder = Decoder((), lambda plain: os.read(plain, 3), work)
    decoder.write(b"abc" * 100_000)
    decoder.finish()
    assert decoder.result == b"abc"
    decoder.abort()


@pytest.mark.parametrize("content", [b"", b"not zstd", b"\x28\xb5\x2f\xfd"])
def test_what_is_not_compressed_right_is_damaged(work: Work, content: bytes) -> None:
    def decode() -> None:
        decoder = Decoder(decode_steps(Coding("zstd"), None), lambda plain: os.read(plain, 1), work)
        try:
            decoder.write(content)
            decoder.finish()
        finally:
            decoder.abort()

    with pytest.raises(Damaged, match="zstd exited 1"):
        decode()


def test_an_encrypted_archive_needs_a_key() -> None:
    with pytest.raises(Refused, match="name a file with a private key"):
        decode_steps(Coding("zstd", ("age1x",)), None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("AGE-SECRET-KEY-1QQ", "does not belong on this host"),
        ("hello", "no public key|not a public key"),
        ("age1", "public key"),
    ],
)
def test_recipients_are_public_keys(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_recipient(text)
    check_recipient("age1" + "q" * 58)


# Programs and their end


def test_a_guard_ends_what_runs_and_what_would_be_started_later(work: Work) -> None:
    guard = Guard(0.2, "the test")
    with pytest.raises(Stopped, match="the test did not end within"):
        run(sh(f"sleep {ASLEEP}; true"), guard, Redactor())
    assert not running(f"sleep {ASLEEP}")
    with pytest.raises(Stopped):
        run(Step(("true",)), guard, Redactor())
    guard.close()


def test_a_guard_ends_with_its_parent(work: Work) -> None:
    parent = Guard()
    guard = Guard(3600.0, "the test", parent)
    threading.Timer(0.2, parent.stop, ("the parent was ended",)).start()
    with pytest.raises(Stopped, match="the parent was ended"):
        run(sh(f"sleep {ASLEEP}; true"), guard, Redactor())
    with pytest.raises(Stopped, match="the parent was ended"):
        Guard(parent=parent).wait(60)
    guard.close()


def test_what_is_written_while_its_descriptor_is_closed_lands_nowhere_else(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    outlet = Outlet(write_end)
    writer = threading.Thread(target=outlet.write, args=(b"x" * (1 << 20),))
    writer.start()
    os.read(read_end, 1)  # it writes, and the pipe is full
    outlet.close()
    with open(tmp_path / "other", "wb") as other:
        assert other.fileno() == write_end  # the number went to the next one
        rest = (1 << 20) - 1
        while rest:
            rest -= len(os.read(read_end, 1 << 16))
        writer.join()
        assert os.fstat(other.fileno()).st_size == 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        outlet.write(b"more")
    os.close(read_end)


def test_the_end_of_what_a_program_says_is_kept_without_secrets() -> None:
    guard = Guard()
    with Group(guard, Redactor([Secret("hunter22")])) as group:
        null = os.open(os.devnull, os.O_RDWR)
        group.start(sh("seq 100000 >&2; echo password=hunter22 >&2; exit 2"), null, null)
        os.close(null)
        (status,) = group.wait()
    assert (status.code, len(status.stderr) <= 4096) == (2, True)
    with pytest.raises(SourceFailed, match=r"100000; password=\*\*\*$"):
        check_statuses([status])


def test_a_program_gets_an_environment_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_OF_THE_DAEMON", "x")
    found = run(Step(("env",), {"MINE": "y"}), Guard(), Redactor()).decode()
    assert "TOKEN_OF_THE_DAEMON" not in found
    assert {"MINE=y", "LC_ALL=C.UTF-8"} <= set(found.splitlines())


def test_a_wordy_program_hands_on_half_a_pipe_at_once_and_keeps_its_name() -> None:
    assert run(Step(("printenv", "_STDBUF_O"), is_wordy=True), Guard(), Redactor()) == b"524288\n"
    with pytest.raises(SourceFailed, match=r"^false exited 1$"):
        run(Step(("false",), is_wordy=True), Guard(), Redactor())


def test_a_wordy_program_runs_where_there_is_no_stdbuf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("setpriv", "printenv"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setattr("backup.children.PATH", str(tmp_path))
    with pytest.raises(SourceFailed, match=r"^printenv exited 1$"):
        run(Step(("printenv", "_STDBUF_O"), is_wordy=True), Guard(), Redactor())


def test_an_answer_without_end_is_cut_off() -> None:
    with pytest.raises(SourceFailed, match="more than 4 MiB"):
        run(Step(("yes",)), Guard(), Redactor())


def test_an_answer_ends_with_its_program_not_with_what_that_left_behind() -> None:
    began = time.monotonic()
    assert run(sh(f"sleep {ASLEEP} & echo answer"), Guard(30), Redactor()) == b"answer\n"
    assert time.monotonic() - began < 30
    assert not running(f"sleep {ASLEEP}")


def test_no_descriptor_is_left_open(host: BackedUp, work: Work, content: Stream) -> None:
    settings = Settings(Compression(), (age_key(host)[0],), stall_s=5.0)
    kinds: list[Callable[[], object]] = [
        lambda: decoding(work, content, settings, lambda _: None),
        lambda: decoding(work, content, settings, fail),
        lambda: record(Stream("x", "bin", (sh("echo x; exit 1"),)), {"kept": Kept()}, settings, work),
        lambda: record(Stream("x", "bin", (Step(("nosuchprogram",)),)), {"kept": Kept()}, settings, work),
        lambda: record(content, {"kept": Breaking()}, settings, work),
        lambda: run(sh("exit 1"), Guard(), Redactor()),
    ]
    for once in (True, False):
        before = set(os.listdir("/proc/self/fd"))
        threads = threading.active_count()
        for kind in kinds:
            try:
                kind()
            except (Damaged, SourceFailed, TargetFailed):
                pass
        if not once:
            assert len(set(os.listdir("/proc/self/fd"))) == len(before)
            assert threading.active_count() <= threads
