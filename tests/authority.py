"""A certificate authority of the tests."""

import ssl
from pathlib import Path

import trustme

from cypd.doors.tls import Certificates


class Authority:
    """A certificate authority of the tests, and the files of a server that it has certified."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.ca = trustme.CA()
        self.root = folder / "root.pem"
        self.ca.cert_pem.write_to_path(str(self.root))
        self.files = Certificates(folder / "certificate.pem", folder / "key.pem")
        self.certify()

    def certify(self) -> bytes:
        """Write a new certificate and key; return the certificate as DER."""
        issued = self.ca.issue_cert("127.0.0.1", "localhost")
        self.files.key.write_bytes(issued.private_key_pem.bytes())
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        self.files.certificate.write_bytes(chain)
        return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())

    def settings(self, address: str = "") -> dict[str, str]:
        """Return the settings of a daemon with these files; without an address it inherits one."""
        listen = {"CYPD_SERVER_TLS_LISTEN": address} if address else {}
        return {
            **listen,
            "CYPD_TLS_CERTIFICATE": str(self.files.certificate),
            "CYPD_TLS_KEY": str(self.files.key),
        }

    def context(self, *protocols: str) -> ssl.SSLContext:
        """Return what a client needs to trust this authority."""
        context = ssl.create_default_context(cafile=str(self.root))
        if protocols:
            context.set_alpn_protocols(protocols)
        return context
