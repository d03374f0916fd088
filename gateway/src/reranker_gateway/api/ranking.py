"""The way of a question in any dialect: read, ask the internal `score`, answer."""

import json
import time
from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from reranker_gateway.admission import Entry
from reranker_gateway.api import openapi
from reranker_gateway.api.body import check_media_type, read_body, unless_gone
from reranker_gateway.api.dialects.base import Answers, Body, Question, Serving
from reranker_gateway.api.dialects.table import Route, paths
from reranker_gateway.api.errors import DIALECT
from reranker_gateway.api.inputs import tokenise
from reranker_gateway.api.models import ModelNames
from reranker_gateway.api.reading import (
    check_count,
    check_structure,
    choose_route,
    guess_route,
    parse,
)
from reranker_gateway.errors import BodyTooLargeError
from reranker_gateway.gateway import Gateway
from reranker_gateway.request_context import current_request
from reranker_gateway.shadow.samples import Samples, Sampling
from reranker_gateway.tokenise import TokenisedRequest

#: Where the middleware puts the id.
REQUEST_ID: Final = "reranker.request_id"
_NVIDIA = "nvidia"


def ranking_router(gateway: Gateway, names: ModelNames) -> APIRouter:
    """The routes of all dialects that are switched on."""
    router = APIRouter()
    for path, routes in paths(gateway.settings.dialects).items():
        router.add_api_route(
            path,
            RankingHandler(gateway, names, routes, gateway.samples).answer,
            methods=["POST"],
            **openapi.described(path, routes),
        )
    return router


class RankingHandler:
    """Answers the requests of one path, of which some become `samples`."""

    def __init__(
        self, gateway: Gateway, names: ModelNames, routes: Sequence[Route], samples: Samples | None
    ) -> None:
        self._gateway = gateway
        self._samples = samples
        self._names = names
        self._routes = routes
        model, settings = gateway.files.model, gateway.settings
        self._serving = Serving(
            model=names.served,
            activation=model.activation,
            max_length=gateway.files.max_length,
            truncate=settings.truncate,
        )

    async def answer(self, request: Request) -> Response:
        """Scores, in the dialect of the request."""
        gateway, scope = self._gateway, request.scope
        scope[DIALECT] = self._routes[0].dialect
        current_request().dialect = scope[DIALECT].name
        gateway.scorer.check_open()
        check_media_type(request)
        with gateway.admission.enter() as entry, Sampling(self._samples) as kept:
            question, characters, inputs = await self._read(request, entry, kept)
            if not question.keeps_texts:
                entry.tokenised()
            scores = await unless_gone(request, gateway.scorer.score(inputs))
            answers = Answers(
                question=question,
                characters=characters,
                logits=scores.logits,
                tokens=scores.tokens,
                truncated=inputs.truncated,
                request_id=scope.get(REQUEST_ID, b"").decode(),
                created=int(time.time()),
                seconds=_seconds(),
            )
            dialect = scope[DIALECT]
            body = dialect.answer(answers, self._serving)
            headers = dialect.headers(answers)
            kept.answered(scores.logits)
        return Response(
            json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode(),
            media_type="application/json",
            headers={"X-Truncated-Passages": str(inputs.truncated), **headers},
        )

    async def _read(
        self, request: Request, entry: Entry, kept: Sampling
    ) -> tuple[Question, int, TokenisedRequest]:
        """What is asked, the characters of its texts, and its tokens.

        A function of its own, so that texts which no answer holds end with it, as the body does.
        """
        settings = self._gateway.settings
        asked, dialect = self._parse(request, await read_body(request, settings, entry))
        question = dialect.question(asked, self._serving)
        self._check_model(request, question)
        check_count(question.fields.passages, len(question.passages), settings.max_passages)
        inputs = await unless_gone(request, tokenise(self._gateway.scorer, question))
        kept.take(question)
        characters = sum(map(len, question.queries)) + sum(map(len, question.passages))
        return question.without_texts(), characters, inputs

    def _parse(self, request: Request, body: bytes) -> tuple[Body, Any]:
        try:
            check_structure(body, self._gateway.settings.max_passages)
        except BodyTooLargeError:
            request.scope[DIALECT] = guess_route(body, self._routes).dialect
            raise
        route, found = choose_route(body, self._routes)
        request.scope[DIALECT] = route.dialect
        current_request().dialect = route.dialect.name
        return parse(route, body, found), route.dialect

    def _check_model(self, request: Request, question: Question) -> None:
        self._names.check(question.model)
        in_path = "/".join(request.path_params.values())
        if in_path and in_path != _NVIDIA:
            self._names.check(in_path)


def _seconds() -> dict[str, float]:
    """Of this request's stages."""
    return {stage.name: stage.ended - stage.began for stage in current_request().stages}
