"""How an archive is stored: compressed by zstd, encrypted by age, both optional."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agent.core.options import option
from backup.children import Guard, Step, run
from backup.errors import Refused, SourceFailed
from backup.redact import Redactor

LEVEL = 3
# A dump keeps its server busy and a transaction open. At 3, zstd alone takes longer than the server and its dump
# program, and saves a fifth of the size at best; at 1 it is still smaller than by pg_dump's own gzip.
DUMP_LEVEL = 1
_RECIPIENT = re.compile(r"age1[02-9ac-hj-np-z]{58}|ssh-(?:ed25519|rsa) [A-Za-z0-9+/=]+(?: .*)?")


def check_recipient(text: str) -> None:
    """Raise ValueError unless it is a public key that age takes."""
    if text.startswith("AGE-SECRET-KEY-"):
        raise ValueError("is a secret key, which does not belong on this host; write its public key (age1...)")
    if not _RECIPIENT.fullmatch(text):
        raise ValueError("is not a public key of age; write one like age1... or ssh-ed25519 AAAA...")


@dataclass(frozen=True, slots=True)
class Compression:
    """How archives are made smaller."""

    program: Literal["zstd", "none"] = option("zstd", "Program that compresses; none for what is compressed already.")
    level: int | None = option(
        None, f"How hard it tries; none: {DUMP_LEVEL} for dumps of databases, {LEVEL} for the rest.",
        minimum=1, maximum=19, example="9",
    )  # fmt: skip
    threads: int = option(2, "Processors it may use.", minimum=1, maximum=64)


@dataclass(frozen=True, slots=True)
class Encryption:
    """Who can read the archives: holders of the private keys, which need not be on this host."""

    recipients: list[str] = option(
        list, "Public keys of age; none: not encrypted.", example="[age1...]", check=check_recipient
    )
    identity: str | None = option(
        None, "File with a private key, for drills and restores on this host.", example="/etc/vigilhost/drill.key"
    )


@dataclass(frozen=True, slots=True)
class Coding:
    """What was done to the bytes between the source and the target, as a manifest keeps it."""

    compression: str = "zstd"
    recipients: tuple[str, ...] = ()

    @property
    def suffix(self) -> str:
        return (".zst" if self.compression == "zstd" else "") + (".age" if self.recipients else "")

    @property
    def is_encrypted(self) -> bool:
        return bool(self.recipients)


def compress_steps(compression: Compression, level: int, more: Sequence[str] = ()) -> list[Step]:
    """The program that compresses; none where nothing is. `level` counts where the job does not say; `more` options."""
    if compression.program == "none":
        return []
    argv = ("zstd", f"-{compression.level or level}", f"-T{compression.threads}", *more, "--check", "-q", "-c")
    return [Step(argv)]


def plain_io(guard: Guard, redact: Redactor) -> Sequence[str]:
    """The option that has zstd read and write without threads for it; none before 1.5.4, which had none.

    They take a twentieth of the processors, which is for nothing where bytes come as fast as they are compressed.
    """
    word = "--no-asyncio"
    try:
        run(Step(("zstd", word, "--version")), guard, redact)
    except SourceFailed:
        return ()  # whoever starts it says what is wrong
    return (word,)


def encrypt_steps(recipients: tuple[str, ...]) -> list[Step]:
    """The program that encrypts; none where nothing is."""
    if not recipients:
        return []
    return [Step(("age", "--encrypt", *(word for key in recipients for word in ("-r", key))))]


def decode_steps(coding: Coding, identity: str | None) -> list[Step]:
    """The programs that turn what is stored into what the source gave. Raise Refused where a key is needed."""
    steps = []
    if coding.is_encrypted:
        if identity is None:
            raise Refused("the archive is encrypted; name a file with a private key: --identity FILE, or "
                          "encryption.identity in the job")  # fmt: skip
        steps.append(Step(("age", "--decrypt", "-i", identity)))
    if coding.compression == "zstd":
        # A frame may ask for a window of 2 GiB; ours need 2 MiB at level 3 and 8 MiB at 19.
        steps.append(Step(("zstd", "-d", "-q", "-c", "--memory=128MB")))
    return steps
