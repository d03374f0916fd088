"""`POST /v1/ranking`: NIM's request and answer around the internal `score`."""

import json

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response

from reranker_gateway.api.body import read_body, unless_gone
from reranker_gateway.api.schema import ErrorBody, RankingRequest, RankingResponse, parse_ranking
from reranker_gateway.errors import ModelNotFoundError
from reranker_gateway.gateway import Gateway
from reranker_gateway.scoring import Scores

PATH = "/v1/ranking"


def ranking_router(gateway: Gateway) -> APIRouter:
    """The route."""
    router = APIRouter()
    settings = gateway.settings
    names = frozenset((gateway.served_name, *settings.aliases))

    @router.post(
        PATH,
        summary="Rank passages for a query",
        response_model=RankingResponse,
        responses={code: {"model": ErrorBody} for code in (400, 404, 413, 422, 429, 500, 503)},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/RankingRequest"}}
                },
            }
        },
    )
    async def rank(request: Request) -> Response:
        gateway.scorer.check_open()
        with gateway.admission.hold_bytes() as held:
            asked = parse_ranking(
                await read_body(request, settings.max_body_bytes, held), settings.max_passages
            )
            _check_model(asked, gateway, names)
            work = gateway.scorer.score(
                asked.query.text,
                [passage.text for passage in asked.passages],
                asked.truncate or settings.truncate,
            )
            scores = await unless_gone(request, work)
        request.scope["reranker.log"] = {"passages": len(scores.logits), "tokens": scores.tokens}
        return Response(_body(scores), media_type="application/json")

    return router


def _check_model(asked: RankingRequest, gateway: Gateway, names: frozenset[str]) -> None:
    if asked.model not in names:
        raise ModelNotFoundError(
            f"model: {asked.model!r} is not served here; use {gateway.served_name!r} "
            "or another id of GET /v1/models"
        )


def _body(scores: Scores) -> bytes:
    """Highest logit first, equal ones in the caller's order."""
    order = np.argsort(-scores.logits, kind="stable")
    rankings = [
        {"index": index, "logit": logit}
        for index, logit in zip(order.tolist(), scores.logits[order].tolist(), strict=True)
    ]
    usage = {"prompt_tokens": scores.tokens, "total_tokens": scores.tokens}
    return json.dumps({"rankings": rankings, "usage": usage}, separators=(",", ":")).encode()
