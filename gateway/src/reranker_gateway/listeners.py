"""The listeners of a process in one event loop, started together and drained on SIGTERM."""

import asyncio
import contextlib
import logging
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import uvicorn
from starlette.types import ASGIApp

from reranker_gateway.connection import (
    KEEP_ALIVE_SECONDS,
    ClientProtocol,
    ConnectionLimits,
    client_protocol,
)
from reranker_gateway.drain import Drain
from reranker_gateway.handshake import Handshake
from reranker_gateway.kserve.server import GrpcListenError, listen
from reranker_gateway.logs import log_event
from reranker_gateway.settings import Settings
from reranker_gateway.tls import Certificate

#: Time for answers in progress to be written out once the drain is over.
_FLUSH_SECONDS = 2
_BACKLOG = 2048
#: Answers that nobody takes may together hold this many times the largest body.
_ANSWERS = 4
#: Between looks for the file that foretells a kill.
_LOOK_SECONDS = 0.1
#: Files that are open beside connections: libraries, event loop, gRPC.
_OWN_DESCRIPTORS = 128
_log = logging.getLogger(__name__)


class ListenError(Exception):
    """A port cannot be opened; the message names the setting."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: those close the listeners at once."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


class _TlsServer(_Server):
    """uvicorn whose handshakes are connections like all others."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on `sockets`."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise SystemExit(3)
        config, loop = self.config, asyncio.get_running_loop()

        def protocol() -> asyncio.Protocol:
            kind: Any = config.http_protocol_class
            state = self.lifespan.state
            inner = kind(config=config, server_state=self.server_state, app_state=state)
            assert config.ssl is not None  # noqa: S101 - made for TLS only
            return Handshake(inner, config.ssl)

        self.servers = [
            await loop.create_server(protocol, sock=listener, backlog=config.backlog)
            for listener in sockets or ()
        ]
        self.started = True


class Listeners:
    """The API's port, that of the metrics and, where it is served, gRPC's."""

    def __init__(self, settings: Settings) -> None:
        """Opens the ports of HTTP. Raises ListenError, TlsError."""
        self._settings = settings
        self._certificate = Certificate(settings.tls_dir) if settings.tls_dir else None
        self._api_socket = _listen(settings, "http_port")
        self._metrics_socket = _listen(settings, "metrics_port")
        self._kserve: Any = None
        self._grpc = "grpc" in settings.dialects
        #: Those allowed on each port.
        self.connections = raise_descriptors(settings.max_connections, 3 if self._grpc else 2)

    def add_grpc(self, create: Callable[[], Any]) -> None:
        """Open gRPC's port, if it is served, for the server that `create` makes.

        Raises ListenError.
        """
        if not self._grpc:
            return
        server = create()
        try:
            listen(server, self._settings)
        except GrpcListenError as error:
            raise ListenError(str(error)) from error
        self._kserve = server

    async def serve(
        self, api_app: ASGIApp, metrics_app: ASGIApp, drain: Drain,
        *, lifespan: Literal["on", "off"],
    ) -> None:  # fmt: skip
        """Until SIGTERM or SIGINT; then drain."""
        limits = ConnectionLimits(
            connections=self.connections,
            idle_seconds=self._settings.read_idle_seconds,
            answer_seconds=self._settings.read_timeout_seconds,
            answer_bytes=_ANSWERS * self._settings.max_body_bytes,
            age_seconds=self._settings.connection_age_seconds,
        )
        api = _server(api_app, limits, lifespan=lifespan, certificate=self._certificate)
        metrics = _server(metrics_app, limits, lifespan="off")
        doomed = self._settings.doomed_file
        tasks = [
            asyncio.create_task(_drain_on_signal(drain, [api, metrics], doomed)),
            asyncio.create_task(_send_idle_away(drain, api)),
        ]
        if self._certificate is not None:
            tasks.append(asyncio.create_task(self._certificate.watch()))
        kserve = self._kserve
        if kserve is not None:
            await kserve.start()
            tasks.append(asyncio.create_task(_send_away(drain, kserve)))
        await asyncio.gather(api.serve([self._api_socket]), metrics.serve([self._metrics_socket]))
        if kserve is not None:
            await kserve.stop(_FLUSH_SECONDS)
        for task in tasks:
            task.cancel()
        _log.info("stopped")


async def _drain_on_signal(drain: Drain, servers: list[_Server], doomed: Path | None) -> None:
    """First signal: drain. Second: stop waiting for anything."""
    first = asyncio.Event()

    def on_signal() -> None:
        if first.is_set():
            drain.hurry()
        first.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await first.wait()
    log_event(_log, "draining", inProgress=drain.active)
    if doomed is not None:
        # It may be an old one: of a Triton that was ended alone.
        doomed.unlink(missing_ok=True)  # noqa: ASYNC240 (local, and once)
    watch = asyncio.create_task(_part_when_doomed(drain, doomed))
    if not await drain.run():
        _log.warning("drain timeout: %d requests are cut off", drain.active)
    watch.cancel()
    for server in servers:
        server.should_exit = True


async def _part_when_doomed(drain: Drain, doomed: Path | None) -> None:
    if doomed is None:
        return
    while not doomed.exists():  # noqa: ASYNC110, ASYNC240 (another container's, and local)
        await asyncio.sleep(_LOOK_SECONDS)
    _log.warning("the pod was deleted by force: %d requests in progress", drain.active)
    drain.part()


async def _send_idle_away(drain: Drain, api: _Server) -> None:
    """Clients of kept connections learn by an answer that they are to go; the silent ones by this.

    First while requests are still taken: one that crosses with the end on its way is served then.
    """
    for moment in (drain.delayed, drain.parting):
        await moment.wait()
        for connection in tuple(api.server_state.connections):
            if isinstance(connection, ClientProtocol):
                connection.end_if_idle()


async def _send_away(drain: Drain, kserve: Any) -> None:
    """Once nobody should stay: clients take their next calls elsewhere, the others are finished.

    Until then a client that was told to go could come back to this pod, and find it closed.
    """
    await drain.parting.wait()
    await kserve.stop(drain.remaining)


def _server(
    app: ASGIApp,
    limits: ConnectionLimits,
    *,
    lifespan: Literal["on", "off"],
    certificate: Certificate | None = None,
) -> _Server:
    config = uvicorn.Config(
        app,
        http=client_protocol(limits),
        ws="none",
        proxy_headers=False,
        lifespan=lifespan,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_FLUSH_SECONDS,
    )
    if certificate is None:
        return _Server(config)
    context = certificate.context
    config.ssl_context_factory = lambda _config, _default: context
    return _TlsServer(config)


def raise_descriptors(connections: int, ports: int) -> int:
    """Make room for `connections` on each port; returns what of it the system allows on one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ports * connections + _OWN_DESCRIPTORS
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(1, min(connections, (max(soft, allowed) - _OWN_DESCRIPTORS) // ports))


def _listen(settings: Settings, field: str) -> socket.socket:
    port: int = getattr(settings, field)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ListenError(
            f"RERANKER_{field.upper()}={port}: cannot listen on {settings.host}: {error.strerror}"
        ) from error
    # asyncio sets it only for sockets that name their protocol, which these do not; connections
    # inherit it. Without it the body of an answer waits 40 ms for the receipt of its head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
