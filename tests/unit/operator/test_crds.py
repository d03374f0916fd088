"""The committed definitions are those of the models, in the form that the API server takes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reranker_operator.api.crd import definitions, render
from reranker_operator.api.meta import ApiModel
from reranker_operator.api.v1alpha1 import (
    RerankerEngineSpec,
    RerankerEngineStatus,
    RerankerServiceSpec,
    RerankerServiceStatus,
)

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("folder", ["crds", "charts/reranker-operator-crds/templates"])
def test_committed_definitions_are_those_of_the_models(folder: str) -> None:
    files = (ROOT / folder).glob("reranker*.yaml")
    written = {path.name: path.read_text(encoding="utf-8") for path in files}
    assert written == {name: render(entry) for name, entry in definitions().items()}


def _nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from _nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from _nodes(schema[key], f"{path}[{key}]")


@pytest.mark.parametrize("name", sorted(definitions()))
def test_schemas_are_structural(name: str) -> None:
    (version,) = definitions()[name]["spec"]["versions"]
    for path, node in _nodes(version["schema"]["openAPIV3Schema"]):
        assert node.get("type") or node.get("x-kubernetes-int-or-string"), path
        assert not node.keys() & {"$ref", "$defs", "anyOf", "oneOf", "allOf", "title", "const"}, (
            path
        )
        assert not ("properties" in node and "additionalProperties" in node), path
        assert set(node.get("required", [])) <= node.get("properties", {}).keys(), path


@pytest.mark.parametrize("name", sorted(definitions()))
def test_every_field_is_described(name: str) -> None:
    (version,) = definitions()[name]["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    for part in ("spec", "status"):
        for path, node in _nodes(schema["properties"][part], part):
            fields = node.get("properties", {})
            assert [key for key in fields if not fields[key].get("description")] == [], path
            for key, field in fields.items():
                if isinstance(field.get("default"), str | int | float):
                    assert "Default" in field["description"], f"{path}.{key}"


def test_lists_whose_entries_have_a_key_are_merged_by_it() -> None:
    """The API server wants each key to be there, by requirement or by default."""
    (version,) = definitions()["rerankerservices.yaml"]["spec"]["versions"]
    seen = 0
    for path, node in _nodes(version["schema"]["openAPIV3Schema"]):
        for key in node.get("x-kubernetes-list-map-keys", []):
            entry = node["items"]
            assert key in entry["required"] or "default" in entry["properties"][key], path
            seen += 1
    assert seen > 10


@pytest.mark.parametrize("name", sorted(definitions()))
def test_bounds_with_fractions_have_a_rule(name: str) -> None:
    """The API server compares whole numbers with the whole part of a bound."""
    (version,) = definitions()[name]["spec"]["versions"]
    for path, node in _nodes(version["schema"]["openAPIV3Schema"]):
        for bound, sign in (("minimum", ">="), ("maximum", "<=")):
            value = node.get(bound, 0)
            if value != int(value):
                rules = [entry["rule"] for entry in node.get("x-kubernetes-validations", [])]
                assert f"self {sign} {value}" in rules, path


@pytest.mark.parametrize(
    "model",
    [RerankerServiceSpec, RerankerServiceStatus, RerankerEngineSpec, RerankerEngineStatus],
)
def test_no_bound_is_lost_on_the_way(model: type[ApiModel]) -> None:
    """`structural` keeps minimum and maximum only."""
    assert "exclusiveM" not in str(model.model_json_schema())
