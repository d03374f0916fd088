"""An idle service has no pods; who comes then waits for the first one, and is not lost."""

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import pytest
from support.kubectl import Json, eventually
from support.services import Services, order, post, source

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

PASSAGES = ["alpha beta", "gamma", "delta epsilon zeta", "eta theta", "iota kappa lambda"]
HELD = 100


def _pods(services: Services) -> list[Json]:
    return services.kubectl.list("pods", "app.kubernetes.io/component=serving")


def test_a_hundred_requests_wake_a_service_and_none_is_lost(services: Services) -> None:
    rules = {"min": 0, "max": 2, "idleSeconds": 60}
    services.apply("nap", {"model": {"source": source("first")}, "autoscaling": rules})
    before = services.wait_ready("nap")["status"]
    services.wait_for("nap", "Serving", "ScaledToZero", within=240)
    eventually(lambda: not _pods(services), within=120)
    asleep = services.kubectl.get("rr", "nap")["status"]
    assert (asleep["url"], asleep["revision"]) == (before["url"], before["revision"])
    assert services.condition("nap", "Ready")["status"] == "True"

    body: Json = {
        "model": before["model"]["name"],
        "query": {"text": "which one"},
        "passages": [{"text": text} for text in PASSAGES],
    }
    began, first = time.monotonic(), []

    def ask(url: str) -> list[int]:
        answer = post(url, body)
        first.append(time.monotonic() - began)
        return order(answer)

    with ThreadPoolExecutor(HELD) as clients:
        url = f"{services.base_url('nap')}/v1/ranking"
        answers = list(clients.map(ask, repeat(url, HELD)))
    assert len(answers) == HELD
    assert all(answer == answers[0] for answer in answers)
    print(f"first answer after {min(first):.1f} s, last after {max(first):.1f} s")
    services.wait_for("nap", "Serving", "Available", within=60)
    start = services.kubectl.get("rr", "nap")["status"]["coldStart"]
    print(f"stages: {start}")
    assert start["seconds"] >= start["load"] > 0
