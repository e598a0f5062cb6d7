"""The addresses of a service like healthchecks: of a ping that all is well, of a start, of a failure."""

from __future__ import annotations


def address(url: str, suffix: str) -> str:
    """The address with `/start` or `/fail` behind its path; a query stays behind."""
    path, question, query = url.partition("?")
    return f"{path.rstrip('/')}/{suffix}{question}{query}" if suffix else url
