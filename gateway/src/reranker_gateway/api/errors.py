"""Error bodies: each dialect has its own shape, and what belongs to none has NIM's."""

from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import Scope

from reranker_gateway.api.dialects.base import Dialect, Fault
from reranker_gateway.api.dialects.nim import Nim
from reranker_gateway.errors import GatewayError, InvalidRequestError

#: Where in a request's scope the dialect lies that it was asked in; the path's first one until it
#: is known, nothing where no dialect has the path.
DIALECT: Final = "reranker.dialect"
_NIM: Final = Nim()


def error_response(
    code: int,
    message: str,
    *,
    kind: str,
    detail: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
    dialect: Dialect[Any] = _NIM,
) -> Response:
    """An error as the dialect's clients understand it."""
    fault = Fault(code, message, kind, detail or {})
    return JSONResponse(
        dialect.fault(fault), status_code=dialect.status(fault), headers=dict(headers or {})
    )


def install_error_handlers(app: FastAPI, served: Collection[str]) -> None:
    """Translate every exception of a handler. To one of `served` callers who are lost may go."""

    async def http_error(request: Request, error: Exception) -> Response:
        """Unknown path or method: say what is served."""
        assert isinstance(error, HTTPException)  # noqa: S101 (by registration)
        asked = f"{request.method[:20]} {request.scope['path'][:200]}"
        meant = _meant(request.scope["path"], served)
        message = f"{asked} is not served here; rank with POST {meant}, see GET /openapi.json"
        kind = "not_found" if error.status_code == HTTPStatus.NOT_FOUND else "invalid_request_error"
        return error_response(error.status_code, message, kind=kind, headers=error.headers)

    app.add_exception_handler(GatewayError, _gateway_error)
    app.add_exception_handler(RequestValidationError, _invalid_parameter)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, _unexpected)


def _meant(asked: str, served: Collection[str]) -> str:
    """The longest path of `served` that `asked` ends with, else the first one."""
    known = [path for path in served if asked.rstrip("/").endswith(path)]
    return max(known, key=len, default=next(iter(served), "/v1/ranking"))


async def _gateway_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)  # noqa: S101 (by registration)
    return gateway_error_response(error, request.scope)


async def _invalid_parameter(request: Request, error: Exception) -> Response:
    """Of a query string; bodies are checked by their dialects."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 (by registration)
    first = error.errors()[0]
    name = str(first["loc"][-1])[:100]
    return gateway_error_response(InvalidRequestError(f"{name}: {first['msg']}"), request.scope)


def gateway_error_response(error: GatewayError, scope: Scope) -> Response:
    """What the caller is told of `error`, in the dialect of the request where that is known."""
    headers = dict(error.headers)
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.closes:
        headers["Connection"] = "close"
    return error_response(
        error.status,
        error.message,
        kind=error.type,
        detail=error.detail,
        headers=headers,
        dialect=scope.get(DIALECT, _NIM),
    )


async def _unexpected(request: Request, _error: Exception) -> Response:
    """A bug. The exception itself goes to the log, with the request's id (see middleware)."""
    return error_response(
        500,
        "internal error; the server's log has the cause under x-request-id",
        kind="internal_error",
        dialect=request.scope.get(DIALECT, _NIM),
    )
