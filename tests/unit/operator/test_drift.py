"""What counts as changed, and who may add what to an object of ours."""

import copy
import json
from typing import Any

import pytest

from reranker_operator import names
from reranker_operator.core.drift import intrusions, matches, removal

CONTAINER = {
    "name": "gateway",
    "image": "gateway:1",
    "env": [{"name": "A", "value": "1"}],
    "ports": [{"name": "http", "containerPort": 8000}],
    "resources": {"limits": {"cpu": "0.5"}},
}
WANTED: dict[str, Any] = {
    "kind": "Deployment",
    "metadata": {"name": "x", "labels": {"app": "x"}},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "x"}},
        "template": {
            "metadata": {"labels": {"app": "x"}},
            "spec": {"containers": [CONTAINER], "nodeSelector": {"gpu": "yes"}},
        },
    },
}


def _live(change: dict[str, Any] | None = None) -> dict[str, Any]:
    """As the API server gives it back: with defaults, in canonical form."""
    live = copy.deepcopy(WANTED)
    live["metadata"]["resourceVersion"] = "7"
    container = live["spec"]["template"]["spec"]["containers"][0]
    container["resources"]["limits"]["cpu"] = "500m"
    container["ports"][0]["protocol"] = "TCP"
    container["terminationMessagePath"] = "/dev/termination-log"
    live["spec"]["strategy"] = {"type": "RollingUpdate"}
    for path, value in (change or {}).items():
        node: Any = live
        *steps, last = path.split("/")
        for step in steps:
            node = node[int(step)] if isinstance(node, list) else node.setdefault(step, {})
        if isinstance(node, list):
            node.insert(int(last), value)
        else:
            node[last] = value
    return live


def _at(node: Any, pointer: str) -> Any:
    for step in pointer.split("/")[1:]:
        node = node[int(step)] if isinstance(node, list) else node[step]
    return node


def _fields(path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for step in reversed(path.split("/")):
        found = {step if step[1] == ":" else f"f:{step}": found}
    return found


def _by(manager: str, path: str, **more: Any) -> dict[str, Any]:
    return {"manager": manager, "operation": "Update", "fieldsV1": _fields(path), **more}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"metadata/labels/team": "a"},
        {"spec/template/spec/containers/1": {"name": "sidecar"}},
        {"spec/template/spec/containers/0/env/0": {"name": "B", "value": "2"}},
        {"spec/template/spec/containers/0/ports/0": {"containerPort": 9, "protocol": "TCP"}},
        {"status": {"replicas": 7}},
    ],
    ids=str,
)
def test_what_is_there_besides_does_not_count(change: dict[str, Any]) -> None:
    assert matches(_live(change), WANTED)


@pytest.mark.parametrize(
    "change",
    [
        {"spec/replicas": 2},
        {"metadata/labels/app": "y"},
        {"metadata/labels": {}},
        {"spec/selector/matchLabels/tier": "a"},
        {"spec/template/spec/nodeSelector/zone": "a"},
        {"spec/template/spec/containers/0/image": "gateway:2"},
        {"spec/template/spec/containers/0/env": []},
        {"spec/template/spec/containers/0/env": [{"name": "A", "value": "2"}]},
        {"spec/template/spec/containers/0/resources/limits/cpu": "1"},
        {"spec/template/spec/containers/0/ports": [{"containerPort": 8001, "protocol": "TCP"}]},
        {"spec/template/spec/containers": None},
    ],
    ids=str,
)
def test_a_change_of_what_we_own(change: dict[str, Any]) -> None:
    assert not matches(_live(change), WANTED)


def test_lists_without_keys_are_ours_as_a_whole() -> None:
    rule = {"ports": [{"port": 8000}], "from": [{"podSelector": {}}]}
    wanted = {"spec": {"ingress": [rule]}}
    assert matches({"spec": {"ingress": [rule]}}, wanted)
    open_port = rule | {"ports": [{"port": 8000}, {"port": 1}]}
    opened = rule | {"from": [{"podSelector": {"matchLabels": {"a": "b"}}}]}
    for changed in (open_port, opened):
        assert not matches({"spec": {"ingress": [changed]}}, wanted)


_CONTAINER_KEY = 'spec/template/spec/containers/k:{"name":"gateway"}'
ADDED = {
    "a label": ("metadata/labels/team", {"metadata/labels/team": "a"}, "/metadata/labels/team"),
    "a variable": (
        _CONTAINER_KEY + '/env/k:{"name":"B"}/value',
        {"spec/template/spec/containers/0/env/0": {"name": "B", "value": "2"}},
        "/spec/template/spec/containers/0/env/0",
    ),
    "a container": (
        'spec/template/spec/containers/k:{"name":"spy"}/image',
        {"spec/template/spec/containers/0": {"name": "spy", "image": "x"}},
        "/spec/template/spec/containers/0",
    ),
    "a port": (
        _CONTAINER_KEY + '/ports/k:{"containerPort":9,"protocol":"TCP"}/containerPort',
        {"spec/template/spec/containers/0/ports/1": {"containerPort": 9, "protocol": "TCP"}},
        "/spec/template/spec/containers/0/ports/1",
    ),
    "a limit": (
        _CONTAINER_KEY + "/resources/limits/memory",
        {"spec/template/spec/containers/0/resources/limits/memory": "1Gi"},
        "/spec/template/spec/containers/0/resources/limits/memory",
    ),
    "a field with a slash": (
        "metadata/labels/f:a.b~c", {"metadata/labels/a.b~c": "a"}, "/metadata/labels/a.b~0c",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ADDED)
def test_what_a_stranger_adds_is_found_where_it_is(name: str) -> None:
    path, change, pointer = ADDED[name]
    live = _live(change)
    live["metadata"]["managedFields"] = [_by("kubectl-edit", path)]
    patch = removal(intrusions(live, WANTED))
    assert [entry["path"] for entry in patch if entry["op"] == "remove"] == [pointer]
    for test in patch[:-1]:
        assert test["op"] == "test"
        assert _at(live, test["path"]) == test["value"]


@pytest.mark.parametrize(
    "entry",
    [
        _by("reranker-operator-owner-1", "metadata/labels/team"),
        _by("kube-controller-manager", "metadata/labels/team"),
        _by("kubectl", "metadata/labels/team", subresource="scale"),
        _by("kubectl-rollout", "metadata/annotations/restartedAt"),
        _by("kubectl-rollout", "spec/template/metadata/annotations/restartedAt"),
        _by("kubectl-edit", "metadata/finalizers/v:\"x\""),
        _by("kubectl-edit", "metadata/labels/app"),
        _by("kubectl-edit", "metadata/labels/gone"),
        _by("kubectl-edit", "status/replicas"),
        _by("kubectl-edit", "spec/replicas"),
    ],
    ids=str,
)  # fmt: skip
def test_what_stays(entry: dict[str, Any]) -> None:
    notes = {"restartedAt": "now"}
    live = _live({"metadata/labels/team": "a", "metadata/annotations": notes})
    live["spec"]["template"]["metadata"]["annotations"] = notes
    live["metadata"] |= {"managedFields": [entry], "finalizers": ["x"]}
    wanted = copy.deepcopy(WANTED)
    del wanted["spec"]["replicas"]
    assert intrusions(live, wanted) == ()


def test_positions_are_removed_from_the_back() -> None:
    added = [{"name": name, "value": "x"} for name in "BCD"]
    live = _live()
    env = live["spec"]["template"]["spec"]["containers"][0]["env"]
    env[:0] = added
    live["metadata"]["managedFields"] = [
        _by("kubectl-set", f"{_CONTAINER_KEY}/env/k:{json.dumps({'name': name})}/value")
        for name in "BDC"
    ]
    patch = removal(intrusions(live, WANTED))
    place = "/spec/template/spec/containers/0"
    assert {entry["path"]: entry["value"] for entry in patch if entry["op"] == "test"} == {
        f"{place}/name": "gateway",
        **{f"{place}/env/{number}/name": added[number]["name"] for number in range(3)},
    }
    removed = [entry["path"] for entry in patch if entry["op"] == "remove"]
    assert removed == [f"{place}/env/{number}" for number in (2, 1, 0)]


def test_the_controller_of_a_load_balancer_may_write_into_its_service() -> None:
    path = "spec/loadBalancerIP"
    live = _live({path: "203.0.113.7"})
    live["metadata"]["managedFields"] = [_by("some-balancer", path)]
    assert intrusions(live, WANTED)
    outside = copy.deepcopy(WANTED)
    outside["metadata"]["annotations"] = {names.BALANCER_ANNOTATION: ""}
    assert intrusions(live, outside) == ()
