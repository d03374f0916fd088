"""What Kubernetes has rules for is refused in the spec, by its field; nothing leads elsewhere."""

import functools
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError
from support.api_server import cluster_behind

from reranker_operator.adapters.kubernetes import KubernetesCluster
from reranker_operator.api.crd import definitions
from reranker_operator.api.meta import PVC
from reranker_operator.api.v1alpha1 import RerankerServiceSpec
from reranker_operator.errors import OperatorError

TRAVERSAL = "../../kube-system/secrets/x"
NAMES = [
    "model.secretRef.name",
    "model.secretRef.key",
    "model.imagePullSecret",
    "engine.store.existingClaim",
    "engine.store.storageClassName",
    "accelerator.resourceName",
    "expose.service.loadBalancerClass",
    "expose.ingress.className",
    "expose.ingress.tlsSecret",
    "expose.route.parentRefs.[].name",
    "expose.route.parentRefs.[].namespace",
    "expose.route.parentRefs.[].sectionName",
]


DEFINED = functools.cache(definitions)


def _spec(path: str, value: object) -> dict[str, Any]:
    built: Any = value
    for field in reversed(path.split(".")):
        if field == "parentRefs":
            built = {field: [{"name": "gate"} | built]}
        elif field != "[]":
            built = {field: built}
            if field == "key":
                built["name"] = "hub"
    return built | {"model": {"source": "hf://org/tiny"} | built.get("model", {})}


def _node(path: str) -> dict[str, Any]:
    (version,) = DEFINED()["rerankerservices.yaml"]["spec"]["versions"]
    node: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for field in path.split("."):
        node = node["items"] if field == "[]" else node["properties"][field]
    return node


def test_a_name_is_one_name_and_no_dialects_are_not_all() -> None:
    """The gateway takes aliases and dialects as lists with commas, and an empty list as unset."""
    for names in ({"servedName": "a,b"}, {"aliases": ["a", "b,c"]}):
        with pytest.raises(ValidationError, match="pattern"):
            RerankerServiceSpec.model_validate({"model": {"source": "hf://org/tiny"} | names})
    assert _node("serving.dialects")["minItems"] == 1


@pytest.mark.parametrize("path", NAMES)
@pytest.mark.parametrize("value", [TRAVERSAL, "..", "a/../b", "a\nb", "a%2Fb", "-a", "a b"])
def test_names_are_refused_with_their_field(path: str, value: str) -> None:
    # A key of a Secret may be any of these; it is part of no URL.
    if path.endswith(".key") and value in ("..", "-a"):
        return
    with pytest.raises(ValidationError) as caught:
        RerankerServiceSpec.model_validate(_spec(path, value))
    where = [str(part) for part in caught.value.errors()[0]["loc"]]
    assert where[-1] == path.rpartition(".")[2]
    assert not _admits(_node(path), value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("engine.store.existingClaim", "data-1.west"),
        ("engine.store.storageClassName", ""),
        ("accelerator.resourceName", "nvidia.com/mig-1g.10gb"),
        ("expose.service.loadBalancerClass", "internal"),
        ("expose.route.parentRefs.[].sectionName", "https"),
        ("model.secretRef.key", "HF_TOKEN"),
    ],
)
def test_good_names(path: str, value: str) -> None:
    RerankerServiceSpec.model_validate(_spec(path, value))
    assert _admits(_node(path), value)


def _admits(node: dict[str, Any], value: str) -> bool:
    """What the definition's rule says; the message goes to the user, so there must be one."""
    (rule,) = node["x-kubernetes-validations"]
    assert rule["message"]
    matched = re.fullmatch(r"self\.matches\('(.*)'\)", rule["rule"])
    assert matched is not None
    return re.search(matched[1].replace("\\\\", "\\").removesuffix("$") + r"\Z", value) is not None


@pytest.fixture
async def asked() -> AsyncIterator[tuple[KubernetesCluster, list[str]]]:
    """An API server that notes what it is asked for."""
    paths: list[str] = []

    async def note(request: web.Request) -> web.Response:
        paths.append(request.raw_path)
        return web.json_response({})

    async with cluster_behind([web.get("/{any:.*}", note)]) as cluster:
        yield cluster, paths


def _parts(paths: list[str]) -> Iterator[list[str]]:
    for path in paths:
        yield path.partition("?")[0].split("/")


@pytest.mark.parametrize("name", [TRAVERSAL, "x/status", "x?watch=1", "x#y", "..", ".", "%2e%2e"])
async def test_a_name_is_one_part_of_a_path(
    asked: tuple[KubernetesCluster, list[str]], name: str
) -> None:
    cluster, paths = asked
    for namespace, entry in (("shop", name), (name, "x")):
        try:
            await cluster.get(PVC, namespace, entry)
        except OperatorError:
            continue
    for parts in _parts(paths):
        assert parts[1:4] == ["api", "v1", "namespaces"]
        assert parts[5] == "persistentvolumeclaims"
        assert len(parts) == 7


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ("lots", False), ("", False), ("1 Gi", False), ("1GiB", False), ("-1", False), (-1, False),
        ("5e", False), ("1Gi\n", False), (1, True), ("500m", True), ("1.5", True), (".5", True),
        ("8Gi", True), ("100k", True), ("1e3", True), ("12E", True), ("+1", True),
    ],
)  # fmt: skip
def test_quantities(value: str | int, good: bool) -> None:
    node = _node("engine.resources")["properties"]["requests"]["additionalProperties"]
    if isinstance(value, str):
        pattern = node["pattern"].removesuffix("$") + r"\Z"
        assert (re.search(pattern, value) is not None) == good
    spec = _spec("engine.resources.requests.cpu", value)
    if good:
        RerankerServiceSpec.model_validate(spec)
        return
    with pytest.raises(ValidationError, match=r"resources\.requests\.cpu"):
        RerankerServiceSpec.model_validate(spec)
