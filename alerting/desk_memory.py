"""What the desk has in mind: groups and digests, silences, what flaps; as it is now and as the book has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from alerting import desk_state
from alerting.book import Book
from alerting.flap import FlapDamper
from alerting.grouping import Dispatcher
from alerting.inhibition import Inhibitor
from alerting.muting import Muting
from alerting.notify.message import Alert
from alerting.policy import Policy
from alerting.silences import Silence, Silences

T = TypeVar("T")

_NAMES: Final = ("groups", "flaps", "silences")


class DeskMemory:
    """Begins with what is in the book. Not thread-safe: one owner.

    `saved`: what the book has. `remarks`: what of it could not be read, in sentences. `silences_change_at`: when one
    begins or ends to mute, Unix seconds; None when none will.
    """

    def __init__(self, book: Book, policy: Policy, now: float) -> None:
        self.saved = {name: book.read(name) for name in _NAMES}
        self.remarks: list[str] = []
        self._recalled_at = now
        self.silences_change_at: float | None = None
        self.recall(policy, now)

    def recall(self, policy: Policy, now: float | None = None) -> None:
        """Take up what was saved last; what cannot be read is left out and said. `now` None: exactly as it was."""
        self._recalled_at = moment = self._recalled_at if now is None else now
        self.damper = FlapDamper(policy.flap, self._read("flaps", desk_state.flaps_from_json, {}))
        no_silences: tuple[dict[str, Silence], int] = ({}, 0)
        silences, lost = self._read("silences", desk_state.silences_from_json, no_silences)
        if lost:
            self.remarks.append(f"{lost} silences cannot be read")
        told = [state.told() for state in self.damper.states.values()]
        self.muting = Muting(
            Inhibitor(policy.inhibit_rules, told), policy.intervals, Silences(silences), zone=policy.zone
        )
        no_groups: tuple[Dispatcher, list[Alert]] = (_new_dispatcher(policy), [])
        self.dispatcher, homeless = self._read("groups", lambda saved: _regrouped(saved, policy, now), no_groups)
        self.dispatcher.update(homeless, moment)
        self.silences_change_at = self.muting.silences.next_change(moment)

    def _read(self, name: str, decode: Callable[[bytes], T], otherwise: T) -> T:
        try:
            return decode(self.saved[name])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.remarks.append(f"the {name} of before cannot be read: {error}")
            return otherwise

    def save(self, book: Book) -> dict[str, bytes]:
        """Write what differs from what is saved; return what the book then has. Raise sqlite3.Error."""
        now = {
            "groups": self.dispatcher.snapshot(),
            "flaps": desk_state.flaps_as_json(self.damper.states),
            "silences": desk_state.silences_as_json(self.muting.silences.by_id),
        }
        for name, value in now.items():
            if value != self.saved[name]:
                book.write(name, value)
        return now

    def write_again(self, book: Book) -> None:
        """Write all that is saved into another file than before, which may not have it. Raise sqlite3.Error."""
        for name, value in self.saved.items():
            book.write(name, value)

    # What changes it.

    def silences_have_changed(self, now: float) -> None:
        """One came, began or ended: what was told may be muted from now on, and the other way round."""
        self.dispatcher.look_again(now)
        self.silences_change_at = self.muting.silences.next_change(now)

    def take_in_silences(self, saved: bytes, now: float) -> None:
        """Those of another file, beside those there are; none where it makes no sense."""
        try:
            found, _ = desk_state.silences_from_json(saved)
        except ValueError as error:
            self.remarks.append(f"the silences of before cannot be read: {error}")
            return
        for silence in found.values():
            self.muting.silences.by_id.setdefault(silence.id, silence)
        self.silences_have_changed(now)

    def clock_was_set(self, policy: Policy, seconds: float, now: float) -> None:
        """Timers go on as if the wall clock had not jumped; silences, intervals and digests follow the new time."""
        shifted = desk_state.groups_shifted(self.dispatcher.snapshot(), seconds)
        self.damper.states = desk_state.flaps_shifted(self.damper.states, seconds)
        self.dispatcher = _new_dispatcher(policy)
        self.dispatcher.restore(shifted, now)
        self.silences_change_at = now if self.muting.silences.by_id else None


def _regrouped(saved: bytes, policy: Policy, now: float | None) -> tuple[Dispatcher, list[Alert]]:
    """The groups and digests as the routes have them now, and alerts without any. Raise ValueError."""
    fitting, homeless = desk_state.regrouped(saved, policy.root)
    dispatcher = _new_dispatcher(policy)
    return dispatcher, homeless + dispatcher.restore(fitting, now)


def _new_dispatcher(policy: Policy) -> Dispatcher:
    return Dispatcher(policy.root, policy.external_url, zone=policy.zone)
