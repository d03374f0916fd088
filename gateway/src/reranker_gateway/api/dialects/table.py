"""Who serves which path, and who answers where several could. docs/api-dialects.md shows the same.

Where dialects share a path, the first one that is switched on and claims the request answers it:
by a field or a value that no other of them has, or by the name of a model that only its clients
use. A request that nobody claims is answered by the first one of the path.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from reranker_gateway.api.dialects.base import Dialect
from reranker_gateway.api.dialects.cohere import Cohere, CohereV2
from reranker_gateway.api.dialects.infinity import Infinity
from reranker_gateway.api.dialects.jina import Jina
from reranker_gateway.api.dialects.nim import HostedNim, Nim
from reranker_gateway.api.dialects.tei import Tei
from reranker_gateway.api.dialects.vllm import VllmRerank, VllmScore


@dataclass(frozen=True)
class Sign:
    """A value that only one dialect has, as the documentation writes it and as it is found."""

    words: str
    found: Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True)
class Route:
    """One dialect on one path, and what of a request says that it is meant."""

    path: str
    dialect: Dialect[Any]
    fields: frozenset[str] = frozenset()
    #: Beginnings of `model`.
    models: tuple[str, ...] = ()
    signs: tuple[Sign, ...] = ()

    def claims(self, asked: Mapping[str, Any]) -> bool:
        """Whether the request is for this dialect and no other of the path."""
        model = asked.get("model")
        named = isinstance(model, str) and model.startswith(self.models)
        signed = any(sign.found(asked) for sign in self.signs)
        return named or signed or not self.fields.isdisjoint(asked)


_COHERE: Final = frozenset({"max_tokens_per_doc", "max_chunks_per_doc", "rank_fields"})
_VLLM: Final = frozenset(
    {
        *("truncate_prompt_tokens", "truncation_side", "use_activation", "user", "request_id"),
        *("cache_salt", "mm_processor_kwargs"),
    }
)
_ALL: Final = Sign("top_n: 0", lambda asked: asked.get("top_n") == 0)
_OBJECT: Final = Sign("query: {…}", lambda asked: isinstance(asked.get("query"), Mapping))
_HOSTED: Final = "/v1/retrieval/{model}/reranking"

#: In the order in which they are asked.
ROUTES: Final = (
    Route("/v1/ranking", Nim()),
    Route(_HOSTED, HostedNim()),
    Route("/v1/retrieval/{org}/{model}/reranking", HostedNim()),
    Route("/v1/rerank", Cohere(), fields=_COHERE, models=("rerank-",)),
    Route(
        "/v1/rerank",
        Jina(),
        fields=frozenset({"return_embeddings"}),
        models=("jina-",),
        signs=(_OBJECT,),
    ),
    Route("/v1/rerank", VllmRerank(), fields=_VLLM, signs=(_ALL,)),
    Route("/v2/rerank", CohereV2(), fields=_COHERE, models=("rerank-",)),
    Route("/v2/rerank", VllmRerank(), fields=_VLLM, signs=(_ALL,)),
    Route("/rerank", VllmRerank(), fields=_VLLM, signs=(_ALL,)),
    Route("/rerank", Infinity(), fields=frozenset({"documents"})),
    Route("/rerank", Tei(), fields=frozenset({"texts"})),
    Route("/score", VllmScore()),
    Route("/v1/score", VllmScore()),
)

_PATHS: Final = tuple(dict.fromkeys(route.path for route in ROUTES))
_PATTERN: Final = re.compile(
    "|".join("(" + re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path)) + ")" for path in _PATHS)
)


def template(path: str) -> str | None:
    """That of the route which a POST to `path` takes, if it can be a question in any dialect."""
    match = _PATTERN.fullmatch(path)
    return None if match is None or match.lastindex is None else _PATHS[match.lastindex - 1]


def is_scoring(path: str) -> bool:
    """Whether a POST to `path` can be a question, in any dialect."""
    return template(path) is not None


def first_dialect(path: str, enabled: Collection[str]) -> Dialect[Any] | None:
    """Whose words an error on `path` has while it is unknown who is meant."""
    segments = path.split("/")
    for route in ROUTES:
        if route.dialect.name not in enabled:
            continue
        parts = route.path.split("/")
        if len(parts) == len(segments) and all(
            part == segment or part.startswith("{")
            for part, segment in zip(parts, segments, strict=True)
        ):
            return route.dialect
    return None


def paths(enabled: Collection[str]) -> dict[str, tuple[Route, ...]]:
    """The routes of each path, of those dialects that are switched on."""
    found: dict[str, tuple[Route, ...]] = {}
    for route in ROUTES:
        if route.dialect.name in enabled:
            found[route.path] = (*found.get(route.path, ()), route)
    return found


def choose(routes: Sequence[Route], asked: object) -> Route:
    """Who answers; `asked` is the request's JSON."""
    if isinstance(asked, Mapping):
        return next((route for route in routes if route.claims(asked)), routes[0])
    return routes[0]
