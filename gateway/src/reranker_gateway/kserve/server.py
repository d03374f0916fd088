"""The listener of the gRPC port and its bounds."""

import logging
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from reranker_gateway.api.models import ModelNames
from reranker_gateway.gateway import Gateway
from reranker_gateway.kserve.service import Front, Service
from reranker_gateway.settings import Settings

_PINGS_MS: Final = 10_000
#: Not less: it ends a connection at once, and with it a call that is on its way. The age, which
#: asks first, ends the silent ones, too, within 20 s.
_IDLE_MS: Final = 300_000
#: A connection of which nothing has been heard for so long is asked, and has the same time again.
_SILENT_MS: Final = 60_000
_log = logging.getLogger(__name__)


class GrpcListenError(Exception):
    """The port cannot be opened; the message names the setting."""


def create_server(gateway: Gateway, names: ModelNames, connections: int | None = None) -> Any:
    """A `grpc.aio.Server` for `gateway`, not started; `connections` if not as in the settings."""
    return server_of(Service(gateway, names), gateway.settings, connections)


def server_of(front: Front, settings: Settings, connections: int | None = None) -> Any:
    """The same for any front."""
    most = settings.max_connections if connections is None else connections
    server = grpc.aio.server(options=_options(settings, most))
    # As over HTTP, half of the connections may have a request in progress.
    server.add_generic_rpc_handlers(front.handlers(max(1, most // 2)))
    return server


def listen(server: Any, settings: Settings) -> int:
    """Open the port; returns it. Raises GrpcListenError."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{host}:{settings.grpc_port}"
    try:
        if settings.tls_dir is None:
            return int(server.add_insecure_port(address))
        return int(server.add_secure_port(address, _credentials(settings.tls_dir)))
    except RuntimeError as error:
        raise GrpcListenError(
            f"RERANKER_GRPC_PORT={settings.grpc_port}: cannot listen on {settings.host}: it is in "
            "use or not allowed; take another, or leave grpc out of RERANKER_DIALECTS"
        ) from error


def _credentials(folder: Path) -> Any:
    """The certificate in `folder`; each new connection gets the one that lies there then."""
    used: tuple[bytes, bytes] = _pair(folder)

    def fetch() -> Any:
        nonlocal used
        try:
            found = _pair(folder)
        except OSError as error:
            # The one we have goes on: a fault of the node must not lock everybody out.
            _log.warning("the certificate was not read again: %s", error)
            return None
        if found == used:
            return None
        used = found
        return grpc.ssl_server_certificate_configuration([used])

    return grpc.dynamic_ssl_server_credentials(
        grpc.ssl_server_certificate_configuration([used]), fetch
    )


def _pair(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "tls.key").read_bytes(), (folder / "tls.crt").read_bytes()


def _options(settings: Settings, connections: int) -> list[tuple[str, int]]:
    limit = settings.grpc_max_message_bytes
    return [
        ("grpc.max_receive_message_length", limit),
        ("grpc.max_send_message_length", -1),
        # Twice the calls that there may be: who calls too often shall be told when to come again.
        # Streams beyond these are refused by the library, which doesn't say so, and refuses some
        # of a client that keeps to the number: it counts those ended a moment ago.
        ("grpc.max_concurrent_streams", connections),
        ("grpc.max_allowed_incoming_connections", connections),
        ("grpc.server_handshake_timeout_ms", int(settings.read_idle_seconds * 1000)),
        ("grpc.max_connection_idle_ms", _IDLE_MS),
        # Less or more by a tenth. The client may finish what it has begun, for as long as a batch
        # may take; then the connection ends, and with it the calls whose answers were not taken.
        ("grpc.max_connection_age_ms", int(settings.connection_age_seconds * 1000)),
        ("grpc.max_connection_age_grace_ms", int(settings.infer_timeout_seconds * 1000)),
        ("grpc.keepalive_time_ms", _SILENT_MS),
        ("grpc.keepalive_timeout_ms", _SILENT_MS),
        # The activator's, which else count as too many after the third.
        ("grpc.http2.min_ping_interval_without_data_ms", _PINGS_MS),
        # A small message could unpack to many large ones: no compression.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        ("grpc.so_reuseport", 0),
        # Not more of a message than the window is taken before its turn.
        ("grpc.http2.bdp_probe", 0),
    ]
