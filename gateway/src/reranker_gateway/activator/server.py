"""The activator's process: the gateway's listeners and drain around other applications."""

import logging
import time

from reranker_contracts import metrics
from reranker_gateway.activator.answers import Room
from reranker_gateway.activator.app import Activator, create_app, metrics_app
from reranker_gateway.activator.backend import Backend
from reranker_gateway.activator.cold_start import ColdStart
from reranker_gateway.activator.grpc_front import HoldingFront
from reranker_gateway.activator.hold import Hold
from reranker_gateway.activator.settings import ActivatorSettings
from reranker_gateway.activator.telemetry import ActivatorTelemetry
from reranker_gateway.admission import Admission
from reranker_gateway.api.models import ModelNames
from reranker_gateway.api_keys import ApiKeys
from reranker_gateway.callers import Callers
from reranker_gateway.clock import Clock
from reranker_gateway.drain import Drain
from reranker_gateway.kserve.server import server_of
from reranker_gateway.listeners import Listeners
from reranker_gateway.logs import log_event
from reranker_gateway.throughput import Throughput

_SMALL_BYTES = 4 << 20
#: Of all answers that clients have not taken. Beside it each of them has up to some 300 KiB in the
#: buffers of its two connections.
_ANSWER_BYTES = 32 << 20
_log = logging.getLogger(__name__)


def build_activator(settings: ActivatorSettings, clock: Clock = time.monotonic) -> Activator:
    """Wire the parts. Raises ApiKeysError."""
    keys = ApiKeys(settings.api_keys_dir, clock) if settings.api_keys_dir else None
    backend = Backend(settings.backend_url, settings.tls_dir, settings.infer_timeout_seconds)
    hold = Hold(
        ask=backend.ready,
        cold_start=ColdStart(settings.cold_start_seconds, clock),
        seconds=settings.hold_seconds,
        clock=clock,
    )
    admission = Admission(
        max_bytes=settings.max_held_bytes,
        small_bytes=_SMALL_BYTES,
        max_requests=settings.max_held,
        max_queue_tokens=1,
        throughput=Throughput(clock),
        clock=clock,
    )
    activator = Activator(
        settings=settings,
        names=ModelNames(served_name(settings), settings.aliases, served_name(settings)),
        backend=backend,
        hold=hold,
        admission=admission,
        room=Room(_ANSWER_BYTES),
        drain=Drain(
            delay_seconds=settings.drain_delay_seconds,
            timeout_seconds=settings.drain_timeout_seconds,
        ),
        callers=Callers(keys, settings.caller_header),
        telemetry=ActivatorTelemetry(),
    )
    _watch(activator)
    return activator


def served_name(settings: ActivatorSettings) -> str:
    """The model id that callers use."""
    return settings.served_name or next(iter(settings.aliases), "reranker")


async def activate(settings: ActivatorSettings) -> None:
    """Run until SIGTERM or SIGINT, then drain. Raises ListenError, TlsError, ApiKeysError."""
    listeners = Listeners(settings)
    activator = build_activator(settings)
    if settings.backend_grpc is not None:
        front = HoldingFront(activator, settings.backend_grpc)
        listeners.add_grpc(lambda: server_of(front, settings, listeners.connections))
    log_event(_log, "starting", backend=settings.backend_url, port=settings.http_port)
    try:
        await listeners.serve(
            create_app(activator), metrics_app(activator), activator.drain, lifespan="off"
        )
    finally:
        activator.hold.close()
        await activator.backend.close()


def _watch(activator: Activator) -> None:
    telemetry, hold = activator.telemetry, activator.hold
    telemetry.watch(metrics.HELD, "Requests that wait for the first pod", lambda: float(hold.held))
    telemetry.watch(
        metrics.HELD_BYTES,
        "Bytes of the bodies of requests in progress",
        lambda: float(activator.admission.held_bytes),
    )
    telemetry.watch(
        "reranker_activator_answer_bytes",
        "Bytes of pods' answers that clients have not taken",
        lambda: float(activator.room.held),
    )
    telemetry.watch(
        "reranker_activator_in_progress",
        "Ranking requests in progress: those that wait and those sent to a pod",
        lambda: float(activator.drain.active),
    )
    telemetry.watch(
        "reranker_cold_start_seconds",
        "From the first request to the first ready pod, last time; 0 before",
        lambda: hold.cold_start.last or 0.0,
    )
