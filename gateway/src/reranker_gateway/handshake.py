"""A connection on its way to TLS, which counts like one that has arrived.

asyncio shakes hands before a protocol hears of the connection, so that as many as like could be at
it. Here a handshake is a connection from its first packet on: it has a time limit, and when there
are too many connections it is among those that make room.

    accepted ─▶ Handshake ─▶ ClientProtocol over TLS
                    └▶ late, failed, or made room ─▶ closed
"""

import asyncio
import ssl

from reranker_gateway.connection import ClientProtocol, Owed, make_room

#: A client that opens a connection and does not shake hands holds a descriptor until then; one that
#: does not take part in the end of TLS as long again.
HANDSHAKE_SECONDS = 5.0


class Handshake(asyncio.Protocol):
    """Becomes `protocol` when TLS has been agreed upon."""

    def __init__(self, protocol: ClientProtocol, context: ssl.SSLContext) -> None:
        self._protocol = protocol
        self._context = context
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        #: What arrived between the end of the handshake and the next step of the loop.
        self._early: list[bytes] = []
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it, make room when there are too many, and begin."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - it is a socket's
        self._transport = transport
        self._protocol.connections.add(self)  # type: ignore[arg-type]  # all that uvicorn calls is there
        make_room(self._protocol)
        self._protocol.silent.put(self, Owed.FIRST)
        self._task = asyncio.get_running_loop().create_task(self._shake(transport))

    def data_received(self, data: bytes) -> None:
        """TLS is agreed upon, and the client was quick."""
        self._early.append(data)

    def eof_received(self) -> None:
        """The client has nothing more to say; the transport closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone before it was handed over."""
        self._ended = True

    def end(self) -> None:
        """Make room."""
        # At once: who comes in the same moment must not choose this one again.
        self._protocol.silent.put(self, None)
        if self._transport is not None:
            self._transport.abort()

    def shutdown(self) -> None:
        """The server ends."""
        self.end()

    async def _shake(self, transport: asyncio.Transport) -> None:
        try:
            secure = await asyncio.get_running_loop().start_tls(
                transport,
                self,
                self._context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=HANDSHAKE_SECONDS,
            )
        except OSError:  # ssl.SSLError is one: no TLS, too old, too late, gone
            return
        finally:
            self._protocol.silent.put(self, None)
            self._protocol.connections.discard(self)
        if secure is None or self._ended:
            return
        self._protocol.beneath = transport
        secure.set_protocol(self._protocol)
        self._protocol.connection_made(secure)
        if self._early:
            self._protocol.data_received(b"".join(self._early))
