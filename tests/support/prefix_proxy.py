"""A proxy that serves another HTTP server under a path of its own, as an Ingress does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def prefix_proxy(port: int, prefix: str) -> AsyncIterator[str]:
    """The URL under which the server on `port` is found; other paths get no answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, path, rest = head.split(b" ", 2)
        if path.startswith(prefix.encode() + b"/"):
            upstream, onward = await asyncio.open_connection("127.0.0.1", port)
            path = path[len(prefix) :]
            # One request per connection: only the first head is rewritten.
            line, _, fields = rest.partition(b"\r\n")
            onward.write(b"%s %s %s\r\nConnection: close\r\n%s" % (method, path, line, fields))
            await asyncio.gather(_pump(reader, onward), _pump(upstream, writer))
            onward.close()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{prefix}"
    finally:
        server.close()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(1 << 16):
            target.write(data)
            await target.drain()
        if target.can_write_eof():
            target.write_eof()
    except OSError:
        return
