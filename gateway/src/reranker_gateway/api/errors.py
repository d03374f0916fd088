"""Error bodies, one shape for everything.

The keys are the union of what the known clients read. Two rules keep those clients alive: `detail`
is never null, and there is never a key `status`, which they would show in place of the HTTP code.
"""

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from reranker_gateway.errors import GatewayError


def error_response(
    code: int,
    message: str,
    *,
    kind: str,
    detail: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An error as NIM's clients understand it."""
    body = {
        "object": "error",
        "message": message,
        "detail": detail or {},
        "type": kind,
        "code": code,
    }
    return JSONResponse(body, status_code=code, headers=dict(headers or {}))


def install_error_handlers(app: FastAPI) -> None:
    """Translate every exception of a handler."""
    app.add_exception_handler(GatewayError, _gateway_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


async def _gateway_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)  # noqa: S101 (by registration)
    return gateway_error_response(error)


def gateway_error_response(error: GatewayError) -> Response:
    """What the caller is told of `error`."""
    headers = dict(error.headers)
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.closes:
        headers["Connection"] = "close"
    return error_response(
        error.status, error.message, kind=error.type, detail=error.detail, headers=headers
    )


async def _http_error(request: Request, error: Exception) -> Response:
    """Unknown path or method: say what is served."""
    assert isinstance(error, HTTPException)  # noqa: S101 (by registration)
    asked = f"{request.method[:20]} {request.scope['path'][:200]}"
    message = f"{asked} is not served here; rank with POST /v1/ranking, see GET /openapi.json"
    kind = "not_found" if error.status_code == HTTPStatus.NOT_FOUND else "invalid_request_error"
    return error_response(error.status_code, message, kind=kind, headers=error.headers)


async def _unexpected(_request: Request, _error: Exception) -> Response:
    """A bug. The exception itself goes to the log, with the request's id (see middleware)."""
    return error_response(
        500,
        "internal error; the server's log has the cause under x-request-id",
        kind="internal_error",
    )
