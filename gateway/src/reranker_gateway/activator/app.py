"""HTTP of the activator: what wakes the service, what is answered without it, and what waits.

Ranking requests are held and handed on. Health is answered here: a client that asks whether the
service is ready before it sends anything would otherwise never wake it, so ready means, as ever,
that requests are taken. All else is handed on while a pod is there, and wakes nobody.
"""

import time
from collections.abc import Collection, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from reranker_gateway.activator.answers import NOT_HANDED_ON, Answer, Room, without
from reranker_gateway.activator.backend import Backend
from reranker_gateway.activator.hold import Hold, NotTakenError
from reranker_gateway.activator.settings import ActivatorSettings
from reranker_gateway.activator.telemetry import ActivatorTelemetry
from reranker_gateway.admission import Admission, Entry
from reranker_gateway.api.body import read_body, unless_gone
from reranker_gateway.api.dialects.table import is_scoring
from reranker_gateway.api.errors import DIALECT, error_response, gateway_error_response
from reranker_gateway.api.info import METRICS_PATHS, health_answer
from reranker_gateway.api.middleware import RequestMiddleware
from reranker_gateway.api.models import ModelNames, models_document
from reranker_gateway.api.ranking import REQUEST_ID
from reranker_gateway.callers import Callers
from reranker_gateway.clock import Clock
from reranker_gateway.drain import Drain, Phase
from reranker_gateway.errors import InvalidRequestError, NotReadyError, OverloadedError
from reranker_gateway.request_context import TIMEOUT_HEADER, current_request, timeout_seconds
from reranker_gateway.telemetry import CONTENT_TYPE

_LIVE: Final = frozenset({"/v1/health/live", "/v2/health/live"})
_READY: Final = frozenset({"/v1/health/ready", "/v2/health/ready"})
#: Answers of a pod after which the same request may be sent again.
_AGAIN: Final = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS})


@dataclass(frozen=True)
class Activator:
    """What both fronts need."""

    settings: ActivatorSettings
    names: ModelNames
    backend: Backend
    hold: Hold
    admission: Admission
    #: For answers.
    room: Room
    drain: Drain
    callers: Callers
    telemetry: ActivatorTelemetry

    @contextmanager
    def admitting(self) -> Iterator[Entry]:
        """From before the body to the answer; refusals tell when a pod should be there."""
        try:
            with self.admission.enter() as entry:
                yield entry
        except OverloadedError as error:
            if not self.hold.ready:
                error.retry_after = max(error.retry_after or 1, self.hold.cold_start.retry_after())
            raise


def create_app(activator: Activator, clock: Clock = time.monotonic) -> ASGIApp:
    """The application of the API port."""
    settings = activator.settings
    return RequestMiddleware(
        _Front(activator, clock),
        drain=activator.drain,
        telemetry=activator.telemetry,
        callers=activator.callers,
        dialects=settings.dialects,
        clock=clock,
        timeout=settings.request_timeout_seconds,
        tracing=None,
    )


def metrics_app(activator: Activator) -> ASGIApp:
    """The metrics port, for the kubelet and for scrapes."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            answer = _own_answer(activator, scope, METRICS_PATHS)
            missing = error_response(404, "metrics are at /metrics", kind="not_found")
            await (answer or missing)(scope, receive, send)

    return app


def _own_answer(
    activator: Activator, scope: Scope, metrics_paths: Collection[str]
) -> Response | None:
    """Health and metrics of this very process."""
    path = scope["path"] if scope["method"] in {"GET", "HEAD"} else ""
    if path in _LIVE:
        return health_answer("Service is live.", "live")
    leaving = activator.drain.phase is not Phase.SERVING
    if leaving and (path in _READY or path == "/health"):
        return gateway_error_response(NotReadyError("Service is shutting down."), scope)
    if path in _READY:
        return health_answer("Service is ready.", "ready")
    if path == "/health":
        return PlainTextResponse("")
    if path in metrics_paths:
        return PlainTextResponse(activator.telemetry.exposition(), media_type=CONTENT_TYPE)
    return None


class _Front:
    """The API port, within the middleware."""

    def __init__(self, activator: Activator, clock: Clock) -> None:
        self._activator = activator
        self._clock = clock
        self._models = models_document(activator.names, created=int(time.time()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return
        own = _own_answer(self._activator, scope, METRICS_PATHS[:1])
        if own is not None:
            await own(scope, receive, send)
            return
        # Its place, too, until the client has the answer: so many may lie here.
        async with AsyncExitStack() as place, AsyncExitStack() as kept:
            answer = await self._handed_on(Request(scope, receive), scope, place, kept)
            await answer(scope, receive, send)

    async def _handed_on(
        self, request: Request, scope: Scope, place: AsyncExitStack, kept: AsyncExitStack
    ) -> ASGIApp:
        """Raises GatewayError."""
        if not self._activator.backend.takes(_target(scope)):
            raise InvalidRequestError("the target of the request is not a path", status=400)
        ranks = request.method == "POST" and is_scoring(scope["path"]) and DIALECT in scope
        if not ranks:
            return await self._told(request, scope, place, kept)
        activator = self._activator
        current_request().dialect = scope[DIALECT].name
        if activator.drain.phase is Phase.CLOSED:
            raise NotReadyError("the server is shutting down; retry on another replica")
        activator.hold.check(self._patience(scope))
        entry = place.enter_context(activator.admitting())
        body = await read_body(request, activator.settings, entry)
        work = activator.hold.deliver(
            lambda: self._attempt(request, scope, body, kept), self._patience(scope)
        )
        return await unless_gone(request, work)

    async def _told(
        self, request: Request, scope: Scope, place: AsyncExitStack, kept: AsyncExitStack
    ) -> ASGIApp:
        """What tells of the service wakes nobody. Raises NotReadyError, OverloadedError."""
        if request.method in {"GET", "HEAD"}:
            if await self._activator.hold.look():
                place.enter_context(self._activator.admitting()).arrived()
                try:
                    return await self._attempt(request, scope, b"", kept)
                except NotTakenError as refusal:
                    if isinstance(refusal.answer, Answer):
                        return refusal.answer
            if scope["path"] == "/v1/models":
                return JSONResponse(self._models)
            raise NotReadyError(
                "no pod serves at the moment, and this request starts none; a ranking request does"
            )
        asked = f"{request.method[:20]} {scope['path'][:200]}"
        message = f"{asked} is not served here; see GET /openapi.json while a pod serves"
        return error_response(404, message, kind="not_found")

    def _patience(self, scope: Scope) -> float | None:
        """Seconds that are left of what the caller waits; None when it does not say."""
        asked, own = timeout_seconds(scope["headers"]), self._activator.settings
        limits = [limit for limit in (asked, own.request_timeout_seconds) if limit is not None]
        if not limits:
            return None
        return max(0.0, min(limits) - (self._clock() - current_request().began))

    async def _attempt(
        self, request: Request, scope: Scope, body: bytes, kept: AsyncExitStack
    ) -> Answer:
        """The same request to a pod; `kept` has its answer. Raises NotTakenError."""
        # A former attempt's.
        await kept.aclose()
        headers = without(scope["headers"], NOT_HANDED_ON)
        headers.append((b"x-request-id", scope[REQUEST_ID]))
        headers.append((b"connection", b"close"))
        if body or request.method == "POST":
            headers.append((b"content-length", str(len(body)).encode()))
        patience = self._patience(scope)
        if patience is not None:
            milliseconds = str(max(1, int(patience * 1000))).encode()
            headers.append((TIMEOUT_HEADER, milliseconds))
        activator = self._activator
        found = await activator.backend.send(request.method, _target(scope), headers, body)
        answer = Answer(found, activator.room, activator.settings.read_timeout_seconds)
        kept.push_async_callback(answer.close)
        await answer.keep()
        if answer.status in _AGAIN:
            full = answer.status == HTTPStatus.TOO_MANY_REQUESTS
            raise NotTakenError(answer, full=full)
        return answer


def _target(scope: Scope) -> bytes:
    return bytes(scope["raw_path"] + (b"?" + scope["query_string"]) * bool(scope["query_string"]))
