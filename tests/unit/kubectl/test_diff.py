"""What would change about a service, as the operator says it."""

import copy
from typing import Any

import pytest
from support.rr_worlds import ENGINE, OLDER, WORLDS, Json, condition, service

from kubectl_rr.diff import changes


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def paused() -> dict[str, list[Json]]:
    """A service that holds an upgrade back, to be changed by the test."""
    return copy.deepcopy(WORLDS["paused"])


def test_what_a_pause_holds_back(rr: Any, api: Any) -> None:
    api.world = WORLDS["paused"]
    done = rr("diff", "demo", api=api)
    assert done.code == 1
    assert done.out == (
        "demo: held back by spec.rollout.paused\n"
        f"  engine: {ENGINE} → {OLDER} (not built)\n"
        "  image gateway: gateway:1 → gateway:2\n"
    )
    # The same in colours, and without the right to see Deployments.
    api.refused = {"deployments"}
    coloured = rr("diff", "demo", "--color=always", api=api)
    assert (coloured.code, "\x1b[31mgateway:1" in coloured.out) == (1, True)


def test_nothing_to_change(rr: Any, api: Any) -> None:
    done = rr("diff", "demo", api=api)
    assert (done.code, done.out) == (0, "demo: nothing would change\n")


def test_changes_under_way_are_told_with_their_step(
    rr: Any, api: Any, paused: dict[str, list[Json]]
) -> None:
    raw = paused["rerankerservices"][0]
    rolling = WORLDS["rolling"]["rerankerservices"][0]["status"]["conditions"]
    raw["spec"]["rollout"] = {"paused": False}
    raw["status"]["conditions"] = rolling
    api.world = paused
    done = rr("diff", "demo", api=api)
    assert done.code == 1
    assert done.out.startswith("demo: under way, Rolling: revision 9f8e7d6c is starting\n  engine:")


def test_an_undo_is_not_under_way(rr: Any, api: Any, paused: dict[str, list[Json]]) -> None:
    raw = paused["rerankerservices"][0]
    raw["spec"]["rollout"] = {"paused": False}
    raw["status"]["conditions"] = [condition("Progressing", "False", "Undone", "as asked")]
    api.world = paused
    done = rr("diff", "demo", api=api)
    assert done.out.startswith("demo: not under way, Undone: as asked\n  engine:")


def test_a_refused_spec_is_said_to_be_refused(rr: Any, api: Any) -> None:
    world = copy.deepcopy(WORLDS["ready"])
    raw = world["rerankerservices"][0]
    raw["metadata"]["generation"] = 2
    refused = condition("Accepted", "False", "InvalidSpec", "spec.x must be 1")
    raw["status"]["conditions"][0] = refused | {"observedGeneration": 2}
    raw["status"]["conditions"][-1] = refused | {"type": "Ready"}
    api.world = world
    done = rr("diff", "demo", api=api)
    assert (done.code, done.out) == (
        1,
        "demo: nothing is known to change\n"
        "The newest spec is refused, InvalidSpec: spec.x must be 1\n",
    )
    assert "not looked at" not in rr("status", "demo", api=api).out
    assert "InvalidSpec: spec.x must be 1" in rr("explain", "demo", api=api).out


def test_a_newer_spec_that_the_operator_has_not_seen(rr: Any, api: Any) -> None:
    world = copy.deepcopy(WORLDS["ready"])
    world["rerankerservices"][0]["metadata"]["generation"] = 2
    world["rerankerservices"][0]["spec"]["replicas"] = 3
    api.world = world
    done = rr("diff", "demo", api=api)
    assert done.code == 1
    assert done.out.splitlines()[1:] == [
        "  replicas: 1 → 3", "The operator has not looked at the newest spec yet.",
    ]  # fmt: skip


def test_a_number_that_is_put_back_is_no_change(paused: dict[str, list[Json]]) -> None:
    """The operator keeps three pods until the spec says so again."""
    raw, deployments = paused["rerankerservices"][0], paused["deployments"]
    deployments[0]["spec"]["replicas"] = 3
    raw["status"]["scale"] = {"replicas": 3}
    assert "replicas" not in " ".join(changes(raw, deployments))
    raw["status"]["scale"] = {"replicas": 2, "setBy": "kubectl"}
    assert changes(raw, deployments)[-1] == "replicas: 3 → 2"


def test_a_service_that_was_made_paused(rr: Any, api: Any) -> None:
    raw = service(stage="Paused")
    raw["spec"]["rollout"] = {"paused": True}
    raw["status"] = {"observedGeneration": 1, "conditions": []}
    api.world = {"rerankerservices": [raw]}
    done = rr("diff", "demo", api=api)
    assert (done.code, done.out) == (
        1,
        "demo is not started while spec.rollout.paused is true\n",
    )


def test_what_others_wrote_into_a_status_is_harmless(rr: Any, api: Any) -> None:
    raw = service()
    raw["status"] = {"pendingChanges": ["a\x1b[2J: b → c\x9b31m", 7, None, {}], "scale": []}
    raw["spec"] = {"rollout": "x", "replicas": "y"}
    api.world = {"rerankerservices": [raw], "deployments": WORLDS["ready"]["deployments"]}
    done = rr("diff", "demo", api=api)
    assert done.code == 1
    assert "  a: b → c\n" in done.out
    assert "\x1b" not in done.out


def test_the_activator_is_no_pod_that_is_too_many(rr: Any, api: Any) -> None:
    world = copy.deepcopy(WORLDS["sleeping"])
    world["rerankerservices"][0]["spec"]["rollout"] = {"strategy": "noSurge"}
    api.world = world
    done = rr("diff", "demo", api=api)
    assert (done.code, done.out) == (0, "demo: nothing would change\n")
