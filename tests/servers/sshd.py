"""OpenSSH's server with a host key and a user key of its own; logs in the user who runs the tests."""

from __future__ import annotations

import getpass
import os
import shlex
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.servers.process import LOOPBACK, Server, run
from tests.servers.programs import program

CONFIG = """\
ListenAddress {host}:{port}
HostKey {dir}/host_key
AuthorizedKeysFile {dir}/user_key.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
Subsystem sftp internal-sftp
{more}
"""


class Sshd(Server):
    """`config` is more lines of sshd_config: "ForceCommand ..."."""

    name = "sshd"

    def __init__(self, config: str = "") -> None:
        super().__init__()
        self.config = config
        self.login = getpass.getuser()

    @property
    def url(self) -> str:
        return f"ssh://{self.login}@{LOOPBACK}:{self.port}"

    @property
    def key(self) -> Path:
        """The user's private key, which it lets in."""
        return self.data_dir / "user_key"

    @property
    def known_hosts(self) -> Path:
        return self.data_dir / "known_hosts"

    @property
    def options(self) -> list[str]:
        """Options that make ssh, sftp and scp use this server's keys and ask nothing; the port is among them."""
        words = {
            "Port": str(self.port),
            "IdentityFile": str(self.key),
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": str(self.known_hosts),
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "LogLevel": "ERROR",
        }
        return ["-F", "none", *(word for name, value in words.items() for word in ("-o", f"{name}={value}"))]

    @property
    def rsh(self) -> str:
        """The remote shell for `rsync -e`."""
        return shlex.join(["ssh", *self.options])

    def prepare(self) -> None:
        for name in ("host_key", "user_key"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", self.data_dir / name)
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # compiled in: it drops its privileges there

    def command(self) -> list[str]:
        config = self.data_dir / "sshd_config"
        config.write_text(CONFIG.format(host=LOOPBACK, port=self.port, dir=self.data_dir, more=self.config))
        host_key = (self.data_dir / "host_key.pub").read_text()
        self.known_hosts.write_text(f"[{LOOPBACK}]:{self.port} {host_key}")
        return [self.name, "-D", "-e", "-f", str(config)]

    def ready(self) -> bool:
        with socket.create_connection((LOOPBACK, self.port), timeout=2) as connection:
            return connection.recv(4) == b"SSH-"

    def ssh(self, *command: str, words: Sequence[str] = (), stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a command over there, with more `words` for ssh itself; any exit status is returned."""
        argv = [program("ssh"), *self.options, *words, f"{self.login}@{LOOPBACK}", "--", shlex.join(command)]
        return subprocess.run(argv, input=stdin, capture_output=True, timeout=60, check=False)
