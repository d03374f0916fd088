"""Servers at the protocol boundary, and what all remote sources have in common."""

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from engine_builder.errors import StageError
from engine_builder.progress import Progress
from engine_builder.sources import open_source
from engine_builder.stages.fetch import fetch

PROGRESS = Progress("test")


class Quiet(BaseHTTPRequestHandler):
    """Answers without a word on the test's output."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing."""

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        """One whole answer."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def serving(handler: type[Quiet], certificate: Path | None = None) -> Iterator[str]:
    """A server on loopback; with a certificate it speaks TLS. Gives its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            scheme = "https"
        # Refused handshakes are what some tests are about.
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"{scheme}://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Key and certificate of 127.0.0.1 in one PEM file, and the authority that vouches for it."""
    folder.mkdir(exist_ok=True)
    root, root_key = _certificate("an authority", None)
    leaf, leaf_key = _certificate("127.0.0.1", (root, root_key))
    authority, server = folder / "ca.crt", folder / "server.pem"
    authority.write_bytes(root.public_bytes(Encoding.PEM))
    private = leaf_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    server.write_bytes(private + leaf.public_bytes(Encoding.PEM))
    return server, authority


_Signer = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def _certificate(common_name: str, issuer: _Signer | None) -> _Signer:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer[0].subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer:
        address = x509.IPAddress(ipaddress.ip_address(common_name))
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256()), key


def resolved(uri: str, scratch: Path, revision: str | None = None) -> str:
    """The revision of a source."""
    scratch.mkdir(exist_ok=True)
    return open_source(uri, None).resolve(revision, scratch).revision


def fetched(uri: str, revision: str, out: Path) -> dict[str, bytes]:
    """Names and bytes that `fetch` wrote, its own notes left out."""
    fetch(uri, revision=revision, source_dir=None, out=out, progress=PROGRESS)
    ours = {"source.json", ".engine-builder-output"}
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name not in ours}


def refusal(uri: str, scratch: Path, revision: str | None = None) -> StageError:
    """Why a source can't be resolved."""
    with pytest.raises(StageError) as caught:
        resolved(uri, scratch, revision)
    return caught.value
