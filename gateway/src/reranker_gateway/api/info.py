"""What is served and how it is: models, health, metadata, licence, versions, metrics."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, FastAPI, Query
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute

from reranker_gateway import VERSION
from reranker_gateway.api.dialects.nim import NimError
from reranker_gateway.api.dialects.tei import Tei, TeiError
from reranker_gateway.api.errors import error_response
from reranker_gateway.api.models import ModelNames, models_document
from reranker_gateway.drain import Phase
from reranker_gateway.gateway import Gateway
from reranker_gateway.telemetry import CONTENT_TYPE

METRICS_PATHS = ("/v1/metrics", "/metrics")
#: Of the gateway itself; the model's is not known here.
_LICENSE: Final = Path(__file__).parents[1] / "LICENSE"
_MOST_NAMES: Final = 100
#: A pod that ends but still serves may be told apart: Kubernetes leads there while it has no other.
LeavingIs = Literal["ready", "unready"]
_PLAIN_HEALTH: Final = frozenset({"tei", "infinity", "vllm"})


def info_router(gateway: Gateway, names: ModelNames) -> APIRouter:
    """All GET routes of the API port that tell of the service."""
    router = APIRouter()
    license_info = _license()
    documents: dict[str, tuple[str, Any]] = {
        "/v1/models": (
            "Model ids that requests may name",
            models_document(names, _created(gateway)),
        ),
        "/v1/metadata": ("What exactly is served", _metadata(gateway, names, license_info)),
        "/v1/license": ("The server's licence", license_info),
        "/v1/version": ("The server's version", {"release": VERSION, "api": VERSION}),
        "/v1/manifest": (
            "The engine's manifest: identity, files and their hashes",
            gateway.files.manifest.model_dump(mode="json", by_alias=True),
        ),
    }
    if "tei" in gateway.settings.dialects:
        documents["/info"] = ("As Text Embeddings Inference tells of itself", _tei_info(gateway))
    for path, (summary, document) in documents.items():
        router.add_api_route(
            path, _constant(document), methods=["GET"], summary=summary, name=path.strip("/")
        )
    _add_health(router, gateway)
    _add_metrics(router, gateway, METRICS_PATHS[:1])
    _answer_head(router)
    return router


def metrics_app(gateway: Gateway) -> FastAPI:
    """The metrics port."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    # Plain HTTP also where the API has TLS: the kubelet asks here.
    _add_health(app.router, gateway)
    _add_metrics(app.router, gateway, METRICS_PATHS)
    _answer_head(app.router)
    return app


def health_answer(message: str, status: str) -> Response:
    """That of a process that is well, as NIM has it."""
    return JSONResponse({"object": "health.response", "message": message, "status": status})


def _answer_head(router: APIRouter) -> None:
    """Whoever answers GET answers HEAD; the server leaves the body out."""
    for route in tuple(router.routes):
        if isinstance(route, APIRoute):
            router.add_api_route(
                route.path, route.endpoint, methods=["HEAD"], include_in_schema=False
            )


def _constant(document: Any) -> Callable[[], Any]:
    async def read() -> Response:
        return JSONResponse(document)

    return read


def _add_health(router: APIRouter, gateway: Gateway) -> None:
    @router.get("/v1/health/live", summary="200 while the process answers")
    async def live() -> Response:
        return health_answer("Service is live.", "live")

    @router.get(
        "/v1/health/ready",
        summary="200 when requests are taken, else 503",
        responses={
            422: {"model": NimError, "description": "`leaving` is neither"},
            503: {"model": NimError, "description": "starting, draining, or the engine is away"},
        },
    )
    async def ready(leaving: LeavingIs = "unready") -> Response:
        reason = _why_not_ready(gateway, leaving)
        if reason is not None:
            return _not_ready(reason)
        return health_answer("Service is ready.", "ready")

    if _PLAIN_HEALTH.isdisjoint(gateway.settings.dialects):
        return

    @router.get(
        "/health",
        summary="200 when requests are taken, else 503",
        response_class=PlainTextResponse,
        responses={
            503: {"model": TeiError, "description": "starting, draining, or the engine is away"}
        },
    )
    async def health() -> Response:
        reason = _why_not_ready(gateway)
        if reason is not None:
            return error_response(
                503, reason, kind="service_unavailable", headers=_RETRY, dialect=Tei()
            )
        return PlainTextResponse("")


def _why_not_ready(gateway: Gateway, leaving: LeavingIs = "unready") -> str | None:
    phase = gateway.drain.phase
    if phase is Phase.CLOSED or (phase is Phase.LEAVING and leaving == "unready"):
        return "Service is shutting down."
    if not gateway.readiness.ready:
        return "Service is not ready: the engine is loading or away."
    return None


def _add_metrics(router: APIRouter, gateway: Gateway, paths: tuple[str, ...]) -> None:
    # Not in the schema: a list of one and a bare value look the same in a query.
    chosen = Query(alias="name[]", include_in_schema=False)

    async def metrics(names: Annotated[list[str] | None, chosen] = None) -> Response:
        """Our metrics and Triton's, one after the other: no name is in both.

        `name[]`, as Prometheus' clients have it, asks for some of ours alone.
        """
        text = gateway.telemetry.exposition((names or ())[:_MOST_NAMES])
        if not names:
            text += await gateway.engine.metrics()
        return PlainTextResponse(text, media_type=CONTENT_TYPE)

    for path in paths:
        router.add_api_route(
            path,
            metrics,
            methods=["GET"],
            summary="Metrics for Prometheus",
            response_class=PlainTextResponse,
        )


def _created(gateway: Gateway) -> int:
    return int(gateway.files.manifest.created_at.timestamp())


def _metadata(
    gateway: Gateway, names: ModelNames, license_info: dict[str, object]
) -> dict[str, Any]:
    """NIM's keys; `engine` is ours."""
    files = gateway.files
    manifest = files.manifest
    return {
        "version": VERSION,
        "assetInfo": [f"engine:sha256:{manifest.digest}"],
        "licenseInfo": license_info,
        "modelInfo": [{"shortName": names.served, "modelUrl": files.model.name}],
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


def _license() -> dict[str, object]:
    """In NIM's form."""
    content = _LICENSE.read_bytes()
    return {
        "name": _LICENSE.name,
        "path": str(_LICENSE),
        "sha": hashlib.sha1(content, usedforsecurity=False).hexdigest(),
        "size": len(content),
        "url": "",
        "type": "file",
        "content": content.decode("utf-8"),
    }


def _tei_info(gateway: Gateway) -> dict[str, Any]:
    """Source: TEI's router, 1.9."""
    files, settings = gateway.files, gateway.settings
    return {
        "model_id": gateway.served_name,
        "model_sha": None,
        "model_dtype": files.identity.precision,
        "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
        "max_concurrent_requests": max(1, settings.max_connections // 2),
        "max_input_length": files.max_length,
        "max_batch_tokens": files.token_budget(settings.token_budget),
        "max_batch_requests": files.shapes.max_batch_size,
        "max_client_batch_size": settings.max_passages,
        "auto_truncate": True,
        "tokenization_workers": settings.tokenizer_threads,
        "version": VERSION,
        "sha": None,
        "docker_label": None,
    }


_RETRY: Final = {"Retry-After": "1"}


def _not_ready(message: str) -> Response:
    return error_response(503, message, kind="service_unavailable", headers=_RETRY)
