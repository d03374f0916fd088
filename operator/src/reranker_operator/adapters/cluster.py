"""What the operator asks of a cluster. The Kubernetes implementation is in `kubernetes.py`."""

from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from typing import Any, Protocol

from reranker_operator.api.meta import Resource
from reranker_operator.core.world import owners_of

Json = dict[str, Any]
#: Objects, or the operations of a JSON patch.
Items = list[Json]


class Cluster(Protocol):
    """All calls raise the errors of `reranker_operator.errors`."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Json:
        """One object. Raises NotFound."""

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        selector: Mapping[str, str] | None = None,
        *,
        fields: Mapping[str, str] | None = None,
    ) -> Items:
        """All objects with these labels and fields; namespace None means everywhere."""

    def pages(
        self,
        resource: Resource,
        namespace: str | None,
        selector: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Items]:
        """The same as `list` in parts, for those who need not have all of it in memory."""

    async def apply(self, manifest: Json, manager: str) -> Json:
        """Server-side apply, forced; returns the merged object."""

    async def apply_status(self, manifest: Json, manager: str) -> Json:
        """Server-side apply of the status subresource. Raises NotFound."""

    async def create(self, manifest: Json) -> Json:
        """Create. Raises Conflict when the name is taken."""

    async def merge_patch(self, resource: Resource, namespace: str, name: str, patch: Json) -> Json:
        """JSON merge patch. Raises NotFound or, with a resourceVersion in it, Conflict."""

    async def scale(self, resource: Resource, namespace: str, name: str, replicas: int) -> None:
        """Set the number of pods through the scale subresource. Raises NotFound."""

    async def json_patch(self, resource: Resource, namespace: str, name: str, patch: Items) -> Json:
        """JSON patch. Raises NotFound, and Rejected where a `test` in it fails."""

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        uid: str | None = None,
        version: str | None = None,
    ) -> None:
        """Delete with dependents in the background; gone, replaced or changed since is fine."""


class IndexedCluster(Cluster, Protocol):
    """One that finds a few of very many objects without a look at the others."""

    async def related(self, resource: Resource, namespace: str, facets: Collection[str]) -> Items:
        """Objects of the namespace that have any of these facets, see `facets_of`."""


def facets_of(entry: Mapping[str, Any]) -> Iterator[str]:
    """By what an object is found beside its labels: its name, its owners, its model's source."""
    yield named(entry["metadata"]["name"])
    yield from map(owned_by, owners_of(entry))
    source = (entry.get("spec") or {}).get("source")
    if isinstance(source, Mapping):
        yield made_from(str(source.get("source")))


def named(name: str) -> str:
    """The facet of an object's name."""
    return f"name/{name}"


def owned_by(uid: str) -> str:
    """The facet of one owner."""
    return f"owner/{uid}"


def made_from(source: str) -> str:
    """The facet of an engine's source."""
    return f"source/{source}"
