"""The OpenAPI document: the handlers read bodies themselves, so what they take is told here."""

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from reranker_gateway.api.dialects.nim import NimError
from reranker_gateway.api.dialects.table import ROUTES, Route
from reranker_gateway.api.models import ModelNames
from reranker_gateway.callers import OPEN

_ERRORS = (400, 401, 404, 408, 413, 415, 422, 424, 429, 500, 503, 504)
#: Either of them will do.
_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
_SCHEMAS = "#/components/schemas/"


def described(path: str, routes: Sequence[Route]) -> dict[str, Any]:
    """Arguments of `add_api_route`: what the path takes and gives."""
    dialects = [route.dialect for route in routes]
    bodies = [{"$ref": _SCHEMAS + dialect.request.__name__} for dialect in dialects]
    parameters = [
        {
            "name": part.strip("{}"),
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1},
        }
        for part in path.split("/")
        if part.startswith("{")
    ]
    # Dialects without an error of their own on a path answer as the NIM does.
    errors = reduce(or_, dict.fromkeys(dialect.error for dialect in dialects))
    return {
        "name": f"rank{path.translate(str.maketrans('/{}', '___'))}",
        "summary": "Rank passages for a query: " + "; ".join(d.title for d in dialects),
        "response_model": reduce(or_, dict.fromkeys(dialect.response for dialect in dialects)),
        "responses": {code: {"model": errors} for code in _ERRORS},
        "openapi_extra": {
            "parameters": parameters,
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": bodies[0] if len(bodies) == 1 else {"anyOf": bodies}
                    }
                },
            },
        },
    }


def describe_requests(app: FastAPI, names: ModelNames, *, keys: bool) -> None:
    """Put the schemas of the requests, and the models that they may name, into the document.

    `keys`: whether callers need an API key.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            kinds: dict[type[BaseModel], None] = dict.fromkeys(
                [*(route.dialect.request for route in ROUTES), NimError]
            )
            _, definitions = models_json_schema(
                [(kind, "validation") for kind in kinds], ref_template=_SCHEMAS + "{model}"
            )
            schema["components"]["schemas"].update(definitions["$defs"])
            for kind in kinds:
                _name_models(definitions["$defs"][kind.__name__], names)
            if keys:
                _ask_for_keys(schema)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _ask_for_keys(schema: dict[str, Any]) -> None:
    schema["components"]["securitySchemes"] = _KEYS
    schema["security"] = [{name: []} for name in _KEYS]
    content = {"application/json": {"schema": {"$ref": f"{_SCHEMAS}{NimError.__name__}"}}}
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            if path in OPEN:
                operation["security"] = []
            else:
                refusal = {"description": "Unauthorized", "content": content}
                operation["responses"].setdefault("401", refusal)


def _name_models(schema: dict[str, Any], names: ModelNames) -> None:
    """Only what is served is found; the rest is 404."""
    if "model" in schema["properties"]:
        schema["properties"]["model"] |= {"examples": [names.served]}
