"""One backup run: sweep, dump, verify, commit, manifest, retention; nothing counts before its manifest is stored."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from agent.core.clock import NS, Clock
from backup import catalogue
from backup.children import Guard
from backup.errors import BackupError, Damaged, Forbidden, SourceFailed, Stopped, TargetFailed, Undecodable, reason
from backup.hand import Watch
from backup.hooks import Surroundings
from backup.job import Job
from backup.manifest import FILE_NAME, Archive, Manifest, Missing
from backup.pipeline import Recorded, Settings, record
from backup.place import Place, share_s
from backup.redact import Redactor, secrets_in
from backup.retention import plan, stays
from backup.source import Facts, Skipped, Source, Stream, Work
from backup.target import Upload, safe_word
from backup.verify import checker, overall, reread, sampled, shrunk

Tell = Callable[[Mapping[str, Any]], None]  # takes one event of the worker's output
T = TypeVar("T")


@dataclass(slots=True)
class _Sent:
    """One stream's uploads, by the name of their place."""

    stream: Stream
    stored: str
    uploads: dict[str, Upload]


class Run:
    """One run of a job. `tell` takes the events: phase, progress, warning; the result is what execute() returns."""

    def __init__(self, job: Job, *, host: str, scratch: str, clock: Clock, tell: Tell, guard: Guard,
                 undo_path: str | None = None) -> None:  # fmt: skip
        self.job = job
        self.guard = guard
        self.started_at = clock.wall_ns() / NS
        self.id = f"{datetime.fromtimestamp(self.started_at, UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        self.host = safe_word(host)
        self.prefix = f"{self.host}/{job.name}"
        self.warnings: list[str] = []
        self.missing: list[Missing] = []
        self.places: list[Place] = []
        self._began = clock.monotonic()
        self._clock = clock
        secret = [job.plugin.options, job.manifest_key, *(entry.options for entry in job.targets.values())]
        self.redact = Redactor(secrets_in(secret))
        self._tell = tell
        self._work = Work(scratch, guard, self.redact, job.user, self._warn, undo_path)
        self._settings = Settings(job.compression, tuple(job.encryption.recipients), job.limits.rate, job.limits.stall,
                                  share_s(job))  # fmt: skip
        self._hooks = Surroundings(job.hooks, job.name, self.id, self.redact, self._phase, self._warn)

    def stop(self, reason: str) -> None:
        """End it soon; from any thread."""
        self.guard.stop(reason)
        self._hooks.stop(reason)

    def execute(self) -> dict[str, Any]:
        """Do it. The result, as the last line of the worker's output has it; only a bug raises."""
        error: str | None = None
        try:
            self._phase("sweep")
            source = self._build_source()
            self._sweep(source)
            with self._hooks.around(lambda: self._status(None)):
                facts = self._prepare(source)
                self._dump(source)
                self._finish(facts)
        except (BackupError, ValueError, OSError) as failure:
            error = self.redact(reason(failure))
        self._drop_unfinished()
        try:
            return self._result(error)
        finally:
            for place in self.places:
                place.close()

    def _drop_unfinished(self) -> None:
        """Archives without a manifest are no backup; the next run would sweep them, but the space is wanted now."""
        for place in self.places:
            if place.manifest is None and place.archives:
                place.drop(f"{self.prefix}/{self.id}/{FILE_NAME}")

    # What the daemon and the operator hear.

    def say(self, event: str, **fields: Any) -> None:
        told = self.redact.deep({"event": event, "job": self.job.name, **fields})
        assert isinstance(told, Mapping)
        self._tell(told)

    def _phase(self, name: str, **fields: Any) -> None:
        self.say("phase", phase=name, **fields)

    def _warn(self, text: str) -> None:
        text = self.redact(text)
        self.warnings.append(text)
        self.say("warning", text=text)

    def _give_up(self, place: Place, error: Exception) -> None:
        if place.error is None:
            place.give_up(self.redact(str(error)))
            self.say("target_failed", target=place.name, error=place.error)

    @property
    def _open(self) -> list[Place]:
        return [place for place in self.places if place.error is None]

    @property
    def _near_first(self) -> list[Place]:
        """What is sure to be quick comes before what may use up the time."""
        return sorted(self._open, key=lambda place: not place.target.is_near)

    def _ask(self, place: Place, call: Callable[[], T]) -> T:
        """Have a target do something. Raise what the call raises, TargetFailed, Stopped."""
        return place.ask(call, is_alone=self._open == [place])

    # The phases.

    def _build_source(self) -> Source:
        source: Source = self.job.plugin.build(job=self.job.name, host=self.host)
        return source

    def _sweep(self, source: Source) -> None:
        """Make the targets ready and remove what a killed run left, at the source first: containers wait there."""
        for removed in source.sweep(self._work):
            self.say("swept", what=removed)
        for name in self.job.targets:
            place = Place(name, self.job, self.host, Guard(parent=self.guard))
            self.places.append(place)
            with self._on(place):
                place.ask(place.target.check, is_short=True)
                self._sweep_place(place)
                place.look(self.prefix)
                for sentence in place.earlier.damaged:
                    self._warn(f"{name}: {sentence}")
                self._forecast(place)
        self._need_a_target()

    def _sweep_place(self, place: Place) -> None:
        """A key that may not delete can still send: what stays there of a broken run takes space, and harms nothing."""
        try:
            removed = place.ask(partial(catalogue.sweep, place.target, self.prefix), is_short=True)
        except TargetFailed as error:
            self.guard.check()
            if place.hand.is_stuck:
                raise
            self._warn(f"{place.name}: what a broken run left there cannot be removed: {error}")
            return
        for name in removed:
            self.say("swept", target=place.name, what=name)

    def _forecast(self, place: Place) -> None:
        expected, free = place.earlier.forecast(), place.ask(place.target.free_bytes, is_short=True)
        self.say("forecast", target=place.name, expected_bytes=expected, free_bytes=free)
        if free is not None and expected > free:
            self._warn(f"{place.name}: will probably not fit: {expected} bytes expected, {free} free")

    def _need_a_target(self) -> None:
        if not self._open:
            raise TargetFailed("; ".join(f"{place.name}: {place.error}" for place in self.places))

    def _prepare(self, source: Source) -> Facts:
        self.guard.check()
        self._phase("describe")
        return source.describe(self._work)

    def _dump(self, source: Source) -> None:
        """Every stream of the source. One that fails is missing in the backup; the others are still taken."""
        try:
            # Closed whatever happens: a source undoes its snapshot in the generator's finally.
            with closing(_as_generator(source.streams(self._work))) as streams:
                for stream in streams:
                    self.guard.check()
                    self._need_a_target()
                    self._try_to_take(stream, source)
        except (SourceFailed, OSError) as error:  # the system's own are about our scratch directory or our pipes
            self.guard.check()
            self._miss("(what comes after)", reason(error))
        if not any(place.archives for place in self._open):
            raise SourceFailed("; ".join(one.error for one in self.missing) or "the source has nothing to back up")

    def _try_to_take(self, stream: Stream | Skipped, source: Source) -> None:
        if isinstance(stream, Skipped):
            self._miss(stream.name, stream.error)
            return
        try:
            self._take(stream, source)
        except (SourceFailed, Undecodable, OSError) as error:
            self.guard.check()
            self._miss(stream.name, reason(error))

    def _miss(self, name: str, error: str) -> None:
        self.missing.append(Missing(self.redact(name), self.redact(error)))
        self.say("archive_failed", archive=name, error=error)

    def _take(self, stream: Stream, source: Source) -> None:
        """Dump one stream to all open places, verify and commit it. Raise SourceFailed, Undecodable."""
        stored = f"{self.prefix}/{self.id}/{safe_word(stream.name)}.{stream.extension}{self._settings.coding.suffix}"
        sent = _Sent(stream, stored, {})
        try:
            for place in self._open:
                with self._on(place):
                    sent.uploads[place.name] = self._ask(place, partial(place.target.begin, stored))
            self._need_a_target()
            recorded = self._record(sent, source)
            self._check_sizes(stream, recorded)
            levels = self._verify(sent, recorded, source)
            self._commit(sent, recorded, levels)
        finally:
            for place in self.places:
                if (upload := sent.uploads.get(place.name)) is not None:
                    place.abort(upload)

    def _record(self, sent: _Sent, source: Source) -> Recorded:
        self._phase("dump", archive=sent.stream.name)
        level = self.job.verification.level
        # What is encrypted cannot be decoded here later, and what is far would have to be downloaded.
        on_the_way = level >= 2 and (bool(self._settings.recipients) or not any(p.target.is_near for p in self._open))
        name = sent.stream.name
        recorded = record(
            sent.stream, sent.uploads, self._settings, self._work,
            decode=(lambda plain: source.decode_check(name, plain, self._work)) if on_the_way else None,
            on_progress=lambda raw, stored: self.say("progress", archive=name, raw_bytes=raw, stored_bytes=stored),
        )  # fmt: skip
        for place in self._open:
            if (error := recorded.failed.get(place.name)) is not None:
                self._give_up(place, error)
        self._need_a_target()
        for warning in recorded.warnings:
            self._warn(f"{name}: {warning}")
        return recorded

    def _check_sizes(self, stream: Stream, recorded: Recorded) -> None:
        rules = self.job.verification
        if recorded.raw_bytes < rules.min_bytes:
            raise SourceFailed(f"{stream.name}: {recorded.raw_bytes} bytes are too few; verification.min_bytes is"
                               f" {rules.min_bytes}")  # fmt: skip
        earlier = max((place.earlier.manifests for place in self.places), key=len)
        if text := shrunk(stream.name, recorded.raw_bytes, earlier, rules.shrink_warning):
            self._warn(text)

    def _verify(self, sent: _Sent, recorded: Recorded, source: Source) -> dict[str, int]:
        """The level that each place reached. Raise Undecodable: then the dump was bad."""
        wanted = self.job.verification.level
        if wanted == 0:
            return {}
        self._phase("verify", archive=sent.stream.name)
        is_decoded = recorded.is_decoded
        levels = {}
        for place in self._open:
            if not place.target.is_near:
                continue
            with self._on(place):
                decodes = wanted >= 2 and not is_decoded
                watch = Watch()
                again = partial(self._reread, sent, place.name, recorded, source, watch, decodes=decodes)
                place.ask(again, watch=watch)
                is_decoded = is_decoded or decodes
                levels[place.name] = wanted if is_decoded else 1
        for place in self._open:
            levels.setdefault(place.name, 2 if is_decoded else 1)
        self._need_a_target()
        return levels

    def _reread(self, sent: _Sent, place: str, recorded: Recorded, source: Source, watch: Watch, *,
                decodes: bool) -> None:  # fmt: skip
        with watch:
            file = sent.uploads[place].reread()
        with file:
            decoder = checker(sent.stream.name, self._settings.coding, source, self._work) if decodes else None
            reread(watch.over(file), recorded.digest.size, recorded.digest.sha256, decoder, self._work)

    def _commit(self, sent: _Sent, recorded: Recorded, levels: Mapping[str, int]) -> None:
        self._phase("commit", archive=sent.stream.name)
        stream, coding = sent.stream, self._settings.coding
        for place in self._near_first:
            with self._on(place):
                self._ask(place, sent.uploads[place.name].commit)
                place.archives.append(Archive(
                    name=self.redact(stream.name), stored=sent.stored, extension=stream.extension,
                    raw_bytes=recorded.raw_bytes, stored_bytes=recorded.digest.size, sha256=recorded.digest.sha256,
                    compression=coding.compression, recipients=coding.recipients,
                    argv=tuple(status.argv for status in recorded.statuses),
                    statuses=tuple(status.code for status in recorded.statuses),
                    warnings=tuple(map(self.redact, recorded.warnings)), row_estimates=dict(stream.row_estimates),
                    level=levels.get(place.name, 0),
                ))  # fmt: skip
        self._need_a_target()

    def _finish(self, facts: Facts) -> None:
        """The manifest of each place, and then its retention."""
        self.guard.check()
        now = self._clock.wall_ns() / NS
        for place in self._near_first:
            with self._on(place):
                if self.job.verification.level >= 3 and not place.target.is_near:
                    self._phase("download", target=place.name)
                    self._ask(place, partial(self._download, place))
                self._phase("manifest", target=place.name)
                made = self._manifest(place, facts, now)
                self._ask(place, partial(catalogue.write, place.target, made, self.job.manifest_key))
                place.manifest = made  # only now: what is not stored is no backup
        for place in self._open:
            if place.manifest is not None and place.manifest.is_verified:
                with self._on(place):
                    self._prune(place, place.manifest)

    def _download(self, place: Place) -> None:
        """Level 3 of a far place: some of the archives as they come back. Raise Damaged."""
        chosen = sampled([one.stored for one in place.archives], self.job.verification.sample, self.id)
        for at, archive in enumerate(place.archives):
            if archive.stored in chosen:
                with place.target.open(archive.stored) as file:
                    reread(file, archive.stored_bytes, archive.sha256, None, self._work)
                place.archives[at] = replace(archive, level=3)

    def _manifest(self, place: Place, facts: Facts, now: float) -> Manifest:
        level = overall([archive.level for archive in place.archives])
        return Manifest(
            id=self.id, host=self.host, job=self.job.name, source=self.job.plugin.type,
            started_at=round(self.started_at, 3), finished_at=round(now, 3), archives=tuple(place.archives),
            missing=tuple(self.missing), versions=dict(facts.versions),
            notes={key: self.redact(text) for key, text in facts.notes.items()}, level=level,
            verified_at=round(now, 3) if level >= 1 else None,
        )  # fmt: skip

    def _prune(self, place: Place, newest: Manifest) -> None:
        """Delete what the rules no longer keep: only here, after a verified success."""
        self._phase("retention", target=place.name)
        now = self._clock.wall_ns() / NS
        decided = plan([*place.earlier.manifests, newest], place.rules, now, zone=self.job.times.zone)
        if decided.refusal is not None:
            self._warn(f"{place.name}: retention: {decided.refusal}")
        for at, manifest in enumerate(decided.deletions):
            self.guard.check()
            try:
                self._ask(place, partial(catalogue.delete, place.target, manifest))
            except Forbidden as error:  # the backup that was made is none the worse
                self._warn(f"{place.name}: retention: {stays(len(decided.deletions) - at, error)}")
                return
            place.deleted.add(manifest.id)
            self.say("deleted", target=place.name, backup=manifest.id)

    @contextmanager
    def _on(self, place: Place) -> Iterator[None]:
        """What goes wrong inside is this place's alone, unless we are stopped or the dump itself is bad."""
        try:
            yield
        except (Stopped, Undecodable, SourceFailed):
            raise
        except (TargetFailed, Damaged, OSError) as error:
            self.guard.check()
            self._give_up(place, error)

    # The result.

    def _status(self, error: str | None) -> str:
        stored = [place for place in self.places if place.manifest is not None]
        if error is not None or self.missing or len(stored) < len(self.places) or not self.places:
            return "fail"
        if any(place.error for place in self.places):
            return "fail"
        return "warn" if self.warnings else "ok"

    def _result(self, error: str | None) -> dict[str, Any]:
        if error is None and self.missing:
            error = "; ".join(f"{one.name}: {one.error}" for one in self.missing)
        if error is None:
            failed = [f"{place.name}: {place.error}" for place in self.places if place.error is not None]
            error = "; ".join(failed) or None
        newest = next((place.manifest for place in self.places if place.manifest is not None), None)
        return {
            "event": "result", "job": self.job.name, "backup": self.id, "status": self._status(error), "error": error,
            # A slot is done when a whole backup is kept somewhere: repeating it would not mend the other target.
            "is_slot_done": any(one.manifest is not None and one.manifest.is_complete for one in self.places),
            "started_at": self.started_at, "finished_at": self._clock.wall_ns() / NS,
            "duration_s": round(self._clock.monotonic() - self._began, 3),
            "raw_bytes": newest.raw_bytes if newest else 0, "stored_bytes": newest.stored_bytes if newest else 0,
            "level": newest.level if newest else 0, "warnings": self.warnings[:100],
            "targets": {place.name: place.result() for place in self.places},
        }  # fmt: skip


def _as_generator(streams: Iterator[Stream | Skipped]) -> Any:
    """Any iterator as one that can be closed."""

    def generate() -> Iterator[Stream | Skipped]:
        try:
            yield from streams
        finally:
            close = getattr(streams, "close", None)
            if close is not None:
                close()

    return generate()
