"""Which kinds a cluster knows. Optional ones come and go with their definitions."""

from typing import Protocol

from reranker_operator.api.meta import Resource


class Discovery(Protocol):
    """Raises the errors of `reranker_operator.errors`."""

    async def serves(self, resource: Resource) -> bool:
        """Whether the API server has this kind in this version."""
