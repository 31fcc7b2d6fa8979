"""The files TLS needs, looked at before they are handed on: rustls only says that it gave up."""

import ssl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Never

Role = Literal["certificate", "key", "client_ca"]

LISTENS = b"listens\n"
"""What the trial says when all works but what depends on the files."""


class CertificateError(Exception):
    """A file can't be used; ``role`` says which, the message names it and says why."""

    def __init__(self, role: Role, message: str) -> None:
        super().__init__(message)
        self.role: Role = role


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files: our certificate with its chain, its key, and who may sign clients' certificates.

    ``client_ca``: with it, only clients that show a certificate signed by it are let in.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def check(self) -> None:
        """Raise CertificateError for what is missing, unreadable, malformed or does not match.

        Raises OSError if that can't be found out. Takes about a second, for it starts a process.
        """
        _require_certificates("certificate", self.certificate)
        if self.client_ca is not None:
            _require_certificates("client_ca", self.client_ca)
        _require_readable("key", self.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.key, self._refuse_passphrase)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                reason = f"{self.key} is not the key of {self.certificate}"
            else:
                reason = f"{self.key}: no private key in PEM"
            raise CertificateError("key", reason) from None
        self._try_rustls()

    def _try_rustls(self) -> None:
        """Ask rustls in a process of its own, since it aborts on what it can't use.

        OpenSSL takes keys that rustls does not know, for example on the curve P-521.
        """
        files = [self.certificate, self.key, *filter(None, [self.client_ca])]
        command = [sys.executable, "-I", "-m", "cypd.doors.tls.trial", *map(str, files)]
        tried = subprocess.run(command, env={}, capture_output=True, check=False)  # noqa: S603
        if LISTENS not in tried.stdout:
            raise OSError(f"TLS can't be tried: {tried.stderr.decode(errors='replace').strip()}")
        if tried.returncode != 0:
            raise CertificateError(
                "key",
                f"{self.key}: rustls can't use it, or not with {self.certificate}; it takes RSA, "
                "ECDSA on P-256 and P-384, and Ed25519",
            )

    def _refuse_passphrase(self) -> Never:
        raise CertificateError("key", f"{self.key} is encrypted; cypd has no passphrase for it")


def _require_certificates(role: Role, path: Path) -> None:
    _require_readable(role, path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError:
        raise CertificateError(role, f"{path}: no certificate in PEM") from None


def _require_readable(role: Role, path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise CertificateError(role, f"{path}: {(error.strerror or str(error)).lower()}") from None
