"""The path by which pods of the former revision have their requests scored by this one.

It is there where such pods are made, takes what any other path takes, and is no part of the API.
"""

import httpx
from fastapi import APIRouter, Request
from fastapi.responses import Response

from reranker_gateway.api.body import unless
from reranker_gateway.api.dialects.shadow import SHADOW, Shadow
from reranker_gateway.api.dialects.table import Route
from reranker_gateway.api.models import ModelNames
from reranker_gateway.api.ranking import RankingHandler
from reranker_gateway.drain import Phase
from reranker_gateway.errors import InvalidRequestError, NotReadyError, SameRevisionError
from reranker_gateway.gateway import Gateway
from reranker_gateway.request_context import current_request
from reranker_gateway.shadow.preview import PATH, REVISION_HEADER


def shadow_router(gateway: Gateway, names: ModelNames, url: str) -> APIRouter:
    """The route; `url` is where this process would send, as all pods of its service."""
    drain, revision = gateway.drain, gateway.settings.revision
    inner = RankingHandler(gateway, names, (Route(PATH, Shadow(revision)),), samples=None)
    address = httpx.URL(url).netloc.decode()
    router = APIRouter()

    @router.post(PATH, include_in_schema=False)
    async def shadow(request: Request) -> Response:
        """Raises InvalidRequestError, SameRevisionError, and whatever ranking raises."""
        current_request().dialect = SHADOW
        _check_sender(request, revision, address)
        if drain.phase is not Phase.SERVING:
            current_request().turned_away = True
            raise _ending()
        try:
            return await unless(drain.parting.wait(), _ending(), inner.answer(request))
        finally:
            # Whatever comes of it then is no fault of the revision.
            current_request().turned_away |= drain.parting.is_set()

    return router


def _ending() -> NotReadyError:
    return NotReadyError("the server is shutting down; compare with another replica")


def _check_sender(request: Request, revision: str, address: str) -> None:
    """Before any of the body is read."""
    sender = request.headers.get(REVISION_HEADER)
    if not sender:
        raise InvalidRequestError(
            f"{REVISION_HEADER}: is missing; this path is for pods of another revision, rank with "
            "a path of GET /openapi.json",
            status=400,
        )
    if request.headers.get("host") != address:
        raise SameRevisionError("host: scores are compared within one service only")
    if sender == revision:
        raise SameRevisionError(f"{REVISION_HEADER}: {revision!r} is the revision of this pod, too")
