"""Access control lists: from the text that tar keeps to the bytes that the kernel takes (linux/posix_acl_xattr.h)."""

from __future__ import annotations

import grp
import pwd
import struct

_VERSION = 2
_NO_ID = 0xFFFFFFFF
_TAGS = {"user": (0x01, 0x02), "group": (0x04, 0x08), "mask": (0x10, 0x10), "other": (0x20, 0x20)}  # own, named


def encode(text: str) -> bytes:
    """`user::rw-,user:bob:r--,...` (or lines) as the value of system.posix_acl_access. Raise ValueError."""
    entries = []
    for line in text.replace(",", "\n").splitlines():
        stated = line.partition("#")[0].strip()
        if stated:
            entries.append(_entry(stated))
    if not entries:
        raise ValueError("an access control list without entries")
    return struct.pack("<I", _VERSION) + b"".join(struct.pack("<HHI", *entry) for entry in sorted(entries))


def _entry(text: str) -> tuple[int, int, int]:
    parts = text.split(":")
    # tar adds the number as a fourth part where it knows it: the name may be another's here.
    if len(parts) not in (3, 4) or parts[0] not in _TAGS or len(parts[2]) != 3:
        raise ValueError(f"{text!r} is no entry of an access control list")
    kind, name, permissions = parts[0], parts[1], parts[2]
    bits = sum(bit for char, letter, bit in zip(permissions, "rwx", (4, 2, 1), strict=True) if char == letter)
    own, named = _TAGS[kind]
    if not name:
        return own, bits, _NO_ID
    return named, bits, int(parts[3]) if len(parts) == 4 else _number(kind, name)


def _number(kind: str, name: str) -> int:
    if name.isdecimal():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid if kind == "user" else grp.getgrnam(name).gr_gid
    except KeyError:
        raise ValueError(f"no such {kind} here: {name!r}") from None
