"""Metadata of the fake cluster's objects, as the API server gives it."""

from collections.abc import AsyncIterator

from reranker_operator.adapters.cluster import Json
from reranker_operator.adapters.metadata import Change, Metadata
from reranker_operator.api.meta import RESOURCES, Resource

from .fake_cluster import FakeCluster


class FakeMetadata:
    """Stands at the `MetadataApi` protocol; the simulation passes changes on by itself."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster

    async def get(self, resource: Resource, namespace: str, name: str) -> Metadata:
        return _metadata(await self._cluster.get(resource, namespace, name))

    async def list(self, resource: Resource, namespace: str | None) -> tuple[list[Metadata], int]:
        found = await self._cluster.list(resource, namespace)
        return [_metadata(entry) for entry in found], 0

    async def watch(
        self, resource: Resource, namespace: str | None, version: int
    ) -> AsyncIterator[Change]:
        raise NotImplementedError
        yield


def change_of(cluster: FakeCluster, entry: Json) -> Change:
    """The event about an object that was written or removed."""
    meta = entry["metadata"]
    live = cluster.find(RESOURCES[entry["kind"]], meta["namespace"], meta["name"])
    return Change("DELETED" if live is None else "MODIFIED", _metadata(live or entry))


def _metadata(entry: Json) -> Metadata:
    meta = entry["metadata"]
    return Metadata(meta["namespace"], meta["name"], meta["uid"], int(meta["resourceVersion"]))
