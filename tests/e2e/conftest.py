"""The installed operator, model images, and a namespace that admits only restricted pods."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.cluster import PREFIX, SYSTEM, Cluster, has_kind
from support.kubectl import Kubectl, KubectlError, eventually
from support.services import Services

_IMAGES = ("operator", "gateway", "triton", "engine-builder")
_MODELS = ("first", "second", "embedding")


def _build_models() -> list[str]:
    """Tiny model images, from the builder image that is under test."""
    folder = Path(__file__).parent / "models"
    build = ["buildah", "bud", "--layers", "--isolation", "chroot", "--network", "host"]
    if has_kind():
        build = ["docker", "build"]
    names = []
    for kind in _MODELS:
        name = f"{PREFIX}/test-{kind}:v1"
        command = [*build, "--build-arg", f"KIND={kind}", "-t", name, str(folder)]
        subprocess.run(command, check=True, capture_output=True)
        names.append(name)
    return names


@pytest.fixture(scope="session")
def operator(cluster: Cluster) -> Iterator[Kubectl]:
    """kubectl in the operator's namespace; images are built by `make images` beforehand."""
    images = [f"{PREFIX}/{name}:dev" for name in _IMAGES]
    cluster.load(*images, *_build_models())
    cluster.install("reranker-operator-crds")
    cluster.install("reranker-operator", tag="dev")
    system = cluster.kubectl.within(SYSTEM)
    label = "pod-security.kubernetes.io/enforce=restricted"
    system("label", "namespace", SYSTEM, label, "--overwrite")
    yield system
    cluster.helm("uninstall", "reranker-operator", "-n", SYSTEM, "--wait")


@pytest.fixture
def services(
    cluster: Cluster, operator: Kubectl, request: pytest.FixtureRequest
) -> Iterator[Services]:
    """RerankerServices in a namespace of this test; deleted in order, looked at when it failed."""
    name = request.node.name.split("[")[0].removeprefix("test_")
    with namespace(cluster, name) as found:
        yield found
        if getattr(request.node, "failed", False):
            _show(found.kubectl, operator)


@pytest.fixture(scope="module")
def shared_services(
    cluster: Cluster, operator: Kubectl, request: pytest.FixtureRequest
) -> Iterator[Services]:
    """The same, in one namespace of all tests of a module."""
    failed = request.session.testsfailed
    with namespace(
        cluster, request.module.__name__.rpartition(".")[2].removeprefix("test_")
    ) as found:
        yield found
        if request.session.testsfailed > failed:
            _show(found.kubectl, operator)


@contextmanager
def namespace(cluster: Cluster, name: str) -> Iterator[Services]:
    """One that admits only restricted pods; left as it should be left, or this fails."""
    name = "e2e-" + name.replace("_", "-")[:50]
    kubectl = cluster.kubectl.within(name)
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield Services(kubectl)
    kubectl("delete", "rr", "--all", "--wait")
    eventually(lambda: not kubectl.list("rre"), within=90, describe=lambda: kubectl("get", "rre"))
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Let fixtures know that the test failed."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.when == "call" and report.failed:
        item.failed = True  # type: ignore[attr-defined]


def _show(kubectl: Kubectl, operator: Kubectl) -> None:
    """What one would look at first."""
    for command in (
        ("get", "rr,rre,jobs,pods,pvc", "-o", "wide"),
        ("describe", "rr"),
        ("get", "events", "--sort-by=.lastTimestamp"),
    ):
        try:
            print(f"--- kubectl {' '.join(command)}\n{kubectl(*command)}")
        except KubectlError as error:
            print(error)
    logs = operator("logs", "-l", "app.kubernetes.io/name=reranker-operator", "--tail=40")
    print(f"--- operator\n{logs}")
