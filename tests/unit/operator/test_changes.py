"""Two pod templates compared, in words; and a template that travels with its Deployment."""

import base64
import copy
import random
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from reranker_contracts.base import canonical_json
from reranker_operator import names
from reranker_operator.api.v1alpha1 import RerankerEngine, RerankerService
from reranker_operator.core import sizes
from reranker_operator.core.changes import differences
from reranker_operator.core.replicas import only_replicas, owners_of_replicas
from reranker_operator.render import serving
from reranker_operator.render.defaults import Defaults

Json = dict[str, Any]
Change = Callable[[Json], Any]


@pytest.fixture
def template(service: RerankerService, engine: RerankerEngine, defaults: Defaults) -> Json:
    return serving.pod_template(service, engine, defaults)


def _gateway(template: Json) -> Json:
    found: Json = template["spec"]["containers"][0]
    return found


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: _gateway(t).update(image="gateway:2"), "image gateway: gateway:1 → gateway:2"),
        (
            lambda t: _gateway(t)["resources"]["limits"].update(memory="2Gi"),
            "gateway.resources.limits.memory: 1Gi → 2Gi",
        ),
        (
            lambda t: _gateway(t)["env"].append({"name": "RERANKER_NEW", "value": "1"}),
            "gateway.env.RERANKER_NEW: none → 1",
        ),
        (
            lambda t: _gateway(t)["env"].append({"name": "HTTPS_PROXY", "value": "http://me:pw@x"}),
            "gateway.env.HTTPS_PROXY: added",
        ),
        (lambda t: _gateway(t).update(args=["serve", "x" * 99]), "gateway.args: changed"),
        (
            lambda t: t["spec"]["containers"].append({"name": "log", "image": "log:1"}),
            "container log: added, image log:1",
        ),
        (lambda t: t["spec"]["initContainers"].pop(), "container triton: removed"),
        (
            lambda t: t["spec"]["volumes"].append({"name": "ca", "configMap": {"name": "ca"}}),
            "volume ca: added",
        ),
        (lambda t: t["spec"]["nodeSelector"].update(gpu="no"), "nodeSelector.gpu: yes → no"),
        (lambda t: t["spec"].pop("nodeSelector"), "nodeSelector.gpu: yes → none"),
        (lambda t: t["spec"].update(priorityClassName="high"), "priorityClassName: none → high"),
        (lambda t: t["metadata"]["labels"].update(team="a"), "label team: none → a"),
        (lambda t: t["metadata"]["annotations"].update(x="1"), "annotation x: none → 1"),
        (
            lambda t: t["metadata"]["annotations"].update(
                {names.REFERENCES_ANNOTATION: '{"ConfigMap/ca":"1"}'}
            ),
            "ConfigMap ca: watched from now on",
        ),
    ],
)
def test_each_difference_is_one_line(template: Json, change: Change, told: str) -> None:
    after = copy.deepcopy(template)
    change(after)
    assert list(differences(template, after)) == [told]
    assert list(differences(after, after)) == []


def test_another_engine_is_not_told_line_by_line(
    template: Json, service: RerankerService, engine: RerankerEngine, defaults: Defaults
) -> None:
    spec = engine.spec.model_copy(update={"digest": "f" * 64})
    meta = engine.metadata.model_copy(update={"name": "other-onnx-cpu-fp32-ffffffffff"})
    other = engine.model_copy(update={"spec": spec, "metadata": meta})
    after = serving.pod_template(service, other, defaults)
    assert after != template
    assert list(differences(template, after)) == []


@pytest.mark.parametrize("damaged", ["e", "", "é", '"'])
def test_an_engine_that_somebody_wrote_there_is_told_and_harms_nothing(
    template: Json, damaged: str
) -> None:
    before = copy.deepcopy(template)
    before["metadata"]["labels"][names.ENGINE_LABEL] = damaged
    before["metadata"]["annotations"][names.DIGEST_ANNOTATION] = damaged
    told = list(differences(before, template))
    assert [line.partition(":")[0] for line in told] == [
        f"label {names.ENGINE_LABEL}", f"annotation {names.DIGEST_ANNOTATION}"
    ]  # fmt: skip


def test_what_is_told_is_shown_and_not_obeyed(template: Json) -> None:
    after = copy.deepcopy(template)
    after["metadata"]["annotations"]["x"] = "\x1b[2Ka\u202eb"
    assert list(differences(template, after)) == ["annotation x: none → ab"]


def test_a_template_that_fits_is_one_that_a_deployment_can_carry(
    template: Json, service: RerankerService
) -> None:
    assert sizes.fits(service, template)
    for letters, fits in ((100_000, True), (300_000, True), (600_000, False)):
        numbers = random.Random(letters)  # noqa: S311 - the same in each run
        _gateway(template)["args"] = [numbers.randbytes(letters // 2).hex()]
        entry = serving.deployment(service, template, 1)
        size = len(entry["metadata"]["annotations"][names.TEMPLATE_ANNOTATION])
        # Hex digits are packed to half of their length, and written down in base64.
        assert sizes.fits(service, template) is fits is (size <= sizes.LARGEST_PACKED)
    _gateway(template)["args"] = ["x" * (1 << 20)]
    assert not sizes.fits(service, template)


def test_a_template_that_somebody_made_up_is_not_believed(
    template: Json, service: RerankerService
) -> None:
    for made_up in ([], {"metadata": {}}, {"metadata": {"labels": {}, "annotations": {}}}):
        entry = serving.deployment(service, template, 1)
        text = canonical_json(made_up)
        packed = base64.b64encode(zlib.compress(text.encode())).decode()
        entry["metadata"]["annotations"][names.TEMPLATE_ANNOTATION] = packed
        entry["metadata"]["labels"][names.REVISION_LABEL] = names.short_hash(text)
        assert serving.template_of(entry) is None


def test_only_variables_that_were_asked_for_are_told(
    template: Json, service: RerankerService, engine: RerankerEngine, defaults: Defaults
) -> None:
    """The ports come along with the first variable, and say what holds without them."""
    raw: Any = service.to_dict()
    more = {"env": [{"name": "RERANKER_LOG_LEVEL", "value": "debug"}]}
    raw["spec"]["serving"]["gateway"] |= more
    after = serving.pod_template(RerankerService.model_validate(raw), engine, defaults)
    assert any(entry["name"] == "RERANKER_HOST" for entry in _gateway(after)["env"])
    assert list(differences(template, after)) == ["gateway.env.RERANKER_LOG_LEVEL: none → debug"]
    assert list(differences(after, template)) == ["gateway.env.RERANKER_LOG_LEVEL: debug → none"]
    moved = copy.deepcopy(after)
    next(e for e in _gateway(moved)["env"] if e["name"] == "RERANKER_HTTP_PORT")["value"] = "9"
    assert list(differences(after, moved)) == ["gateway.env.RERANKER_HTTP_PORT: 8000 → 9"]


def test_a_deployment_carries_its_template(template: Json, service: RerankerService) -> None:
    made = serving.deployment(service, template, 3)
    assert serving.template_of(made) == template
    assert serving.restored(service, made, 3) == made
    assert len(made["metadata"]["annotations"][names.TEMPLATE_ANNOTATION]) < 4096


@pytest.mark.parametrize(
    "packed",
    [
        "", "x", "!!!!", "é", "AAAA",
        base64.b64encode(zlib.compress(b"{}")).decode(),
        base64.b64encode(zlib.compress(b"[" * 100_000)).decode(),
        base64.b64encode(zlib.compress(b" " * (1 << 28))).decode(),
    ],
    ids=range(8),
)  # fmt: skip
def test_a_template_that_somebody_changed_is_not_believed(
    packed: str, template: Json, service: RerankerService
) -> None:
    made = serving.deployment(service, template, 1)
    made["metadata"]["annotations"][names.TEMPLATE_ANNOTATION] = packed
    assert serving.template_of(made) is None
    assert serving.restored(service, made, 1) is None


@pytest.mark.parametrize("fields", [None, {}, {"f:spec": None}, {"f:spec": {}}, {"f:metadata": {}}])
def test_managers_of_other_fields_are_left_out(fields: Json | None) -> None:
    mine = {"manager": "x", "subresource": "scale", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    more = mine | {"time": "now", "fieldsV1": {"f:spec": {"f:replicas": {}, "f:model": {}}}}
    managed = [{"manager": "y"} if fields is None else {"manager": "y", "fieldsV1": fields}, more]
    assert only_replicas(managed) == [mine]
    assert owners_of_replicas(managed) == [more]
