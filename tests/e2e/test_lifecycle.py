"""A service's life: scale, share an engine, leave nothing behind; changes: test_nothing_lost."""

import pytest
from support.kubectl import Json, eventually
from support.services import Services, order, source

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

PASSAGES = ["alpha beta", "gamma", "delta epsilon zeta", "eta theta", "iota kappa lambda"]


def _names(items: list[Json]) -> set[str]:
    return {item["metadata"]["name"] for item in items}


def test_scaling_keeps_the_revision(services: Services) -> None:
    services.apply("scale", {"model": {"source": source("first")}})
    before = services.wait_ready("scale")["status"]
    services.kubectl("scale", "rr", "scale", "--replicas=2")
    eventually(
        lambda: services.kubectl.get("rr", "scale")["status"].get("ready") == "2/2",
        within=120,
        describe=lambda: services.kubectl("get", "rr,pods"),
    )
    status = services.kubectl.get("rr", "scale")["status"]
    assert status["revision"] == before["revision"]
    assert services.kubectl.get("rr", "scale")["status"]["replicas"] == 2


def test_two_services_share_an_engine_and_deletion_leaves_nothing(services: Services) -> None:
    kinds = "deployments,replicasets,jobs,pods,services,pvc,rre,rr"
    for name in ("one", "two"):
        services.apply(name, {"model": {"source": source("first")}})
    engines = {services.wait_ready(name)["status"]["engine"] for name in ("one", "two")}
    assert len(engines) == 1
    assert _names(services.kubectl.list("rre")) == engines
    compiles = services.kubectl.list("jobs", "reranker.dev/stage=compile")
    assert len(compiles) == 1, "the same bytes are built once"
    volume = services.kubectl.list("pvc")[0]["spec"]["volumeName"]

    services.kubectl("delete", "rr", "one", "--wait")
    assert order(services.rank("two", "which one", PASSAGES))
    assert _names(services.kubectl.list("rre")) == engines

    services.kubectl("delete", "rr", "two", "--wait")
    eventually(
        lambda: not services.kubectl.list(kinds),
        within=180,
        describe=lambda: services.kubectl("get", kinds),
    )
    eventually(lambda: volume not in services.kubectl("get", "pv", "-o", "name"), within=120)
