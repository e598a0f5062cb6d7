"""A FUSE file system whose statvfs never answers, as a dead NFS server's: the caller cannot even be killed.

It speaks the kernel's protocol on /dev/fuse itself and needs no library. It is only ever mounted by this file run
as a script inside a mount namespace of its own, which ends with the command that the script runs there:

    unshare -m python faulty_fuse.py MOUNTPOINT CONTROL -- COMMAND...

In the directory CONTROL the file `asked` appears when the first statvfs waits; as soon as somebody makes the file
`answer` there, every statvfs, also a waiting one, is answered.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

STATFS = 17
UNANSWERED = {2, 36, 42}  # FORGET, INTERRUPT, BATCH_FORGET: the kernel expects no reply to these
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
BUFFER = 1 << 18  # the kernel refuses to hand a request to a smaller one than it may need
LOOK_EVERY_MS = 20


def argv_on_hung_mount(mountpoint: Path, control: Path, command: Sequence[str]) -> list[str]:
    """The command line that runs `command` where statvfs(mountpoint) hangs. Without root it maps the user to root."""
    how = ["-m"] if os.geteuid() == 0 else ["-Urm"]
    return ["unshare", *how, sys.executable, __file__, str(mountpoint), str(control), "--", *command]


def run_on_hung_mount(
    mountpoint: Path, control: Path, command: Sequence[str], deadline: float = 30.0
) -> subprocess.CompletedProcess[str]:
    """Run it to its end. Raise subprocess.TimeoutExpired, with everything ended, when it does not come."""
    argv = argv_on_hung_mount(mountpoint, control, command)
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        out, err = child.communicate(timeout=deadline)
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)  # the file system too, which frees who waits for it
        child.communicate()
        raise
    return subprocess.CompletedProcess(argv, child.returncode, out, err)


def can_mount() -> bool:
    """True where this user may mount FUSE in a namespace of its own."""
    how = "-m" if os.geteuid() == 0 else "-Urm"
    return os.access("/dev/fuse", os.R_OK | os.W_OK) and subprocess.run(["unshare", how, "true"]).returncode == 0


# Below: the script, in its own namespace.


def _mount(device: int, mountpoint: str) -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    if libc.mount(b"hung", mountpoint.encode(), b"fuse.hung", 0, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), f"mount {mountpoint}: {os.strerror(ctypes.get_errno())}")
    return libc


def _reply_to(opcode: int) -> bytes | int:
    """What follows the reply's header, or an errno."""
    match opcode:
        case 26:  # INIT: version 7.31, read-ahead, flags, background limits, write size, the rest unused
            return struct.pack("=IIIIHHIIHHI28x", 7, 31, 65536, 0, 12, 9, 65536, 1, 0, 0, 0)
        case 3:  # GETATTR: valid for no time; inode 1, a directory
            attributes = struct.pack("=6Q3I7I", 1, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755, 2, 0, 0, 0, 4096, 0)
            return struct.pack("=QII", 0, 0, 0) + attributes
        case 17:  # STATFS: 1000 blocks of 4096 bytes, 400 free
            return struct.pack("=5Q3I28x", 1000, 400, 400, 100, 50, 4096, 255, 4096)
        case 27:  # OPENDIR
            return struct.pack("=QII", 0, 0, 0)
        case 28 | 29 | 38:  # READDIR: an empty directory; RELEASEDIR, DESTROY
            return b""
        case 1:  # LOOKUP
            return errno.ENOENT
    return errno.ENOSYS


def _serve(device: int, control: str) -> None:
    """Answer until the file system is unmounted."""
    waiting: list[int] = []
    while True:
        free = os.path.exists(f"{control}/answer")
        while free and waiting:
            _send(device, waiting.pop(), STATFS)
        if not select.select([device], [], [], LOOK_EVERY_MS / 1000)[0]:
            continue
        try:
            request = os.read(device, BUFFER)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            continue  # ENOENT: the request was taken back
        _, opcode, unique = struct.unpack_from("=IIQ", request)
        if opcode == STATFS and not free:
            waiting.append(unique)
            Path(control, "asked").touch()
        elif opcode not in UNANSWERED:
            _send(device, unique, opcode)


def _send(device: int, unique: int, opcode: int) -> None:
    reply = _reply_to(opcode)
    body, code = (b"", -reply) if isinstance(reply, int) else (reply, 0)
    try:
        os.write(device, struct.pack("=IiQ", 16 + len(body), code, unique) + body)
    except FileNotFoundError:
        pass  # who asked is gone


def main(mountpoint: str, control: str, command: list[str]) -> int:
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    libc = _mount(device, mountpoint)
    server = os.fork()
    if server == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _serve(device, control)
        os._exit(0)
    os.close(device)  # with the server's copy the connection ends, and everybody who waits gets an error
    try:
        return subprocess.run(command, check=False).returncode
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        libc.umount2(mountpoint.encode(), MNT_DETACH)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[4:]))
