"""The one fixture that hides which cluster the tests use.

kind through pytest-kind where a Docker engine and kind are there, else the local one-node cluster
in `.cluster-test/` (or where RERANKER_TEST_CLUSTER says), apart from the one of `make cluster`.
`CLUSTER=current`, the cluster of your kubeconfig, is refused: tests install the operator.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from support.cluster import Cluster, open_cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running cluster with the project's images; it goes down after the session.

    KEEP_CLUSTER=1 leaves it running, so that the next session starts at once.
    """
    if os.environ.get("CLUSTER") == "current":
        pytest.fail("tests never run on the cluster of your kubeconfig; unset CLUSTER")
    with open_cluster(keep=os.environ.get("KEEP_CLUSTER") == "1") as opened:
        yield opened
