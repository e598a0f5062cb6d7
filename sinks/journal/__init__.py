"""The journal: an append-only log of Ticks that every sink reads through its own durable cursor."""

from sinks.journal.journal import CursorState, Journal, JournalError, Stats
from sinks.journal.limits import Limits
from sinks.journal.reader import Batch, Lag, Reader
from sinks.journal.tally import Tally

__all__ = ["Batch", "CursorState", "Journal", "JournalError", "Lag", "Limits", "Reader", "Stats", "Tally"]
