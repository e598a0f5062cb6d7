"""Certificates of a throw-away authority, made by openssl: good, expired, or for another name."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from tests.servers.process import run


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files in PEM: the authority to trust, the server's certificate and its key."""

    authority: Path
    certificate: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def client_context(self) -> ssl.SSLContext:
        """Trusts this authority and no other."""
        return ssl.create_default_context(cafile=str(self.authority))


def make_certificate(
    directory: Path, names: str = "DNS:localhost,IP:127.0.0.1,IP:::1", expired: bool = False
) -> Certificate:
    """A new authority and a certificate from it, for `names` as openssl's subjectAltName writes them."""
    directory.mkdir(parents=True, exist_ok=True)
    made = Certificate(directory / "ca.pem", directory / "cert.pem", directory / "key.pem")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"]
    run("openssl", "req", "-x509", *new_key, "-keyout", directory / "ca.key", "-out", made.authority, "-days", "30",
        "-subj", "/CN=a throw-away authority", "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    run(
        "openssl", "req", *new_key, "-keyout", made.key, "-out", directory / "request.pem", "-subj", "/CN=a test server"
    )
    (directory / "extensions").write_text(f"subjectAltName={names}\n")
    run("openssl", "x509", "-req", "-in", directory / "request.pem", "-CA", made.authority,
        "-CAkey", directory / "ca.key", "-extfile", directory / "extensions",
        "-days", "-1" if expired else "30", "-out", made.certificate)  # fmt: skip
    return made
