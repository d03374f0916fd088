"""Revisions that are worse than the one before: each is taken back by itself, and nobody is lost.

The tests go through the life of one service, in this order; each leaves the first revision serving.
At the end the table of `docs/benchmarks.md` is printed.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.faulty_gateway import install_faults, with_fault
from support.kubectl import Json, eventually
from support.services import BUILD_SECONDS, Services, source
from support.traffic import Count, Question, Traffic, scores_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

_NAME = "proven"
_MODEL = "test/model"
#: What a revision may cost in time, from its first pod to the way back.
_WITHIN = 120
_WORDS = ("alpha beta", "gamma", "delta epsilon zeta", "eta theta", "iota kappa lambda", "mu nu xi")
_QUESTIONS = [
    Question(_MODEL, "which one", tuple(_WORDS[at % 6] for at in range(number)))
    for number in (3, 6, 12)
]
#: Enough to answer beside a build that takes all it can get.
_SMALL = {"resources": {"requests": {"cpu": "250m", "memory": "64Mi"}}}
_FAILS = "made to fail"
_TABLE_HEAD = (
    "| revision | given up after s | requests | ok | refused | failed | gate, and what it said |\n"
    "|---|---:|---:|---:|---:|---:|---|"
)


class Life:
    """The service, and what became of its revisions."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.kubectl = services.kubectl
        self.rows: list[str] = []
        self.good: Json = {
            "model": {"source": source("first"), "servedName": _MODEL},
            "serving": {"gateway": dict(_SMALL), "triton": dict(_SMALL)},
            # Enough for the slow one to be seen on little traffic.
            "rollout": {"bakeSeconds": 60, "gates": {"minTokens": 2000}},
        }
        install_faults(self.kubectl)
        services.apply(_NAME, self.good)
        services.wait_ready(_NAME)
        self.address = self.kubectl.get("service", _NAME)["spec"]["clusterIP"]
        self.first = str(self.status["revision"])

    @property
    def status(self) -> Json:
        found: Json = self.kubectl.get("rr", _NAME)["status"]
        return found

    def under_way(self) -> Json:
        """The rollout as its status has it; empty while there is none."""
        found: Json = self.status.get("rollout") or {}
        return found

    @contextmanager
    def changed(self, spec: Json) -> Iterator[Traffic]:
        """Traffic before, while and after the service has this spec; then it has the good one."""
        with Traffic(self.address, _QUESTIONS, per_second=20) as traffic:
            eventually(lambda: len(traffic.sent) >= 60, within=60)
            self.services.apply(_NAME, spec)
            yield traffic
            self.services.apply(_NAME, self.good)
            self.services.wait_ready(_NAME)
        assert self.status["revision"] == self.first

    def count(self, title: str, traffic: Traffic, told: str, seconds: float | None) -> Count:
        """The judged requests; a row of the table."""
        now = scores_of(self.address, _QUESTIONS)
        count = Count(traffic.sent, {question: (now[question],) for question in _QUESTIONS})
        numbers = (len(count.sent), count.ok, len(count.refusals), len(count.failures))
        after = "" if seconds is None else f"{seconds:.0f}"
        self.rows.append(f"| {title} | {after} | {' | '.join(map(str, numbers))} | {told} |")
        return count

    def given_up(self) -> tuple[Json, float]:
        """What the status says of the revision that was given up, and after how many seconds."""
        known = {entry["revision"] for entry in self.status.get("failed", [])}
        eventually(self.under_way, within=BUILD_SECONDS, describe=self.now)
        began = time.monotonic()

        def failed() -> Json:
            new = [
                entry for entry in self.status.get("failed", []) if entry["revision"] not in known
            ]
            found: Json = new[0] if new else {}
            return found

        found = eventually(failed, within=2 * _WITHIN, describe=self.now)
        return found, time.monotonic() - began

    def now(self) -> str:
        """What one would look at first."""
        return self.kubectl("get", "rr", _NAME, "-o", "yaml") + self.kubectl("get", "pods")


@pytest.fixture(scope="module")
def life(shared_services: Services, request: pytest.FixtureRequest) -> Iterator[Life]:
    """The service of all tests here."""
    life = Life(shared_services)
    yield life
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("", _TABLE_HEAD, *life.rows, sep="\n")


def test_a_worse_engine_gets_no_pods(life: Life) -> None:
    parity = {"minKendallTau": 1, "maxNdcgDelta": 0}
    worse = {"engine": {"runtime": "onnxruntime", "precision": "int8", "parity": parity}}

    def refused() -> Json:
        # Where the CPU can't compute INT8 it can't be measured either.
        now = life.services.condition(_NAME, "EngineReady")
        return now if now.get("reason") in {"ParityRefused", "TargetAbsent"} else {}

    with life.changed(life.good | worse) as traffic:
        told = eventually(refused, within=BUILD_SECONDS, describe=life.now)
        assert life.status["revision"] == life.first
        assert len(life.kubectl.list("deployments")) == 1
    count = life.count("worse engine", traffic, f"{told['reason']}: {told['message']}", None)
    assert count.failures == []
    assert count.refusals == []


@pytest.mark.parametrize(
    ("title", "fault", "gate"),
    [
        ("never ready", "unready", "ready"),
        ("crashes", "crash", "ready"),
        ("half as fast", "slow", "latency"),
        ("5 % errors", "errors", "errorRate"),
    ],
)
def test_a_worse_revision_is_taken_back(life: Life, title: str, fault: str, gate: str) -> None:
    with life.changed(life.good | {"serving": with_fault(life.good["serving"], fault)}) as traffic:
        failed, seconds = life.given_up()
        told = life.services.wait_for(_NAME, "Progressing", "RolledBack")
        assert failed["message"] in told["message"]
    count = life.count(title, traffic, f"{gate}: {failed['message']}", seconds)
    assert failed["gate"] == gate
    assert seconds <= _WITHIN
    own = [why for why in count.failures if _FAILS not in why]
    assert (own, count.refusals) == ([], [])
    assert bool(count.failures) == (gate == "errorRate")


def test_a_canary_that_is_aborted_costs_no_request(life: Life) -> None:
    canary = {"strategy": "canary", "canary": {"steps": [{"weight": 50, "seconds": 600}]}}
    other = {"gateway": _SMALL | {"env": [{"name": "OTHER", "value": "1"}]}}
    spec = life.good | {"serving": life.good["serving"] | other, "rollout": canary}
    with life.changed(spec) as traffic:
        eventually(
            lambda: life.under_way().get("weight") == 50,
            within=120,
            describe=lambda: str(life.status),
        )
        some = len(traffic.sent) + 100
        eventually(lambda: len(traffic.sent) >= some, within=60)
        abort = ("-m", "kubectl_rr", "rollout", "abort", _NAME, "-n", life.kubectl.namespace)
        life.kubectl.tool(Path(sys.executable), *abort)
        life.services.wait_for(_NAME, "Progressing", "Aborted")
        (left,) = eventually(
            lambda: found if len(found := life.kubectl.list("deployments")) == 1 else [], within=60
        )
        assert left["metadata"]["name"] == f"{_NAME}-{life.first}"
    count = life.count("canary, aborted", traffic, "abort", None)
    assert (count.failures, count.refusals) == ([], [])


def test_another_order_of_live_results_is_taken_back_before_anybody_sees_it(life: Life) -> None:
    shadow = {"percent": 50, "minRequests": 20}
    judged = {
        "strategy": "blueGreen",
        "blueGreen": {"previewSeconds": 60},
        "bakeSeconds": 0,
        "gates": {"shadow": shadow},
    }
    # Pods are told at their start that they shall compare.
    life.services.apply(_NAME, life.good | {"rollout": judged})
    comparing = life.services.wait_ready(_NAME)["status"]["revision"]
    other = {"source": source("second"), "servedName": _MODEL}
    with life.changed(life.good | {"rollout": judged, "model": other}) as traffic:
        failed, seconds = life.given_up()
        assert life.status["revision"] == comparing
    count = life.count("other model", traffic, f"shadow: {failed['message']}", seconds)
    assert failed["gate"] == "shadow"
    assert (count.failures, count.refusals) == ([], [])
