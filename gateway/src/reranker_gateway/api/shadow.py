"""The path by which pods of the former revision have their requests scored by this one.

It is there where such pods are made, and is no part of the API. It asks for a proof in place of an
API key (`shadow.proof`), has a caller's share of its own, and gives way to all other work.
"""

import asyncio
import time
from typing import Final

import httpx
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from reranker_gateway.api.body import unless
from reranker_gateway.api.dialects.shadow import SHADOW, Shadow
from reranker_gateway.api.dialects.table import Route
from reranker_gateway.api.models import ModelNames
from reranker_gateway.api.ranking import RankingHandler
from reranker_gateway.api_keys import ApiKeysError
from reranker_gateway.clock import Clock
from reranker_gateway.drain import Phase
from reranker_gateway.errors import (
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    SameRevisionError,
    UnauthorizedError,
)
from reranker_gateway.gateway import Gateway
from reranker_gateway.request_context import current_request
from reranker_gateway.shadow.preview import PATH, REVISION_HEADER
from reranker_gateway.shadow.proof import (
    CHALLENGE_HEADER,
    NONCE_HEADER,
    PROOF_HEADER,
    Challenges,
    Secrets,
    is_nonce,
    proven_by,
    receiver_proof,
    sender_proof,
)

_BUSY_SECONDS: Final = 1


def shadow_router(
    gateway: Gateway, names: ModelNames, url: str, clock: Clock = time.monotonic
) -> APIRouter:
    """The routes; `url` is where this process would send, as all pods of its service."""
    drain, settings = gateway.drain, gateway.settings
    revision = settings.revision
    inner = RankingHandler(gateway, names, (Route(PATH, Shadow(revision)),), samples=None)
    ends = _Ends(Secrets(settings.api_keys_dir, settings.shadow_identity), clock)
    address = httpx.URL(url).netloc.decode()
    router = APIRouter()

    @router.get(PATH, include_in_schema=False)
    async def prove(request: Request) -> Response:
        """Who this is. Raises InvalidRequestError, SameRevisionError."""
        current_request().dialect = SHADOW
        _check_sender(request, revision, address)
        shown = await ends.shown(request, revision)
        # Counted is what follows; only a refusal is the end of it.
        current_request().dialect = ""
        return JSONResponse(shown)

    @router.post(PATH, include_in_schema=False)
    async def shadow(request: Request) -> Response:
        """Raises InvalidRequestError, SameRevisionError, UnauthorizedError, and as ranking does."""
        current_request().dialect = SHADOW
        _check_sender(request, revision, address)
        await ends.check(request)
        if drain.phase is not Phase.SERVING:
            current_request().turned_away = True
            raise _ending()
        if gateway.scorer.busy:
            raise OverloadedError(
                "other requests wait; compare again in a moment", retry_after=_BUSY_SECONDS
            )
        try:
            return await unless(drain.parting.wait(), _ending(), inner.answer(request))
        finally:
            # Whatever comes of it then is no fault of the revision.
            current_request().turned_away |= drain.parting.is_set()

    return router


class _Ends:
    """Shows who is at this end, and asks who is at the other."""

    def __init__(self, secrets: Secrets, clock: Clock) -> None:
        self._secrets = secrets
        self._challenges = Challenges(clock)

    async def shown(self, request: Request, revision: str) -> dict[str, object]:
        """Proofs of this process, and what the other one has to prove by. As `_nonce`."""
        nonce = _nonce(request)
        known = await self._known()
        return {
            "revision": revision,
            "challenge": self._challenges.new(),
            "proofs": [receiver_proof(secret, nonce, revision) for secret in known],
        }

    async def check(self, request: Request) -> None:
        """Before any of the body is read. Raises UnauthorizedError, and as `_nonce`."""
        nonce = _nonce(request)
        challenge = request.headers.get(CHALLENGE_HEADER, "")
        proof = request.headers.get(PROOF_HEADER, "")
        holds = self._challenges.holds(challenge) and is_nonce(proof)
        expected = [sender_proof(secret, nonce, challenge) for secret in await self._known()]
        if not holds or proven_by([proof], expected) is None:
            raise UnauthorizedError(
                f"{PROOF_HEADER}: does not show a pod of this service; rank with a path of "
                "GET /openapi.json"
            )

    async def _known(self) -> list[bytes]:
        try:
            return await asyncio.to_thread(self._secrets.current)
        except ApiKeysError:
            raise NotReadyError("the API keys can't be read at the moment; retry later") from None


def _nonce(request: Request) -> str:
    """The sender's. Raises InvalidRequestError."""
    nonce = request.headers.get(NONCE_HEADER, "")
    if not is_nonce(nonce):
        raise InvalidRequestError(
            f"{NONCE_HEADER}: {nonce[:80]!r} is not 64 hexadecimal digits", status=400
        )
    return nonce


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
