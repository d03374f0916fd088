"""TLS for the API port, with a certificate that is replaced without a restart.

The files are a mounted Secret of type kubernetes.io/tls. New connections get the new certificate;
those that are open go on with theirs.
"""

import asyncio
import logging
import ssl
from pathlib import Path

_CHECK_SECONDS = 5.0
_log = logging.getLogger(__name__)


class TlsError(Exception):
    """The certificate cannot be used; the message names the file."""


class Certificate:
    """`tls.crt` and `tls.key` in `folder`, loaded into `context` now and whenever they change."""

    def __init__(self, folder: Path) -> None:
        """Raises TlsError."""
        self._chain = folder / "tls.crt"
        self._key = folder / "tls.key"
        self.context = _context()
        self._version = self._stamp()
        self._load(self.context)

    async def watch(self) -> None:
        """Run until cancelled."""
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            self.refresh()

    def refresh(self) -> bool:
        """Look at the files; whether a new certificate was taken."""
        try:
            version = self._stamp()
            if version == self._version:
                return False
            # On another one first: half a change, and the one in use would have no key.
            self._load(_context())
            self._load(self.context)
        except TlsError as error:
            _log.warning("the certificate was not replaced: %s", error)
            return False
        self._version = version
        _log.info("the certificate was replaced")
        return True

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        found = []
        for path in (self._chain, self._key):
            try:
                status = path.stat()
            except OSError as error:
                raise TlsError(f"{path} cannot be read: {error.strerror}") from error
            found.append((status.st_ino, status.st_mtime_ns, status.st_size))
        return tuple(found)

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            # A key with a password would make OpenSSL ask for it on the terminal.
            context.load_cert_chain(self._chain, self._key, password="")
        except OSError as error:  # ssl.SSLError is one
            raise TlsError(f"{self._chain} and {self._key} are not a pair: {error}") from error


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    # Renegotiation is work that a client can ask for again and again.
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context
