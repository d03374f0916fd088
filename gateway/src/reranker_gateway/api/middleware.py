"""Around every request: an id, who asks and until when, metrics, one line of log."""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Collection
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reranker_gateway.api.dialects.shadow import SHADOW
from reranker_gateway.api.dialects.table import first_dialect, template
from reranker_gateway.api.errors import DIALECT, gateway_error_response
from reranker_gateway.api.ranking import REQUEST_ID
from reranker_gateway.callers import Callers
from reranker_gateway.clock import Clock
from reranker_gateway.drain import Drain, Phase
from reranker_gateway.errors import DeadlineExceededError, GatewayError, NotReadyError
from reranker_gateway.logs import log_event
from reranker_gateway.request_context import (
    RequestContext,
    long_passages,
    request_context,
    timeout_seconds,
)
from reranker_gateway.tracing import Tracing, propagated, trace_id

_ID = b"x-request-id"
_ACCEPTED_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_LONGEST_PATH = 200
_log = logging.getLogger("reranker_gateway.request")


class Counts(Protocol):
    """Where requests are counted."""

    def answered(self, request: RequestContext, code: int) -> None:
        """A ranking request has ended."""


class RequestMiddleware:
    """Outermost, so that it also sees what went wrong in everything within."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        drain: Drain,
        telemetry: Counts,
        callers: Callers,
        dialects: Collection[str],
        clock: Clock,
        timeout: float | None,
        tracing: Tracing | None,
    ) -> None:
        self._app = app
        self._drain = drain
        self._telemetry = telemetry
        self._callers = callers
        self._dialects = dialects
        self._clock = clock
        self._timeout = timeout
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope[REQUEST_ID] = _request_id(scope)
        context = RequestContext(
            request_id=request_id.decode(),
            trace=propagated(scope["headers"]),
            began=self._clock(),
            began_ns=time.time_ns(),
        )
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

        if dialect := first_dialect(scope["path"], self._dialects):
            scope[DIALECT] = dialect
        route = template(scope["path"]) if scope["method"] == "POST" else None
        if route:
            self._drain.enter()
        try:
            with request_context(context):
                context.caller = self._callers.admit(scope["path"], scope["headers"])
                if route:
                    self._drain.note()
                await self._answer(context, scope, receive, send_marked)
        except GatewayError as error:
            if not answering:
                await gateway_error_response(error, scope)(scope, receive, send_marked)
        except asyncio.CancelledError:
            # The time to drain is over, and with it the task: this is the last thing it does.
            if not answering:
                cut_off = NotReadyError("the server has shut down; retry on another replica")
                await gateway_error_response(cut_off, scope)(scope, receive, send_marked)
        except Exception:
            # The caller has its 500 already; Starlette raises again for the log.
            _log.exception("internal error", extra={"fields": {"requestId": context.request_id}})
        finally:
            if route:
                self._drain.leave()
            # What another revision asks to compare is work like any, but nobody waits for it: the
            # end of the process does not, either.
            if route or context.dialect == SHADOW:
                context.ended = self._clock()
                self._record(scope, route or scope["path"], context, code)

    async def _answer(
        self, context: RequestContext, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Raises InvalidRequestError and DeadlineExceededError of its own."""
        context.long_passages = long_passages(scope["headers"])
        asked = timeout_seconds(scope["headers"])
        limits = [limit for limit in (asked, self._timeout) if limit is not None]
        seconds = min(limits, default=None)
        try:
            async with asyncio.timeout(seconds) as patience:
                await self._app(scope, receive, send)
        except TimeoutError:
            if not patience.expired():
                raise
            raise DeadlineExceededError(
                f"no answer within {seconds:g} s; what had not been scored yet was dropped"
            ) from None

    def _record(self, scope: Scope, route: str, context: RequestContext, code: int) -> None:
        seconds, path = context.ended - context.began, scope["path"][:_LONGEST_PATH]
        self._telemetry.answered(context, code)
        fields: dict[str, object] = {
            "requestId": context.request_id,
            "path": path,
            "code": code,
            "seconds": round(seconds, 4),
        }
        if context.caller:
            fields["caller"] = context.caller
        if context.passages:
            fields |= {"passages": context.passages, "tokens": context.tokens}
        if context.dialect:
            fields["dialect"] = context.dialect
        if trace := trace_id(context.trace):
            fields["traceId"] = trace
        log_event(_log, "request", **fields)
        if self._tracing is not None:
            self._tracing.record(context, route=route, path=path, code=code)


def _request_id(scope: Scope) -> bytes:
    """The caller's id when it is safe to log, else a new one."""
    for name, value in scope["headers"]:
        if name == _ID and _ACCEPTED_ID.fullmatch(value):
            return bytes(value)
    return uuid.uuid4().hex.encode()
