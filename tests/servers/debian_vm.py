"""A Debian 12 of its own on a kernel of its own, emulated by qemu: what a container cannot have, such as LVM and LXD.

Its kernel is Debian's, with all its modules, and runs nothing of this host's. It is emulated everywhere, also where
/dev/kvm is: there are hosts whose /dev/kvm makes machines that never run, and one way is tried on all. Emulated it
boots in 15 to 25 s, and programs take several times as long as here. It reaches no network; commands go over ssh
through a port of the loopback.
"""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.servers.debian import ENVIRONMENT, PATIENCE_S, Debian
from tests.servers.debian_root import Recipe, debian_root
from tests.servers.process import LOOPBACK, ServerError, run, wait_until
from tests.servers.programs import need, need_root, program

_MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer", "getty.target", "lxd-containers.service", "man-db.timer", "systemd-networkd-wait-online.service",
)  # fmt: skip
# Before: an initrd that holds what finds the disk, and no more. After: its address, and nothing that only takes time.
_INITRD = """
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"
echo MODULES=list >"$1/etc/initramfs-tools/conf.d/vm"
printf 'virtio_pci\\nvirtio_blk\\n' >"$1/usr/share/initramfs-tools/modules.d/vm"
"""
_NETWORK = f"""
printf '[Match]\\nName=e*\\n[Network]\\nAddress=10.0.2.15/24\\n' >"$1/etc/systemd/network/vm.network"
systemctl --root="$1" --quiet enable systemd-networkd
systemctl --root="$1" --quiet mask {" ".join(_MASKED)}
"""
_BASE = (
    "systemd", "systemd-sysv", "dbus", "python3", "zstd", "linux-image-cloud-amd64", "initramfs-tools",
    "openssh-server", "e2fsprogs", "iproute2", "kmod", "udev",
)  # fmt: skip
VOLUMES = Recipe((*_BASE, "lvm2", "xfsprogs", "lxd", "busybox-static", "jq"), _INITRD, _NETWORK)

# Its module is compiled for that kernel, which takes four minutes, once.
ZFS = Recipe((*_BASE, "linux-headers-cloud-amd64", "zfs-dkms", "zfsutils-linux"), _INITRD, _NETWORK, "contrib")

# In a mount namespace of its own: the root with a layer in memory above it, into which the package is installed.
_MAKE_IMAGE = """
layer=$1/layer; merged=$1/merged
mkdir "$layer" "$merged"
mount -t tmpfs none "$layer"
mkdir "$layer/upper" "$layer/work"
mount -t overlay -o "lowerdir=$2,upperdir=$layer/upper,workdir=$layer/work" none "$merged"
install -D -m 0600 "$1/key.pub" "$merged/root/.ssh/authorized_keys"
mount -t proc none "$merged/proc"
shift 2
for package; do
  cp "$package" "$merged/root/"
  chroot "$merged" env SYSTEMD_OFFLINE=1 dpkg --install "/root/${package##*/}"
done
umount "$merged/proc"
mke2fs -q -t ext4 -O ^has_journal -d "$merged" "${layer%/*}/disk" 2500M
"""
_SSH = """\
Host vm
HostName {host}
Port {port}
User root
IdentityFile {directory}/key
IdentitiesOnly yes
BatchMode yes
StrictHostKeyChecking no
UserKnownHostsFile /dev/null
ControlPath {directory}/ssh
ConnectTimeout 60
LogLevel ERROR
"""
_MEMORY_MIB = 1024


def need_vms() -> None:
    """Skip the running test where no machine can be emulated; with CI=true, fail it."""
    need("qemu-system-x86_64", "mmdebstrap", "mke2fs", "ssh", "ssh-keygen")
    need_root("making the disk of a machine needs root")


class DebianVm(Debian):
    """With these packages installed, and empty disks of so many MiB: /dev/vdb, /dev/vdc. All is gone when it stops."""

    name = "qemu-system-x86_64"
    start_deadline = 600.0

    def __init__(self, *packages: Path, recipe: Recipe = VOLUMES, disks: Sequence[int] = (), masked: str = "") -> None:
        """`masked`: a unit that it does not start."""
        super().__init__()
        self._packages, self._recipe, self._disks, self._masked = packages, recipe, disks, masked
        self._line: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        self._root = debian_root(self._recipe)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.data_dir / "key")
        run("unshare", "--mount", "sh", "-ec", _MAKE_IMAGE, "sh", self.data_dir, self._root, *self._packages,
            deadline=300)  # fmt: skip
        for name, size in self._spare().items():
            with open(self.data_dir / name, "wb") as file:
                file.truncate(size << 20)

    def _spare(self) -> dict[str, int]:
        return {f"spare{at}": size for at, size in enumerate(self._disks)}

    def command(self) -> list[str | Path]:
        (self.data_dir / "ssh_config").write_text(_SSH.format(host=LOOPBACK, port=self.port, directory=self.data_dir))
        (kernel,), (initrd,) = self._root.glob("boot/vmlinuz-*"), self._root.glob("boot/initrd.img-*")
        line = "root=/dev/vda rw console=ttyS0 quiet fsck.mode=skip systemd.mask=" + (self._masked or "none.service")
        return [
            self.name, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(_MEMORY_MIB),
            "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio", "-device", "virtio-rng-pci",
            "-kernel", kernel, "-initrd", initrd, "-append", line, *self._drive("disk"),
            *(word for name in self._spare() for word in self._drive(name)),
            "-netdev", f"user,id=line,restrict=on,hostfwd=tcp:{LOOPBACK}:{self.port}-:22",
            "-device", "virtio-net-pci,netdev=line",
        ]  # fmt: skip

    def _drive(self, name: str) -> tuple[str, str]:
        return "-drive", f"file={self.data_dir / name},format=raw,if=virtio,cache=unsafe,discard=unmap"

    def ready(self) -> bool:
        if self._line is None or self._line.poll() is not None:
            # One connection for all commands: to make one takes a second.
            self._line = subprocess.Popen([*self._ssh("-M", "-N", "vm")], stdin=subprocess.DEVNULL,
                                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
            wait_until(lambda: (self.data_dir / "ssh").exists() or self._has_hung_up(), "ssh", self.start_deadline, 0.1)
        return not self._has_hung_up() and super().ready()

    def _has_hung_up(self) -> bool:
        return self._line is None or self._line.poll() is not None

    def _ssh(self, *words: str) -> list[str]:
        return [program("ssh"), "-F", str(self.data_dir / "ssh_config"), *words]

    def attempt(
        self, *argv: str, stdin: str | None = None, deadline: float = PATIENCE_S
    ) -> subprocess.CompletedProcess[str]:
        if self._has_hung_up():
            raise ServerError("the machine has hung up")
        given = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        inside = self._ssh("vm", shlex.join((*ENVIRONMENT, *argv)))
        return subprocess.run(inside, capture_output=True, text=True, timeout=deadline, check=False, **given)  # type: ignore[call-overload, no-any-return]

    def _end(self, how: object) -> None:
        line, self._line = self._line, None
        super()._end(how)  # type: ignore[arg-type]
        if line is not None:
            with contextlib.suppress(ProcessLookupError):
                line.kill()
            line.wait()
