"""A libvirt daemon of its own for one user, whose machines are emulated by qemu and boot nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.servers.process import Server, run

DOMAIN = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type></os>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{disks}</devices></domain>"""
DISK = """<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{file}'/>
<target dev='{target}' bus='virtio'/></disk>"""


class Libvirt(Server):
    """In session mode, which leaves the host's own libvirt alone."""

    name = "libvirtd"
    user = "daemon"  # any that has a group of its name; as root it would be the host's own libvirt

    @property
    def uri(self) -> str:
        return f"qemu:///session?socket={self.data_dir}/run/libvirt/libvirt-sock"

    def prepare(self) -> None:
        for name in ("run", "conf", "cache", "data", "images"):
            directory = self.data_dir / name
            directory.mkdir()
            if os.geteuid() == 0:
                shutil.chown(directory, self.user)

    def command(self) -> list[str]:
        places = {"HOME": "", "XDG_RUNTIME_DIR": "run", "XDG_CONFIG_HOME": "conf", "XDG_CACHE_HOME": "cache",
                  "XDG_DATA_HOME": "data"}  # fmt: skip
        return ["env", *(f"{name}={self.data_dir}/{place}" for name, place in places.items()), self.name]

    def ready(self) -> bool:
        return bool(self.virsh("version"))

    def virsh(self, *words: str) -> str:
        """What virsh prints. Raise ServerError."""
        return run("virsh", "--quiet", "--connect", self.uri, *words, user=self.user).strip()

    def image(self, name: str, pattern: int = 0x5A) -> Path:
        """A new disk of 16 MiB with a megabyte of one byte at its beginning."""
        file = self.data_dir / "images" / name
        run("qemu-img", "create", "-q", "-f", "qcow2", file, "16M", user=self.user)
        run("qemu-io", "-f", "qcow2", "-c", f"write -q -P {pattern} 0 1M", file, user=self.user)
        return file

    def clone(self, base: Path, name: str) -> Path:
        """A new disk that lies on another, with a megabyte of its own."""
        file = self.data_dir / "images" / name
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", file, user=self.user)
        run("qemu-io", "-f", "qcow2", "-c", "write -q -P 9 4M 1M", file, user=self.user)
        return file

    def domain(self, name: str, *images: Path) -> None:
        """Define a machine and start it."""
        disks = "".join(DISK.format(file=file, target=f"vd{'abc'[at]}") for at, file in enumerate(images))
        file = self.data_dir / "data" / f"{name}.xml"
        file.write_text(DOMAIN.format(name=name, disks=disks))
        self.virsh("define", str(file))
        self.virsh("start", name)

    def stop(self) -> None:
        if self._child is not None:
            for name in self.virsh("list", "--name").split():
                self.virsh("destroy", name)
        super().stop()
