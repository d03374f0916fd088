"""Model ids that requests may name.

NVIDIA renamed its rerankers between releases, and documents and clients mix the names; a served
model that has one of them answers to all. Hosted paths write `_` where a name has a dot, and some
clients turn that back wherever it stands, so both are the same here.
"""

from collections.abc import Iterable
from typing import Any, Final

from reranker_gateway.errors import ModelNotFoundError
from reranker_gateway.gateway import Gateway

#: Names of one and the same model.
_NVIDIA: Final = (
    ("nvidia/llama-nemotron-rerank-1b-v2", "nvidia/llama-3.2-nv-rerankqa-1b-v2"),
    ("nvidia/llama-nemotron-rerank-500m-v2", "nvidia/llama-3.2-nemoretriever-500m-rerank-v2"),
    (
        "nvidia/llama-nemotron-rerank-vl-1b-v2",
        "nvidia/llama-3.2-nemoretriever-1b-vlm-rerank-v1",
    ),
    ("nvidia/nv-rerankqa-mistral-4b-v3", "nv-rerank-qa-mistral-4b:1"),
)


class ModelNames:
    """The served name, and what else is accepted for it."""

    def __init__(self, served: str, aliases: Iterable[str], model: str) -> None:
        """`model` is what the engine was made from; it counts only for NVIDIA's other names."""
        given = dict.fromkeys((served, *aliases))
        known = {*given, model}
        others = [name for names in _NVIDIA if known & set(names) for name in names]
        self.served = served
        #: The served name first.
        self.all = tuple(dict.fromkeys((*given, *others)))
        self._accepted = frozenset(map(_folded, self.all))

    def check(self, asked: str | None) -> None:
        """Raises ModelNotFoundError."""
        if asked is not None and _folded(asked) not in self._accepted:
            raise ModelNotFoundError(
                f"model: {asked!r} is not served here; use {self.served!r} "
                "or another id of GET /v1/models"
            )


def models_document(names: ModelNames, created: int) -> dict[str, Any]:
    """The list of models; `created` is in Unix time.

    The real id first with itself as root: clients without a model take the first such entry.
    """
    return {
        "object": "list",
        "data": [
            {
                "id": name,
                "object": "model",
                "created": created,
                "owned_by": "reranker-operator",
                "root": names.served,
                "parent": None,
            }
            for name in names.all
        ],
    }


def names_of(gateway: Gateway) -> ModelNames:
    """What `gateway` answers to."""
    return ModelNames(gateway.served_name, gateway.settings.aliases, gateway.files.model.name)


def _folded(name: str) -> str:
    return name.replace(".", "_")
