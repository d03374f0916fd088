"""Between an operator and the API server: writes down who asks for what, and can be unkind.

It speaks plain HTTP on loopback, to `kubectl proxy`, which brings the credentials.
"""

import asyncio
import contextlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import aiohttp
from aiohttp import web

from support.operator_process import write_kubeconfig

_END_SECONDS = 5
_UNTOLD = {"Content-Length", "Transfer-Encoding", "Connection", "Content-Encoding"}


@dataclass(frozen=True)
class Seen:
    """One request, at the moment it came in, on the monotonic clock."""

    at: float
    method: str
    path: str

    @property
    def writes(self) -> bool:
        """It changes something other than a Lease."""
        return self.method not in ("GET", "HEAD") and "/leases" not in self.path


#: What becomes of a request: a status, "hang", or None to pass it on.
Fault = Callable[[Seen], int | str | None]


@contextmanager
def api_proxy(kubectl: Path, kubeconfig: Path) -> "Iterator[ApiProxy]":
    """A proxy to the cluster of a kubeconfig."""
    command = [str(kubectl), "--kubeconfig", str(kubeconfig), "proxy", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tunnel:
        try:
            first = tunnel.stdout.readline() if tunnel.stdout else ""
            with ApiProxy(f"http://{first.split()[-1]}") as proxy:
                yield proxy
        finally:
            tunnel.terminate()


class ApiProxy:
    """Runs in a thread of its own while its `with` block does."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.seen: list[Seen] = []
        self.fault: Fault = lambda _: None
        self.address = ""
        self._over = asyncio.Event()

    def __enter__(self) -> "ApiProxy":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_END_SECONDS + 5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_END_SECONDS)
        self._loop.close()

    def kubeconfig(self, folder: Path) -> Path:
        """A file that leads here."""
        return write_kubeconfig(folder / "kubeconfig", self.address)

    def writes(self) -> list[Seen]:
        """Everything that would have changed something, Leases aside."""
        return [entry for entry in self.seen if entry.writes]

    async def _open(self) -> None:
        unlimited = aiohttp.TCPConnector(limit=0)
        self._client = aiohttp.ClientSession(self._upstream, connector=unlimited)
        app = web.Application(client_max_size=16 * 1024**2)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.address = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _close(self) -> None:
        self._over.set()
        await self._client.close()
        await self._runner.cleanup()
        # Handlers of connections that were given up on.
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        seen = Seen(time.monotonic(), request.method, request.path)
        self.seen.append(seen)
        body = await request.read()
        match self.fault(seen):
            case int(status):
                headers = {"Retry-After": "1"} if status == 429 else None
                return web.json_response({"message": "not now"}, status=status, headers=headers)
            case "hang":
                await self._over.wait()
                return web.Response(status=504)
        headers = {
            name: value for name, value in request.headers.items()
            if name in ("Accept", "Content-Type")
        }  # fmt: skip
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._client.request(
            request.method, request.path_qs, data=body or None, headers=headers, timeout=timeout
        ) as answer:
            told = {k: v for k, v in answer.headers.items() if k not in _UNTOLD}
            response = web.StreamResponse(status=answer.status, headers=told)
            # Who was killed is not told.
            with contextlib.suppress(ConnectionResetError):
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
            return response
