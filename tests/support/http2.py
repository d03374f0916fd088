"""A client of HTTP/2 that may do what a library's would not: here never to take an answer."""

import asyncio
import struct
from types import TracebackType
from typing import Self

_DATA, _HEADERS, _SETTINGS, _PING = 0x0, 0x1, 0x4, 0x6
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_INITIAL_WINDOW_SIZE = 0x4


class DeafCaller:
    """Calls methods of gRPC over one connection that grants no byte of an answer's message."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stream = -1
        self._heads = asyncio.Semaphore(0)

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self._send(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW_SIZE, 0))
        self._answering = asyncio.create_task(self._answer())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()
        self._answering.cancel()
        await asyncio.gather(self._answering, return_exceptions=True)

    def call(self, path: str, message: bytes) -> None:
        """A whole request on a stream of its own."""
        self._stream += 2
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "gateway",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        # Literals that no table is asked for.
        block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())
        self._send(_HEADERS, _END_HEADERS, self._stream, block)
        prefix = b"\0" + struct.pack(">I", len(message))
        self._send(_DATA, _END_STREAM, self._stream, prefix + message)

    async def answered(self) -> None:
        """The head of one more answer has come; its message waits for a window."""
        await self._heads.acquire()

    def _send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        length = struct.pack(">I", len(payload))[1:]
        self._writer.write(length + bytes([kind, flags]) + struct.pack(">I", stream) + payload)

    async def _answer(self) -> None:
        """Says that it is alive, as an honest client would."""
        try:
            while True:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                if head[3] == _HEADERS:
                    self._heads.release()
                if head[3] in {_SETTINGS, _PING} and not head[4] & _ACK:
                    answer = payload if head[3] == _PING else b""
                    self._send(head[3], _ACK, 0, answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()
