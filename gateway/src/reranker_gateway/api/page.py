"""`/docs`: one page about the API of this very server. It loads nothing from anywhere."""

import json
from html import escape
from typing import Any, Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from reranker_gateway import VERSION
from reranker_gateway.api.dialects.base import Dialect
from reranker_gateway.api.dialects.table import paths
from reranker_gateway.api.models import ModelNames
from reranker_gateway.settings import Settings

_HEADERS: Final = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
_STYLE: Final = (
    "body{font:16px/1.5 sans-serif;max-width:56em;margin:2em auto;padding:0 1em}"
    "pre{background:#eee;padding:.6em;overflow:auto}td,th{text-align:left;padding:.2em 1em .2em 0}"
)
_ROWS: Final = {
    "/v1/models": "model ids that requests may name",
    "/v1/health/ready": "whether requests are taken",
    "/v1/metadata": "what exactly is served",
    "/v1/metrics": "metrics for Prometheus",
    "/openapi.json": "all of this for programs",
}


def page_router(settings: Settings, names: ModelNames) -> APIRouter:
    """The route of the page."""
    router = APIRouter()
    page = _page(settings, names)

    @router.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(page, headers=_HEADERS)

    return router


def _page(settings: Settings, names: ModelNames) -> str:
    scheme = "http" if settings.tls_dir is None else "https"
    key = "" if settings.api_keys_dir is None else " -H 'Authorization: Bearer KEY'"
    examples = "".join(
        f"<h3>{escape(route.dialect.title)}: POST {escape(path)}</h3>"
        f"<pre>curl {scheme}://localhost:8000{path}{escape(key)} "
        f"{escape(_options(route.dialect, names.served))}</pre>"
        for path, routes in paths(settings.dialects).items()
        for route in routes
        if "{" not in path
    )
    rows = "".join(
        f'<tr><td><a href="{path}">{path}</a></td><td>{text}</td></tr>'
        for path, text in _ROWS.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Reranker gateway</title>'
        f"<style>{_STYLE}</style><h1>Reranker gateway {escape(VERSION)}</h1>"
        f"<p>Serves <b>{escape(names.served)}</b>.</p><table>{rows}</table>"
        f"<h2>Ranking</h2>{examples}</html>"
    )


def _options(dialect: Dialect[Any], model: str) -> str:
    body = json.dumps({"model": model} | _EXAMPLES[type(dialect).__name__])
    return f"-H 'Content-Type: application/json' -d '{body}'"


_QUERY: Final = "capital of France"
_TEXTS: Final = ["Paris", "Rome"]
_DOCUMENTS: Final[dict[str, object]] = {"query": _QUERY, "documents": _TEXTS}
_NIM: Final[dict[str, object]] = {
    "query": {"text": _QUERY},
    "passages": [{"text": text} for text in _TEXTS],
}
_EXAMPLES: Final[dict[str, dict[str, object]]] = {
    "Nim": _NIM,
    "HostedNim": _NIM,
    "Cohere": _DOCUMENTS,
    "CohereV2": _DOCUMENTS,
    "Jina": _DOCUMENTS | {"return_embeddings": False},
    "Tei": {"query": _QUERY, "texts": _TEXTS},
    "Infinity": _DOCUMENTS | {"raw_scores": False},
    "VllmRerank": _DOCUMENTS | {"truncate_prompt_tokens": -1},
    "VllmScore": {"text_1": _QUERY, "text_2": _TEXTS},
}
