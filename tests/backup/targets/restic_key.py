"""A restic repository that opens at once: its password's key takes next to no computing, which only suits a test.

Each start of restic otherwise spends half a second of processor time on it. The file is as restic's design document
has it: scrypt, AES-256 in counter mode, Poly1305-AES.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from pathlib import Path

COST = {"N": 2, "r": 1, "p": 1}


def make_quick(repository: Path, password: str, master_key: str) -> None:
    """Replace a repository's keys by one of the same password. `master_key`: as `restic cat masterkey` prints it."""
    salt, nonce = os.urandom(64), os.urandom(16)
    derived = hashlib.scrypt(password.encode(), salt=salt, n=COST["N"], r=COST["r"], p=COST["p"], dklen=64)
    sealed = _aes("-aes-256-ctr", derived[:32], master_key.encode(), nonce)
    mask = _aes("-aes-128-ecb", derived[32:48], nonce)
    data = nonce + sealed + _poly1305(derived[48:], mask, sealed)
    key = {"created": "2026-01-01T00:00:00Z", "username": "test", "hostname": "test", "kdf": "scrypt", **COST,
           "salt": base64.b64encode(salt).decode(), "data": base64.b64encode(data).decode()}  # fmt: skip
    content = json.dumps(key).encode()
    for old in (repository / "keys").iterdir():
        old.unlink()
    (repository / "keys" / hashlib.sha256(content).hexdigest()).write_bytes(content)


def _aes(mode: str, key: bytes, content: bytes, nonce: bytes | None = None) -> bytes:
    words = ["openssl", "enc", mode, "-nopad", "-K", key.hex(), *(["-iv", nonce.hex()] if nonce else [])]
    return subprocess.run(words, input=content, capture_output=True, check=True).stdout


def _poly1305(key: bytes, mask: bytes, content: bytes) -> bytes:
    multiplier = int.from_bytes(key, "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for at in range(0, len(content), 16):
        total = (total + int.from_bytes(content[at : at + 16] + b"\1", "little")) * multiplier % ((1 << 130) - 5)
    return ((total + int.from_bytes(mask, "little")) % (1 << 128)).to_bytes(16, "little")
