"""Sockets in the network of another process, so that what speaks to loopback there can be spoken to from here."""

from __future__ import annotations

import ctypes
import os
import socket
import threading

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def socket_of(pid: int | None) -> socket.socket:
    """A TCP socket in the network namespace of that process, or in ours. Raise OSError, as without being root.

    A socket stays where it was made. A thread can be in another namespace than its process, so one is moved there.
    """
    if pid is None:
        return socket.socket()
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def make() -> None:
        try:
            with open(f"/proc/{pid}/ns/net", "rb") as namespace:
                if _libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), f"network of process {pid}")
            made.append(socket.socket())
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=make, name="socket-of")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]
