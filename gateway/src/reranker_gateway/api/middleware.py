"""Around every request: an id, the count of requests in progress, metrics, one line of log."""

import asyncio
import logging
import re
import uuid

from fastapi.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reranker_gateway.api.dialects.table import is_scoring
from reranker_gateway.api.errors import error_response
from reranker_gateway.api.ranking import REQUEST_ID
from reranker_gateway.clock import Clock
from reranker_gateway.drain import Drain, Phase
from reranker_gateway.logs import log_event
from reranker_gateway.telemetry import Telemetry

_ID = b"x-request-id"
_ACCEPTED_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_LONGEST_PATH = 200
_log = logging.getLogger("reranker_gateway.request")


class RequestMiddleware:
    """Outermost, so that it also sees what went wrong in everything within."""

    def __init__(self, app: ASGIApp, *, drain: Drain, telemetry: Telemetry, clock: Clock) -> None:
        self._app = app
        self._drain = drain
        self._telemetry = telemetry
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope[REQUEST_ID] = _request_id(scope)
        code = 500
        answering = False

        async def send_marked(message: Message) -> None:
            nonlocal code, answering
            if message["type"] == "http.response.start":
                answering = True
                code = message["status"]
                message["headers"].append((_ID, request_id))
                if self._drain.phase is not Phase.SERVING:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        ranking = scope["method"] == "POST" and is_scoring(scope["path"])
        started = self._clock()
        if ranking:
            self._drain.enter()
        try:
            await self._app(scope, receive, send_marked)
        except asyncio.CancelledError:
            # The time to drain is over, and with it the task: this is the last thing it does.
            if not answering:
                await _cut_off()(scope, receive, send_marked)
        except Exception:
            # The caller has its 500 already; Starlette raises again for the log.
            _log.exception("internal error", extra={"fields": {"requestId": request_id.decode()}})
        finally:
            if ranking:
                self._drain.leave()
                self._record(scope, request_id, code, self._clock() - started)

    def _record(self, scope: Scope, request_id: bytes, code: int, seconds: float) -> None:
        self._telemetry.requests.labels(str(code)).inc()
        self._telemetry.request_seconds.observe(seconds)
        log_event(
            _log,
            "request",
            requestId=request_id.decode(),
            path=scope["path"][:_LONGEST_PATH],
            code=code,
            seconds=round(seconds, 4),
            **scope.get("reranker.log", {}),
        )


def _cut_off() -> Response:
    return error_response(
        503,
        "the server has shut down; retry on another replica",
        kind="service_unavailable",
        headers={"Retry-After": "1"},
    )


def _request_id(scope: Scope) -> bytes:
    """The caller's id when it is safe to log, else a new one."""
    for name, value in scope["headers"]:
        if name == _ID and _ACCEPTED_ID.fullmatch(value):
            return bytes(value)
    return uuid.uuid4().hex.encode()
