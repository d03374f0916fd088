"""The ASGI application of the API port."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp

from reranker_gateway import VERSION
from reranker_gateway.api.dialects.table import paths
from reranker_gateway.api.errors import install_error_handlers
from reranker_gateway.api.info import info_router
from reranker_gateway.api.middleware import RequestMiddleware
from reranker_gateway.api.models import names_of
from reranker_gateway.api.openapi import describe_requests
from reranker_gateway.api.page import page_router
from reranker_gateway.api.ranking import ranking_router
from reranker_gateway.api.shadow import shadow_router
from reranker_gateway.clock import Clock
from reranker_gateway.gateway import Gateway

_log = logging.getLogger(__name__)


def create_app(gateway: Gateway, clock: Clock = time.monotonic) -> ASGIApp:
    """The application; its lifespan watches the engine and closes it at the end."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(gateway.readiness.watch())]
        if gateway.sender is not None:
            tasks.append(asyncio.create_task(gateway.sender.run()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                try:
                    await task
                except asyncio.CancelledError:
                    pass
                except Exception:
                    # The engine has to be let go all the same.
                    _log.exception("a background task had failed")
            gateway.tokeniser.close()
            if gateway.tracing is not None:
                await asyncio.to_thread(gateway.tracing.close)
            await gateway.engine.close()

    app = FastAPI(
        title="Reranker gateway",
        version=VERSION,
        lifespan=lifespan,
        # FastAPI's pages load scripts from the Internet; ours is in `api.page`.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    settings = gateway.settings
    names = names_of(gateway)
    app.include_router(ranking_router(gateway, names))
    app.include_router(info_router(gateway, names))
    app.include_router(page_router(settings, names))
    if settings.shadow_url is not None:
        app.include_router(shadow_router(gateway, names, settings.shadow_url, clock))
    install_error_handlers(app, served=paths(settings.dialects))
    describe_requests(app, names, keys=settings.api_keys_dir is not None)
    return RequestMiddleware(
        app,
        drain=gateway.drain,
        telemetry=gateway.telemetry,
        callers=gateway.callers,
        dialects=settings.dialects,
        clock=clock,
        timeout=settings.request_timeout_seconds,
        tracing=gateway.tracing,
    )
