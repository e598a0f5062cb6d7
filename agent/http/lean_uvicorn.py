"""uvicorn's server without its command line, which every import of uvicorn brings with click and multiprocessing.

That is 1.5 MB that a daemon never uses. While the package is imported, something empty takes its place.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, Final

_COMMAND_LINE: Final = "uvicorn.main"


class _Nothing(ModuleType):
    """A module that has every name."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


def _keep_out() -> None:
    sys.modules[_COMMAND_LINE] = _Nothing(_COMMAND_LINE)
    try:
        import uvicorn  # noqa: F401
    finally:
        del sys.modules[_COMMAND_LINE]  # whoever does want it later gets it


if "uvicorn" not in sys.modules:
    _keep_out()

from uvicorn.config import Config  # noqa: E402
from uvicorn.protocols.http.h11_impl import H11Protocol  # noqa: E402
from uvicorn.server import Server  # noqa: E402

__all__ = ["Config", "H11Protocol", "Server"]
