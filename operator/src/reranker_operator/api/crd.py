"""Writes the CustomResourceDefinitions from the pydantic models.

`python -m reranker_operator.api.crd DIRECTORY` writes them; a test compares them with `crds/`.
The API server wants structural schemas: no references, no `null` type, no
`additionalProperties: false`, so pydantic's JSON schema is rewritten here.
"""

import copy
import sys
from pathlib import Path
from typing import Any

import yaml

from reranker_operator.api.exposure_rules import EXPOSURE_RULES
from reranker_operator.api.meta import (
    GROUP,
    RERANKER_ENGINE,
    RERANKER_SERVICE,
    VERSION,
    ApiModel,
    Resource,
)
from reranker_operator.api.pod_rules import POD_RULES
from reranker_operator.api.rules import ENGINE_RULES, SERVICE_RULES, Rule
from reranker_operator.api.v1alpha1 import (
    RerankerEngineSpec,
    RerankerEngineStatus,
    RerankerServiceSpec,
    RerankerServiceStatus,
)

Schema = dict[str, Any]

_KEPT = (
    "type", "format", "description", "enum", "pattern", "minimum", "maximum", "minLength",
    "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
    "x-kubernetes-int-or-string", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
    "x-kubernetes-validations",
)  # fmt: skip
_LIST_KEYS = {"conditions": "type", "engines": "name", "stages": "name"}


def structural(model: type[ApiModel]) -> Schema:
    """The model's schema in the form that the API server accepts."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _rewrite(schema, schema.get("$defs", {}))


def _rewrite(node: Schema, definitions: Schema) -> Schema:
    if "$ref" in node:
        target = definitions[node["$ref"].rsplit("/", 1)[1]]
        node = target | {key: value for key, value in node.items() if key != "$ref"}
    if "x-kubernetes-int-or-string" in node:
        kept = ("description", "pattern", "x-kubernetes-int-or-string")
        return _described({key: node[key] for key in kept if key in node} | _default(node))
    if "anyOf" in node:
        options = [option for option in node["anyOf"] if option.get("type") != "null"]
        if len(options) != 1:
            raise ValueError(f"no structural form for {node}")
        outer = {key: value for key, value in node.items() if key != "anyOf"}
        return _rewrite(options[0] | outer, definitions)
    # Copies: rules may be added to a list that other fields share.
    result: Schema = {key: copy.copy(node[key]) for key in _KEPT if key in node}
    if "x-kubernetes-validations" in node:
        # A rule is not looked at where the pattern fails, and only the rule says what to do.
        result.pop("pattern", None)
    if "const" in node:
        result["enum"] = [node["const"]]
    if "description" in result:
        result["description"] = " ".join(result["description"].split())
    if "properties" in node:
        result["properties"] = {
            name: _property(name, child, definitions) for name, child in node["properties"].items()
        }
        if node.get("required"):
            result["required"] = sorted(node["required"])
    elif node.get("additionalProperties") is True:
        result["x-kubernetes-preserve-unknown-fields"] = True
    elif isinstance(node.get("additionalProperties"), dict):
        result["additionalProperties"] = _rewrite(node["additionalProperties"], definitions)
    if "items" in node:
        result["items"] = _rewrite(node["items"], definitions)
    return _described(result | _default(node))


def _described(node: Schema) -> Schema:
    """`kubectl explain` does not print defaults, so the text does."""
    value = node.get("default")
    text = node.get("description", "")
    if not text or "Default" in text or not isinstance(value, str | int | float):
        return node
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    return node | {"description": f"{text.rstrip('.')}. Default: {shown}."}


def _property(name: str, node: Schema, definitions: Schema) -> Schema:
    result = _rewrite(node, definitions)
    if result.get("type") == "array" and name in _LIST_KEYS:
        result["x-kubernetes-list-type"] = "map"
        result["x-kubernetes-list-map-keys"] = [_LIST_KEYS[name]]
    return result


def _default(node: Schema) -> Schema:
    value = node.get("default")
    if value is None or value == []:
        return {}
    # An empty object lets the API server fill in the defaults of the fields themselves.
    return {"default": {} if isinstance(value, dict) else value}


def _add_rules(schema: Schema, rules: tuple[Rule, ...]) -> None:
    for rule in rules:
        node = schema
        for field in filter(None, rule.path.split(".")):
            node = node["properties"][field.removesuffix("[]")]
            node = node["items"] if field.endswith("[]") else node
        node.setdefault("x-kubernetes-validations", []).append(rule.to_dict())


def _definition(
    resource: Resource,
    short_name: str,
    spec: type[ApiModel],
    status: type[ApiModel],
    *,
    rules: tuple[Rule, ...],
    columns: list[Schema],
    scale: bool = False,
) -> Schema:
    schema: Schema = {
        "type": "object",
        "description": (spec.__doc__ or "").strip(),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(spec),
            "status": structural(status),
        },
    }
    _add_rules(schema, rules)
    subresources: Schema = {"status": {}}
    if scale:
        subresources["scale"] = {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    singular = resource.kind.lower()
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": singular,
                "shortNames": [short_name],
                "categories": ["reranker"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": subresources,
                    "additionalPrinterColumns": columns,
                }
            ],
        },
    }


def _column(name: str, path: str, kind: str = "string", *, wide: bool = False) -> Schema:
    column: Schema = {"name": name, "type": kind, "jsonPath": path}
    if wide:
        column["priority"] = 1
    return column


def definitions() -> dict[str, Schema]:
    """File name to CustomResourceDefinition."""
    ready = '.status.conditions[?(@.type=="Ready")]'
    age = _column("Age", ".metadata.creationTimestamp", "date")
    return {
        "rerankerservices.yaml": _definition(
            RERANKER_SERVICE,
            "rr",
            RerankerServiceSpec,
            RerankerServiceStatus,
            rules=SERVICE_RULES + EXPOSURE_RULES + POD_RULES,
            columns=[
                _column("Model", ".status.model.name"),
                _column("Engine", ".status.engine"),
                _column("Ready", f"{ready}.status"),
                _column("Stage", ".status.stage"),
                _column("Replicas", ".status.ready"),
                _column("URL", ".status.url"),
                age,
                _column("Source", ".spec.model.source", wide=True),
                _column("Reason", f"{ready}.reason", wide=True),
                _column("Message", f"{ready}.message", wide=True),
            ],
            scale=True,
        ),
        "rerankerengines.yaml": _definition(
            RERANKER_ENGINE,
            "rre",
            RerankerEngineSpec,
            RerankerEngineStatus,
            rules=ENGINE_RULES,
            columns=[
                _column("Model", ".spec.modelName"),
                _column("Runtime", ".spec.identity.runtime"),
                _column("Ready", f"{ready}.status"),
                _column("Stage", ".status.stage"),
                _column("Tau", ".status.parity.kendallTau", "number"),
                _column("Bytes", ".status.sizeBytes", "integer"),
                age,
                _column("Reason", f"{ready}.reason", wide=True),
                _column("Message", f"{ready}.message", wide=True),
            ],
        ),
    }


class _WithoutAliases(yaml.SafeDumper):
    """A part that occurs twice is written twice: `&id001` is for no reader."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def render(definition: Schema) -> str:
    """YAML text of one definition, as committed."""
    head = "# Generated by `make crds` from the operator's API models: do not edit.\n"
    text: str = yaml.dump(definition, Dumper=_WithoutAliases, sort_keys=False, width=100)
    return head + text


def main() -> None:
    """Write every definition into the directories named on the command line."""
    for directory in map(Path, sys.argv[1:]):
        directory.mkdir(parents=True, exist_ok=True)
        for name, definition in definitions().items():
            (directory / name).write_text(render(definition), encoding="utf-8")


if __name__ == "__main__":
    main()
