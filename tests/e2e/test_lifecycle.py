"""A service's life: change under traffic, scale, share an engine, leave nothing behind."""

import pytest
from support.kubectl import Json, eventually
from support.services import Services, order, source
from support.traffic import Traffic

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

PASSAGES = ["alpha beta", "gamma", "delta epsilon zeta", "eta theta", "iota kappa lambda"]


def _names(items: list[Json]) -> set[str]:
    return {item["metadata"]["name"] for item in items}


def test_a_model_change_under_traffic_fails_no_request(services: Services) -> None:
    served = {"servedName": "test/model"}
    services.apply("swap", {"model": {"source": source("first")} | served})
    before = services.wait_ready("swap")["status"]
    body: Json = {
        "model": "test/model",
        "query": {"text": "which one"},
        "passages": [{"text": text} for text in PASSAGES],
    }
    with Traffic(services.base_url("swap"), body) as traffic:
        services.apply("swap", {"model": {"source": source("second")} | served})
        after = services.wait_ready("swap")["status"]
        old = f"reranker.dev/revision={before['revision']}"
        eventually(lambda: not services.kubectl.list("pods", old), within=120)
    assert traffic.count.failures == []
    assert traffic.count.answered > 50
    assert len(traffic.count.scores) == 2, "both models answered, each with its own order"
    assert after["engine"] != before["engine"]
    assert _names(services.kubectl.list("deployments")) == {f"swap-{after['revision']}"}
    eventually(lambda: _names(services.kubectl.list("rre")) == {after["engine"]}, within=120)


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
