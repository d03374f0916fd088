"""What is served and how it is: models, health, metadata, metrics."""

from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from reranker_gateway import VERSION
from reranker_gateway.api.errors import error_response
from reranker_gateway.drain import Phase
from reranker_gateway.gateway import Gateway
from reranker_gateway.telemetry import CONTENT_TYPE

METRICS_PATHS = ("/v1/metrics", "/metrics")


def info_router(gateway: Gateway) -> APIRouter:
    """All GET routes of the API port."""
    router = APIRouter()
    models = _models(gateway)
    metadata = _metadata(gateway)

    @router.get("/v1/models", summary="Model ids that requests may name")
    async def list_models() -> Response:
        return JSONResponse(models)

    @router.get("/v1/metadata", summary="What exactly is served")
    async def read_metadata() -> Response:
        return JSONResponse(metadata)

    @router.get("/v1/health/live", summary="200 while the process answers")
    async def live() -> Response:
        return JSONResponse(_health("Service is live.", "live"))

    @router.get("/v1/health/ready", summary="200 when requests are taken, else 503")
    async def ready() -> Response:
        if gateway.drain.phase is not Phase.SERVING:
            return _not_ready("Service is shutting down.")
        if not gateway.readiness.ready:
            return _not_ready("Service is not ready: the engine is loading or away.")
        return JSONResponse(_health("Service is ready.", "ready"))

    _add_metrics(router, gateway, METRICS_PATHS[:1])
    return router


def metrics_app(gateway: Gateway) -> FastAPI:
    """The metrics port."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    _add_metrics(app.router, gateway, METRICS_PATHS)
    return app


def _add_metrics(router: APIRouter, gateway: Gateway, paths: tuple[str, ...]) -> None:
    async def metrics() -> Response:
        """Our metrics and Triton's, one after the other: no name is in both."""
        text = gateway.telemetry.exposition() + await gateway.engine.metrics()
        return PlainTextResponse(text, media_type=CONTENT_TYPE)

    for path in paths:
        router.add_api_route(path, metrics, methods=["GET"], summary="Metrics for Prometheus")


def _models(gateway: Gateway) -> dict[str, Any]:
    """The real id first with itself as root: clients without a model take the first such entry."""
    created = int(gateway.files.manifest.created_at.timestamp())
    root = gateway.served_name
    ids = dict.fromkeys((root, *gateway.settings.aliases))
    return {
        "object": "list",
        "data": [
            {
                "id": name,
                "object": "model",
                "created": created,
                "owned_by": "reranker-operator",
                "root": root,
                "parent": None,
            }
            for name in ids
        ],
    }


def _metadata(gateway: Gateway) -> dict[str, Any]:
    """NIM's keys that can be answered honestly; the model's licence is not known here."""
    files = gateway.files
    manifest = files.manifest
    return {
        "version": VERSION,
        "assetInfo": [f"engine:sha256:{manifest.digest}"],
        "modelInfo": [{"shortName": gateway.served_name, "modelUrl": files.model.name}],
        "repository_override": "",
        "selectedModelProfileId": manifest.digest,
        "engine": {
            "digest": manifest.digest,
            "runtime": files.identity.runtime,
            "precision": files.identity.precision,
            "accelerator": files.identity.accelerator,
            "maxLength": files.max_length,
            "parity": manifest.parity.model_dump(by_alias=True) if manifest.parity else None,
        },
    }


def _health(message: str, status: str) -> dict[str, str]:
    return {"object": "health.response", "message": message, "status": status}


def _not_ready(message: str) -> Response:
    return error_response(503, message, kind="service_unavailable", headers={"Retry-After": "1"})
