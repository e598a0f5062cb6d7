"""Redis, with nothing saved to disk unless told."""

from __future__ import annotations

from collections.abc import Sequence

from tests.servers.process import LOOPBACK, Server, run


class Redis(Server):
    """`flags` are more options: ["--appendonly", "yes"]; `password` "" asks for none."""

    name = "redis-server"

    def __init__(self, flags: Sequence[str] = (), password: str = "") -> None:
        super().__init__()
        self.flags = list(flags)
        self.password = password

    @property
    def url(self) -> str:
        return f"redis://{f':{self.password}@' if self.password else ''}{LOOPBACK}:{self.port}/0"

    def command(self) -> list[str]:
        asks = ["--requirepass", self.password] if self.password else []
        where = ["--port", str(self.port), "--bind", LOOPBACK, "--dir", str(self.data_dir)]
        return [self.name, *where, "--save", "", *asks, *self.flags]

    def ready(self) -> bool:
        return self.cli("PING") == "PONG"

    def cli(self, *words: str) -> str:
        """What redis-cli prints for one command, errors included."""
        login = ["--no-auth-warning", "-a", self.password] if self.password else []
        return run("redis-cli", "-h", LOOPBACK, "-p", str(self.port), *login, *words).rstrip("\n")
