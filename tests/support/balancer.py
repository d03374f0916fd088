"""What kube-proxy does, on loopback: each new connection goes to one of the endpoints of then."""

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import suppress


class Balancer:
    """Connections to `port` go to the ports in `endpoints`, in turn, and stay where they are."""

    def __init__(self) -> None:
        self.endpoints: Sequence[int] = ()
        self.port = 0
        self._turn = itertools.count()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Cut all connections."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connect(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        writers = [back]
        try:
            port = self.endpoints[next(self._turn) % len(self.endpoints)]
            far, out = await asyncio.open_connection("127.0.0.1", port)
            writers.append(out)
            await asyncio.gather(_pass_on(near, out), _pass_on(far, back))
        except OSError:
            pass  # As a packet to a port where nobody listens: the client sees the end.
        finally:
            for writer in writers:
                writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Bytes, and at the end the end."""
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    with suppress(OSError):
        writer.write_eof()
