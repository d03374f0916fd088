"""The gateway's process: an engine behind its listeners."""

import logging
import os

from reranker_gateway.api.info import metrics_app
from reranker_gateway.api.models import names_of
from reranker_gateway.app import create_app
from reranker_gateway.engine_files import EngineFiles
from reranker_gateway.gateway import Gateway, build_gateway
from reranker_gateway.kserve.server import create_server
from reranker_gateway.listeners import Listeners
from reranker_gateway.logs import log_event
from reranker_gateway.settings import Settings
from reranker_gateway.tracing import load_tracing
from reranker_gateway.triton import TritonEngine

_log = logging.getLogger(__name__)


async def serve(settings: Settings, files: EngineFiles) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises ListenError, TlsError, ApiKeysError."""
    listeners = Listeners(settings)
    engine = TritonEngine(
        url=settings.triton_url,
        metrics_url=settings.triton_metrics_url,
        model=files.model,
        infer_timeout=settings.infer_timeout_seconds,
    )
    gateway = build_gateway(settings, files, engine, tracing=load_tracing(os.environ))
    listeners.add_grpc(lambda: create_server(gateway, names_of(gateway), listeners.connections))
    _announce(gateway)
    await listeners.serve(create_app(gateway), metrics_app(gateway), gateway.drain, lifespan="on")


def _announce(gateway: Gateway) -> None:
    log_event(
        _log,
        "starting",
        model=gateway.served_name,
        engine=gateway.files.manifest.digest,
        maxLength=gateway.files.max_length,
        port=gateway.settings.http_port,
    )
