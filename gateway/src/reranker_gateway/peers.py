"""Connections to other pods of the same service, over TLS where they have it.

They show the certificate that this process has too. It trusts that one, whatever names are in it:
they are the names that clients know, not those of pods. Each request of `client` has a connection
of its own: the address leads to one of the pods by chance, and the next one should find another.
What `connection` gives is only ever to one and the same process.
"""

import socket
import ssl
from pathlib import Path
from typing import Final

import httpcore
import httpx

#: Seconds. Where nothing answers for an address, some networks refuse and some say nothing.
CONNECT_SECONDS: Final = 1.0
#: A node that vanished says nothing: after some 20 s without a sign of life it has.
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000),
)

Headers = list[tuple[bytes, bytes]]


class Peers:
    """Keeps a client that trusts the certificate which is mounted now."""

    def __init__(self, tls_dir: Path | None) -> None:
        """`tls_dir`: a folder with the pods' tls.crt; None where they speak plain HTTP."""
        self._tls_dir = tls_dir
        self._client: httpx.AsyncClient | None = None
        self._trusted: bytes | None = None

    @property
    def certificate(self) -> bytes | None:
        """What the pods are expected to show, as PEM; None without TLS. Raises OSError."""
        return None if self._tls_dir is None else (self._tls_dir / "tls.crt").read_bytes()

    async def client(self) -> httpx.AsyncClient:
        """The client. Raises OSError where the certificate can't be read."""
        trusted = self.certificate
        if self._client is None or trusted != self._trusted:
            # Requests under way go on with the former one; it keeps no connection beyond them.
            self._trusted = trusted
            transport = httpx.AsyncHTTPTransport(
                verify=_context(trusted) if trusted is not None else False,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
                trust_env=False,
                socket_options=_KEEPALIVE,
            )
            self._client = httpx.AsyncClient(transport=transport, trust_env=False)
        return self._client

    def connection(self, origin: httpcore.Origin) -> httpcore.AsyncHTTPConnection:
        """One that connects once, and is closed by who asked for it.

        Another request that finds it closed raises httpcore.ConnectionNotAvailable and is not sent.
        Raises OSError where the certificate can't be read.
        """
        trusted = self.certificate
        return httpcore.AsyncHTTPConnection(
            origin,
            ssl_context=_context(trusted) if trusted is not None else None,
            socket_options=_KEEPALIVE,
        )

    async def close(self) -> None:
        """Close all connections of the client."""
        if self._client is not None:
            await self._client.aclose()


def _context(certificate: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=certificate.decode("ascii", errors="ignore"))
    # The certificate itself is what is trusted, whoever has signed it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
