"""What the models refuse is told in a user's words, with the path of the field."""

from typing import Any

import pytest
from pydantic import ValidationError

from reranker_operator.api import refusal
from reranker_operator.api.v1alpha1 import RerankerService

REMEDY = "; correct the field and apply again"


def refused(**spec: Any) -> str:
    raw = {
        "metadata": {"name": "rank", "namespace": "ml", "uid": "1"},
        "spec": {"model": {"source": "hf://org/model"}} | spec,
    }
    with pytest.raises(ValidationError) as caught:
        RerankerService.model_validate(raw)
    return refusal.refused(caught.value, raw) + REMEDY


@pytest.mark.parametrize("amount", ["lots", -1, "1000%", True, 1.5])
def test_an_amount_of_pods_is_a_number_or_a_share(amount: object) -> None:
    assert refused(rollout={"minAvailable": amount}) == (
        "spec.rollout.minAvailable must be a number of pods such as 1, or a share of them such as "
        "50%; correct the field and apply again"
    )


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"engine": {"runtime": "torch"}}, "spec.engine.runtime must be 'auto', "),
        ({"replicas": "three"}, "spec.replicas must be a whole number; "),
        ({"replicas": -1}, "spec.replicas must be at least 0; "),
        ({"autoscaling": {}}, "spec.autoscaling.max is missing; "),
        ({"rollout": {"paused": "maybe"}}, "spec.rollout.paused must be true or false; "),
        ({"rollout": {"canary": {"steps": []}}}, "spec.rollout.canary.steps must have at least 1 "),
        (
            {"rollout": {"canary": {"steps": [{"weight": 10}, {"weight": 0}]}}},
            "spec.rollout.canary.steps[1].weight must be at least 1; ",
        ),
        (
            {"engine": {"resources": {"requests": {"cpu": "lots"}}}},
            "spec.engine.resources.requests.cpu must be a whole number or must have the form ",
        ),
        ({"model": {}}, "spec.model.source is missing; "),
    ],
)
def test_paths_and_words_are_those_of_manifests(spec: dict[str, Any], words: str) -> None:
    told = refused(**spec)
    assert told.startswith(words)
    assert told.endswith(REMEDY)
    assert "Input" not in told and "constrained" not in told


def test_shares_beyond_the_whole_that_are_stored_already_go_on() -> None:
    RerankerService.model_validate(
        {
            "metadata": {"name": "rank", "namespace": "ml", "uid": "1"},
            "spec": {
                "model": {"source": "hf://org/model"},
                "disruption": {"minAvailable": "200%"},
            },
        }
    )
