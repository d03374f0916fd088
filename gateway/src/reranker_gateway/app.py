"""The ASGI application of the API port."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.types import ASGIApp

from reranker_gateway import VERSION
from reranker_gateway.api.errors import install_error_handlers
from reranker_gateway.api.info import info_router
from reranker_gateway.api.middleware import RequestMiddleware
from reranker_gateway.api.ranking import ranking_router
from reranker_gateway.api.schema import RankingRequest
from reranker_gateway.clock import Clock
from reranker_gateway.gateway import Gateway


def create_app(gateway: Gateway, clock: Clock = time.monotonic) -> ASGIApp:
    """The application; its lifespan watches the engine and closes it at the end."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        watch = asyncio.create_task(gateway.readiness.watch())
        try:
            yield
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
            gateway.tokeniser.close()
            await gateway.engine.close()

    app = FastAPI(
        title="Reranker gateway",
        version=VERSION,
        lifespan=lifespan,
        # The pages of /docs load scripts from the Internet.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.include_router(ranking_router(gateway))
    app.include_router(info_router(gateway))
    install_error_handlers(app)
    _describe_requests(app)
    return RequestMiddleware(
        app,
        drain=gateway.drain,
        telemetry=gateway.telemetry,
        callers=gateway.callers,
        clock=clock,
        timeout=gateway.settings.request_timeout_seconds,
    )


def _describe_requests(app: FastAPI) -> None:
    """Add the request's schema to OpenAPI: the handlers read bodies themselves."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            _, definitions = models_json_schema(
                [(RankingRequest, "validation")], ref_template="#/components/schemas/{model}"
            )
            schema["components"]["schemas"].update(definitions["$defs"])
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way
