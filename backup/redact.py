"""Secrets kept out of whatever is said: progress, results, manifests, the stderr of programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from agent.core.secrets import Secret

MASK = "***"
# Masking a text this short would mask half of every sentence, and tell what the text is.
LEAST_CHARACTERS = 4


class Redactor:
    """Replaces the text of known secrets by `***`; more may become known on the way."""

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        self._texts: list[str] = []
        self.add(secrets)

    def add(self, secrets: Iterable[Secret]) -> None:
        found = {secret.reveal() for secret in secrets} | set(self._texts)
        # The longest first: one secret may be part of another.
        self._texts = sorted((text for text in found if len(text) >= LEAST_CHARACTERS), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._texts:
            text = text.replace(secret, MASK)
        return text

    def deep(self, value: object) -> object:
        """The same for every text inside lists, tuples and mappings, keys included."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, Mapping):
            return {self(str(key)): self.deep(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.deep(item) for item in value]
        return value


def secrets_in(value: object) -> Iterator[Secret]:
    """Every secret inside dataclasses, mappings and lists."""
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from secrets_in(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from secrets_in(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for declared in dataclasses.fields(value):
            yield from secrets_in(getattr(value, declared.name, None))
