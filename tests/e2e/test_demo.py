"""The demo's path: the committed sample, the real model, three questions."""

import pytest
import yaml
from support.cluster import PREFIX, ROOT, Cluster
from support.services import Services, order, post

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_demo(cluster: Cluster, services: Services) -> None:
    cluster.load(f"{PREFIX}/demo-model:v1")
    services.kubectl("apply", "-f", str(ROOT / "manifests/samples/demo.yaml"))
    status = services.wait_ready("demo")["status"]
    (engine,) = (entry for entry in status["engines"] if entry["name"] == status["engine"])
    assert engine["parity"]["kendallTau"] > 0.995
    model = yaml.safe_load((ROOT / "manifests/samples/demo.yaml").read_text())["spec"]["model"]
    questions = yaml.safe_load((ROOT / "hack/demo-model/questions.yaml").read_text())
    for entry in questions:
        answer = post(
            f"{services.base_url('demo')}/v1/ranking",
            {
                "model": model["servedName"],
                "query": {"text": entry["question"]},
                "passages": [{"text": passage["text"]} for passage in entry["passages"]],
                "truncate": "END",
            },
        )
        ranked = [entry["passages"][index]["name"] for index in order(answer)]
        assert sorted(ranked) == sorted(passage["name"] for passage in entry["passages"])
        logits = [row["logit"] for row in answer["rankings"]]
        assert logits == sorted(logits, reverse=True)
        assert entry["answer"] in ranked[:3], entry["question"]
