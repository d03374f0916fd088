"""Changes and failures under traffic: every request is counted, and none is lost.

The tests go through the life of one service, in this order; each leaves it serving. At the end the
table of `docs/benchmarks.md` is printed.
"""

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.cluster import PREFIX, Cluster, tag_image
from support.kubectl import Json, eventually
from support.services import BUILD_SECONDS, Services, source
from support.traffic import KINDS, TABLE_HEAD, Count, Question, Traffic, scores_of, table_row

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

_NAME = "kept"
_MODEL = "test/model"
_PER_SECOND = 20
_IMAGES = ("operator", "gateway", "triton", "engine-builder")
_WORDS = ("alpha beta", "gamma", "delta epsilon zeta", "eta theta", "iota kappa lambda", "mu nu xi")
_QUESTIONS = [
    Question(_MODEL, f"which one of {number}", tuple(_WORDS[at % 6] * (1 + at % 3)
             for at in range(number)))
    for number in (1, 3, 6, 12)
]  # fmt: skip
_SMALL = {"resources": {"requests": {"cpu": "20m", "memory": "64Mi"}}}
_PODS = f"reranker.dev/service={_NAME},app.kubernetes.io/component=serving"


class Life:
    """The service and what was counted of it."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.kubectl = services.kubectl
        self.rows: list[str] = []
        #: Different answers to the last question, in the last change.
        self.seen = 0
        self._spec: Json = {
            "model": {"source": source("first"), "servedName": _MODEL},
            "serving": {"gateway": dict(_SMALL), "triton": dict(_SMALL)},
        }
        services.apply(_NAME, self._spec)
        services.wait_ready(_NAME)
        self._address = self.kubectl.get("service", _NAME)["spec"]["clusterIP"]

    @property
    def pods(self) -> dict[str, Json]:
        """Serving pods by name, also those that end."""
        return {pod["metadata"]["name"]: pod for pod in self.kubectl.list("pods", _PODS)}

    @property
    def revision(self) -> str:
        return str(self.kubectl.get("rr", _NAME)["status"]["revision"])

    @contextmanager
    def counted(self, title: str) -> Iterator[None]:
        """Traffic before, during and after; then no request may be missing."""
        before = scores_of(self._address, _QUESTIONS)
        with Traffic(self._address, _QUESTIONS, per_second=_PER_SECOND) as traffic:
            self._more(traffic)
            yield
            self._more(traffic)
        after = scores_of(self._address, _QUESTIONS)
        known = {question: (before[question], after[question]) for question in _QUESTIONS}
        count = Count(traffic.sent, known)
        self.rows.append(table_row(title, count))
        self.seen = count.different(_QUESTIONS[-1])
        assert count.failures == []
        # There is room for all: nobody should have to come again.
        assert count.refusals == []
        assert {sent.kind for sent in count.sent} == set(KINDS)

    def edit(self, part: str, **fields: Any) -> None:
        """Change the spec and wait until only pods of the new revision are there."""
        before = self.revision
        self._spec[part] = self._spec.get(part, {}) | fields
        self.services.apply(_NAME, self._spec)
        self.services.wait_ready(_NAME)
        self.until_gone(before)

    def upgrade(self, cluster: Cluster, tag: str) -> None:
        """Another operator, whose defaults are another revision."""
        before = self.revision
        cluster.install("reranker-operator", tag=tag)
        self.until_gone(before)
        self.until_settled(1)

    def until_gone(self, revision: str) -> None:
        """Another revision serves, and no pod of this one is left."""
        eventually(
            lambda: (
                self.revision != revision
                and not self.kubectl.list("pods", f"reranker.dev/revision={revision}")
            ),
            within=BUILD_SECONDS,
            describe=lambda: self.kubectl("get", "rr,pods"),
        )

    def scale(self, replicas: int) -> None:
        """Wait until exactly so many pods are there, and ready."""
        self.kubectl("scale", "rr", _NAME, f"--replicas={replicas}")
        self.until_settled(replicas)

    def until_settled(
        self, replicas: int, without: set[str] | frozenset[str] = frozenset()
    ) -> None:
        """Exactly so many pods are there, all ready, and none of `without` is among them."""
        eventually(
            lambda: (
                [_is_ready(pod) for pod in self.pods.values()] == [True] * replicas
                and not without & self.pods.keys()
                and self.services.condition(_NAME, "Ready").get("status") == "True"
            ),
            within=BUILD_SECONDS,
            describe=lambda: self.kubectl("get", "rr,pods"),
        )

    def drain(self) -> str:
        """`kubectl drain` of the node, for our pods only; returns what it said.

        There is one node, so it is opened again as soon as it was closed.
        """
        former = self.pods
        node = next(iter(former.values()))["spec"]["nodeName"]
        command = ("drain", node, f"--pod-selector={_PODS}", "--delete-emptydir-data",
                   "--ignore-daemonsets", "--timeout=240s")  # fmt: skip
        try:
            with self.kubectl.start(*command) as drain:
                eventually(
                    lambda: any("deletionTimestamp" in pod["metadata"] or name not in former
                                for name, pod in self.pods.items()),
                    within=60,
                )  # fmt: skip
                self.kubectl("uncordon", node)
                said, _ = drain.communicate(timeout=300)
        finally:
            self.kubectl("uncordon", node)
        assert drain.returncode == 0, said
        self.until_settled(len(former), without=set(former))
        return said

    def _more(self, traffic: Traffic) -> None:
        """Wait for some answers."""
        some = len(traffic.sent) + 2 * _PER_SECOND
        eventually(lambda: len(traffic.sent) >= some, within=120)


def _is_ready(pod: Json) -> bool:
    conditions = pod["status"].get("conditions", [])
    ready = any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


@pytest.fixture(scope="module")
def life(
    cluster: Cluster, shared_services: Services, request: pytest.FixtureRequest
) -> Iterator[Life]:
    """The service of all tests here."""
    for image in _IMAGES:
        tag_image(f"{PREFIX}/{image}:dev", f"{PREFIX}/{image}:next")
    cluster.load(*(f"{PREFIX}/{image}:next" for image in _IMAGES))
    life = Life(shared_services)
    yield life
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("", TABLE_HEAD, *life.rows, sep="\n")


def test_model_change(life: Life) -> None:
    before = life.kubectl.get("rr", _NAME)["status"]
    with life.counted("model change"):
        life.edit("model", source=source("second"))
    after = life.kubectl.get("rr", _NAME)["status"]
    assert after["engine"] != before["engine"]
    (left,) = life.kubectl.list("deployments")
    assert left["metadata"]["name"] == f"{_NAME}-{after['revision']}"
    assert life.seen == 2, "both models have answered"
    # The former one stays, for the way back: spec.rollout.keepEngines.
    engines = {entry["metadata"]["name"] for entry in life.kubectl.list("rre")}
    assert engines == {before["engine"], after["engine"]}


def test_engine_change(life: Life) -> None:
    with life.counted("engine change"):
        life.edit("engine", maxLength=128)


def test_gateway_image_change(life: Life) -> None:
    with life.counted("gateway image change"):
        life.edit("serving", gateway=_SMALL | {"image": f"{PREFIX}/gateway:next"})


def test_triton_image_change(life: Life) -> None:
    with life.counted("Triton image change"):
        life.edit("serving", triton=_SMALL | {"image": f"{PREFIX}/triton:next"})


def test_operator_upgrade(life: Life, cluster: Cluster) -> None:
    """All images of the chart; the pods follow, since their `verify` step is one of them."""
    life.edit("serving", gateway=dict(_SMALL), triton=dict(_SMALL))
    try:
        with life.counted("operator upgrade"):
            life.upgrade(cluster, "next")
    finally:
        life.upgrade(cluster, "dev")


def test_triton_crash(life: Life) -> None:
    _crash(life, "tritonserver", "Triton crash, 1 pod")


def _triton_age(pod: Json) -> datetime.timedelta:
    statuses = {status["name"]: status for status in pod["status"]["initContainerStatuses"]}
    started = datetime.datetime.fromisoformat(statuses["triton"]["state"]["running"]["startedAt"])
    return datetime.datetime.now(datetime.UTC) - started


#: The kernel knows fifteen characters of a program's name.
_KILL = """
for process in /proc/[0-9]*; do
  read -r name < "$process/comm"
  [ "$name" != NAME ] || kill -KILL "${process#/proc/}"
done
"""


def _crash(life: Life, program: str, title: str) -> None:
    """Kill a program in the only pod; its containers go on."""
    (name,) = life.pods
    # What crashes sooner has not started.
    eventually(lambda: _triton_age(life.pods[name]).total_seconds() > 12, within=60)
    with life.counted(title):
        kill = _KILL.replace("NAME", program)
        life.kubectl("exec", name, "-c", "triton", "--", "bash", "-c", kill)
        log = ("logs", name, "-c", "triton")
        eventually(
            lambda: "started again" in life.kubectl(*log),
            within=60,
            describe=lambda: life.kubectl(*log),
        )
    (pod,) = life.pods.values()
    statuses = [*pod["status"]["initContainerStatuses"], *pod["status"]["containerStatuses"]]
    assert pod["metadata"]["name"] == name
    assert [status["restartCount"] for status in statuses] == [0, 0, 0]


def test_drain_of_the_only_pod(life: Life) -> None:
    with life.counted("`kubectl drain`, 1 pod"):
        life.drain()


def test_backend_crash(life: Life) -> None:
    """The backend's process, which on CPU is one of its own; in another pod than before."""
    _crash(life, "triton_python_b", "crash of Triton's backend, 1 pod")


def test_scaling(life: Life) -> None:
    with life.counted("scale 1 → 4 → 1"):
        life.scale(4)
        life.scale(1)


def test_pod_kill(life: Life) -> None:
    life.scale(2)
    killed = next(iter(life.pods))
    with life.counted("pod kill, 2 pods"):
        life.kubectl("delete", "pod", killed, "--grace-period=0", "--force")
        life.until_settled(2, without={killed})


def test_drain_with_a_budget(life: Life) -> None:
    assert life.kubectl.get("pdb", _NAME)["spec"]["maxUnavailable"] == 1
    with life.counted("`kubectl drain`, 2 pods"):
        said = life.drain()
    assert "would violate the pod's disruption budget" in said, "one after the other"
