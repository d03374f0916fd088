"""The real API server with our definitions and the operator's rights, but no operator."""

from collections.abc import Iterator

import pytest
from support.cluster import ROOT, Cluster
from support.kubectl import Kubectl, until_served

_NAMESPACE = "cluster-tests"


@pytest.fixture(scope="session")
def api(cluster: Cluster) -> Iterator[Kubectl]:
    """kubectl in a namespace of its own; the definitions are installed by their chart."""
    crds = str(ROOT / "charts/reranker-operator-crds")
    cluster.helm("upgrade", "--install", "reranker-operator-crds", crds, "-n", "reranker-system",
                 "--create-namespace", "--wait")  # fmt: skip
    cluster.kubectl("create", "namespace", _NAMESPACE)
    until_served(cluster.kubectl, "rerankerservices.reranker.dev")
    yield cluster.kubectl.within(_NAMESPACE)
    cluster.kubectl("delete", "namespace", _NAMESPACE, "--wait")
