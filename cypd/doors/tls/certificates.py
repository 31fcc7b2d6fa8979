"""The files TLS needs, looked at before they are handed on: rustls only says that it gave up."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Never

Role = Literal["certificate", "key", "client_ca"]


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
        """Raise CertificateError for what is missing, unreadable, malformed or does not match."""
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
