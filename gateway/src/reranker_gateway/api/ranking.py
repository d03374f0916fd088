"""`POST /v1/ranking`: NIM's request and answer around the internal `score`."""

import json

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response

from reranker_gateway.admission import Entry
from reranker_gateway.api.body import check_media_type, read_body, unless_gone
from reranker_gateway.api.schema import ErrorBody, RankingRequest, RankingResponse, parse_ranking
from reranker_gateway.errors import ModelNotFoundError
from reranker_gateway.gateway import Gateway
from reranker_gateway.request_context import current_request
from reranker_gateway.scoring import Scores
from reranker_gateway.tokenise import TokenisedRequest

PATH = "/v1/ranking"
_ERRORS = (400, 401, 404, 408, 413, 415, 422, 429, 500, 503, 504)


def ranking_router(gateway: Gateway) -> APIRouter:
    """The route."""
    router = APIRouter()
    settings = gateway.settings
    names = frozenset((gateway.served_name, *settings.aliases))

    async def read_inputs(request: Request, entry: Entry) -> TokenisedRequest:
        """A function of its own, so that the texts end with it, as the body does with its line."""
        asked = parse_ranking(await read_body(request, settings, entry), settings.max_passages)
        _check_model(asked, gateway, names)
        texts = [passage.text for passage in asked.passages]
        work = gateway.scorer.tokenise(asked.query.text, texts, asked.truncate or settings.truncate)
        return await unless_gone(request, work)

    @router.post(
        PATH,
        summary="Rank passages for a query",
        response_model=RankingResponse,
        responses={code: {"model": ErrorBody} for code in _ERRORS},
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
        current_request().dialect = "nim"
        gateway.scorer.check_open()
        check_media_type(request)
        with gateway.admission.enter() as entry:
            inputs = await read_inputs(request, entry)
            entry.tokenised()
            scores = await unless_gone(request, gateway.scorer.score(inputs))
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
