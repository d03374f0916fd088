"""The process: its listeners in one event loop, started together and drained on SIGTERM."""

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
from collections.abc import Iterator
from typing import Any, Literal

import uvicorn
from starlette.types import ASGIApp

from reranker_gateway.api.info import metrics_app
from reranker_gateway.api.models import names_of
from reranker_gateway.app import create_app
from reranker_gateway.connection import (
    KEEP_ALIVE_SECONDS,
    ConnectionLimits,
    client_protocol,
)
from reranker_gateway.drain import Drain
from reranker_gateway.engine_files import EngineFiles
from reranker_gateway.gateway import Gateway, build_gateway
from reranker_gateway.handshake import Handshake
from reranker_gateway.kserve.server import GrpcListenError, create_server, listen
from reranker_gateway.logs import log_event
from reranker_gateway.settings import Settings
from reranker_gateway.tls import Certificate
from reranker_gateway.tracing import load_tracing
from reranker_gateway.triton import TritonEngine

#: Time for answers in progress to be written out once the drain is over.
_FLUSH_SECONDS = 2
_BACKLOG = 2048
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


async def serve(settings: Settings, files: EngineFiles) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises ListenError, TlsError, ApiKeysError."""
    certificate = Certificate(settings.tls_dir) if settings.tls_dir else None
    api_socket = _listen(settings, "http_port")
    metrics_socket = _listen(settings, "metrics_port")
    engine = TritonEngine(
        url=settings.triton_url,
        metrics_url=settings.triton_metrics_url,
        model=files.model,
        infer_timeout=settings.infer_timeout_seconds,
    )
    gateway = build_gateway(settings, files, engine, tracing=load_tracing(os.environ))
    # HTTP, metrics, gRPC.
    ports = 3 if "grpc" in settings.dialects else 2
    connections = raise_descriptors(settings.max_connections, ports)
    kserve = _kserve(gateway, connections)
    limits = ConnectionLimits(
        connections=connections,
        idle_seconds=settings.read_idle_seconds,
        answer_seconds=settings.read_timeout_seconds,
    )
    api = _server(create_app(gateway), limits, lifespan="on", certificate=certificate)
    metrics = _server(metrics_app(gateway), limits, lifespan="off")
    _announce(gateway)
    tasks = [asyncio.create_task(_drain_on_signal(gateway.drain, [api, metrics]))]
    if certificate is not None:
        tasks.append(asyncio.create_task(certificate.watch()))
    if kserve is not None:
        await kserve.start()
        tasks.append(asyncio.create_task(_send_away(gateway.drain, kserve)))
    await asyncio.gather(api.serve([api_socket]), metrics.serve([metrics_socket]))
    if kserve is not None:
        await kserve.stop(_FLUSH_SECONDS)
    for task in tasks:
        task.cancel()
    _log.info("stopped")


def _kserve(gateway: Gateway, connections: int) -> Any:
    """The gRPC server on its port, not started; None when it is switched off."""
    if "grpc" not in gateway.settings.dialects:
        return None
    server = create_server(gateway, names_of(gateway), connections)
    try:
        listen(server, gateway.settings)
    except GrpcListenError as error:
        raise ListenError(str(error)) from error
    return server


async def _drain_on_signal(drain: Drain, servers: list[_Server]) -> None:
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
    if not await drain.run():
        _log.warning("drain timeout: %d requests are cut off", drain.active)
    for server in servers:
        server.should_exit = True


async def _send_away(drain: Drain, kserve: Any) -> None:
    """Once the drain is closed: clients take their next calls elsewhere, the others are finished.

    Until then a client that was told to go could come back to this pod, and find it closed.
    """
    await drain.closed.wait()
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
    return listener


def _announce(gateway: Gateway) -> None:
    log_event(
        _log,
        "starting",
        model=gateway.served_name,
        engine=gateway.files.manifest.digest,
        maxLength=gateway.files.max_length,
        port=gateway.settings.http_port,
    )
