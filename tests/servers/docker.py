"""A Docker daemon without networks: its own data, its own containers, one image that holds nothing but busybox."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

from tests.servers.process import Server, ServerError, run
from tests.servers.programs import program

IMAGE = "only-busybox"


class Docker(Server):
    """`cli` runs docker(1) against it. Needs root, cgroups and overlay or copying storage."""

    name = "dockerd"

    @property
    def socket(self) -> Path:
        return self.data_dir / "s"

    def command(self) -> list[str]:
        return [self.name, "--iptables=false", "--ip6tables=false", "--bridge=none",
                f"--data-root={self.data_dir}/data", f"--exec-root={self.data_dir}/exec",
                f"--pidfile={self.data_dir}/pid", f"--host=unix://{self.socket}", "--log-level=warn"]  # fmt: skip

    def ready(self) -> bool:
        self.cli("version")
        return True

    def cli(self, *words: str, stdin: str | None = None, deadline: float = 60.0) -> str:
        """What docker(1) prints. Raise ServerError."""
        return run("docker", "--host", f"unix://{self.socket}", *words, stdin=stdin, deadline=deadline).strip()

    def make_image(self) -> None:
        """Import the image from the installed busybox, which is linked statically."""
        image = self.data_dir / "image.tar"
        with tarfile.open(image, "w") as tar:
            member = tarfile.TarInfo("bin/busybox")
            content = Path(program("busybox")).read_bytes()
            member.mode, member.size = 0o755, len(content)
            tar.addfile(member, io.BytesIO(content))
        self.cli("import", str(image), IMAGE)

    def import_root(self, directory: Path, image: str) -> None:
        """Make an image of a whole root file system."""
        packed = self.data_dir / "root.tar"
        run("tar", "--create", f"--file={packed}", f"--directory={directory}", ".", deadline=300)
        self.cli("import", str(packed), image, deadline=300)
        packed.unlink()

    def start_writer(self, name: str, volume: str, *flags: str) -> None:
        """A container that writes to the file `now` of a volume ten times a second, and stops when asked."""
        loop = "trap 'exit 0' TERM; n=0; while :; do n=$((n+1)); echo $n > /data/now; /bin/busybox sleep 0.1; done"
        self.cli("run", "--detach", "--network=none", f"--name={name}", f"--volume={volume}:/data", *flags, IMAGE,
                 "/bin/busybox", "sh", "-c", loop)  # fmt: skip

    def state(self, container: str) -> str:
        """`running`, `paused`, `exited`; `gone` when there is none."""
        try:
            found: list[dict[str, Any]] = json.loads(self.cli("inspect", container))
        except ServerError:
            return "gone"
        return str(found[0]["State"]["Status"])

    def files(self, volume: str) -> Path:
        return self.data_dir / "data" / "volumes" / volume / "_data"

    def stop(self) -> None:
        if self._child is not None:
            try:
                for container in self.cli("ps", "--all", "--quiet").split():
                    self.cli("rm", "--force", "--volumes", container)
            except ServerError:
                pass  # what is left ends with the daemon's cgroup, below
        super().stop()
        for found in (self.data_dir / "data").glob("overlay2/*/merged"):
            if os.path.ismount(found):
                run("umount", "--lazy", found)
        shutil.rmtree(self.data_dir / "exec", ignore_errors=True)
