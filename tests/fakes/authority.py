"""A throw-away certificate authority, made with the openssl command."""

import ssl
import subprocess
from pathlib import Path


class Authority:
    """Signs certificates for 127.0.0.1 in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        key = self._key("authority")
        self.root = folder / "authority.pem"
        extension = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
        _openssl(
            "req", "-x509", "-new", "-days", "2", "-subj", "/CN=authority", "-key", key, "-out", self.root, *extension
        )

    def sign(self, name: str) -> tuple[Path, Path]:
        """A certificate and its key."""
        key, wish, cert = self._key(name), self.folder / f"{name}.csr", self.folder / f"{name}.pem"
        names = self.folder / f"{name}.ext"
        names.write_text("subjectAltName = IP:127.0.0.1, DNS:localhost\n")
        _openssl("req", "-new", "-subj", f"/CN={name}", "-key", key, "-out", wish)
        signer = ["-CA", self.root, "-CAkey", self.folder / "authority.key", "-CAcreateserial"]
        _openssl("x509", "-req", "-days", "2", "-in", wish, "-out", cert, "-extfile", names, *signer)
        return cert, key

    def context(self) -> ssl.SSLContext:
        """Of a client that trusts this authority alone."""
        return ssl.create_default_context(cafile=str(self.root))

    def _key(self, name: str) -> Path:
        key = self.folder / f"{name}.key"
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
        return key


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)
