"""What the nodes themselves say, before and beside the scheduler."""

from typing import Any

import pytest

from reranker_operator.core.causes.scheduling import no_node

Json = dict[str, Any]
GPU = "nvidia.com/gpu"


def _node(count: str = "4", *taints: Json, **labels: str) -> Json:
    return {
        "metadata": {"name": "n", "labels": labels},
        "spec": {"taints": list(taints)},
        "status": {"allocatable": {GPU: count}},
    }


def _taint(key: str = "gpu", value: str = "yes", effect: str = "NoSchedule") -> Json:
    return {"key": key, "value": value, "effect": effect}


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}, True),
        ({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "gpu", "operator": "Equal", "value": "yes"}, True),
        ({"key": "gpu", "value": "yes"}, True),
        ({"key": "gpu", "value": "no"}, False),
        ({"key": "gpu"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_tolerations_count_as_the_scheduler_counts_them(toleration: Json, tolerated: bool) -> None:
    found = no_node((_node("4", _taint()),), GPU, 1, {}, [toleration])
    assert (found is None) == tolerated
    if found is not None:
        assert "gpu=yes:NoSchedule" in found.message


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ((), "NoMatchingNode"),
        ((_node("1"),), "NoMatchingNode"),
        ((_node("no number"),), "NoMatchingNode"),
        ((_node("4", zone="b"),), "NoMatchingNode"),
        ((_node("4", zone="a"),), None),
        ((_node("4", _taint(), zone="a"),), "TaintNotTolerated"),
        ((_node("4", _taint(), zone="a"), _node("2", zone="a")), None),
        ((_node("4", _taint(), zone="a"), _node("2", zone="b")), "TaintNotTolerated"),
        ((_node("4", _taint(effect="PreferNoSchedule"), zone="a"),), None),
    ],
)
def test_the_best_node_decides(nodes: tuple[Json, ...], reason: str | None) -> None:
    found = no_node(nodes, GPU, 2, {"zone": "a"}, [])
    assert (found.reason if found else None) == reason
