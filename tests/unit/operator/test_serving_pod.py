"""What the serving pod is told, and how long it may take to start."""

from typing import Any

import pytest

from reranker_operator.api.v1alpha1 import RerankerEngine, RerankerService
from reranker_operator.render import serving
from reranker_operator.render.defaults import Defaults

Json = dict[str, Any]


def _containers(
    service: RerankerService, engine: RerankerEngine, defaults: Defaults
) -> dict[str, Json]:
    pod = serving.pod_template(service, engine, defaults)["spec"]
    return {entry["name"]: entry for entry in (*pod["initContainers"], *pod["containers"])}


@pytest.mark.parametrize(
    ("model", "aliases"),
    [
        ({}, "rank"),
        ({"aliases": ["a", "b"]}, "a,b,rank"),
        ({"servedName": "other"}, "rank"),
        ({"servedName": "rank"}, ""),
        ({"aliases": ["rank"]}, "rank"),
    ],
)
def test_a_service_answers_to_its_own_name(
    engine: RerankerEngine, defaults: Defaults, model: Json, aliases: str
) -> None:
    raw = {
        "metadata": {"name": "rank", "namespace": "shop", "uid": "1"},
        "spec": {"model": {"source": "hf://org/tiny"} | model},
    }
    gateway = _containers(RerankerService.model_validate(raw), engine, defaults)["gateway"]
    env = {entry["name"]: entry.get("value") for entry in gateway["env"]}
    assert env["RERANKER_ALIASES"] == aliases
