"""Bounds that the API server does not keep by itself: it rounds them, or they are of two types."""

from typing import Any

import pytest
from support.kubectl import Json, Kubectl, KubectlError

pytestmark = pytest.mark.cluster


def service(**spec: Any) -> Json:
    return {
        "apiVersion": "reranker.dev/v1alpha1",
        "kind": "RerankerService",
        "metadata": {"name": "bounds"},
        "spec": {"model": {"source": "hf://org/model"}} | spec,
    }


def backlog(seconds: float) -> Json:
    return {"autoscaling": {"max": 3, "targetBacklogSeconds": seconds}}


def rollout(amount: object) -> Json:
    return {"rollout": {"strategy": "noSurge", "minAvailable": amount}}


def budget(**amount: object) -> Json:
    return {"disruption": amount}


_PODS = "or a share up to 100%, such as 50%; write one of them"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        # A whole number passes the minimum, a fraction doesn't.
        (backlog(0), "is less than 0.1; give at least 0.1"),
        (backlog(0.05), "should be greater than or equal to 0.1"),
        (backlog(-1), "is less than 0.1; give at least 0.1"),
        *[(rollout(amount), f"rollout.minAvailable is a number of pods such as 1, {_PODS}")
          for amount in ("lots", "200%", "101%", "-1%", -1, "3")],
        (budget(minAvailable="200%"),
         f"disruption.minAvailable is a number of pods such as 1, {_PODS}"),
        (budget(maxUnavailable="101%"), "0 would block every drain"),
        (budget(maxUnavailable="000%"), "0 would block every drain"),
    ],
)  # fmt: skip
def test_what_is_out_of_bounds_is_refused(api: Kubectl, spec: Json, message: str) -> None:
    with pytest.raises(KubectlError) as refused:
        api.apply(service(**spec))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "spec",
    [
        backlog(0.1),
        backlog(1),
        backlog(600),
        *[rollout(amount) for amount in (0, 9, "0%", "50%", "100%", "050%")],
        budget(minAvailable="100%"),
        budget(maxUnavailable="100%"),
        budget(maxUnavailable="5%"),
    ],
)
def test_what_is_within_is_taken(api: Kubectl, spec: Json) -> None:
    api.apply(service(**spec))
    api("delete", "rr", "bounds")
