"""Which events belong to a service, and in which order they are told."""

from typing import Any

import pytest
from support.rr_worlds import ENGINE, WORLDS, Json

from kubectl_rr.cluster import Access, connect
from kubectl_rr.events import Family, follow


@pytest.mark.parametrize(
    ("kind", "name", "belongs"),
    [
        ("RerankerService", "demo", True),
        ("RerankerService", "demo-2", False),
        ("RerankerEngine", ENGINE, True),
        ("Job", "demo-resolve-1a2b3c", True),
        ("Job", f"{ENGINE}-prepare-1", True),
        ("Pod", f"{ENGINE}-prepare-1-x7k2p", True),
        ("Pod", "demo-resolve-1a2b3c-x7k2p", True),
        ("Pod", "demo-1a2b3c4d-5d9f-x7k2p", True),
        ("Pod", "demo-worker-5d9f-x7k2p", False),
        ("ReplicaSet", "demo-1a2b3c4d-5d9f", True),
        ("Deployment", "demo-1a2b3c4d", True),
        ("Deployment", "demo-2-1a2b3c4d", False),
        ("PersistentVolumeClaim", "reranker-engines", True),
        ("ConfigMap", "demo", False),
    ],
)
def test_a_family_is_told_by_names_that_outlive_the_objects(
    kind: str, name: str, belongs: bool
) -> None:
    family = Family("demo", frozenset({ENGINE}), frozenset({"reranker-engines"}))
    assert family.owns(kind, name) is belongs


def _event(name: str, when: str, **more: Any) -> Json:
    involved = {"kind": "RerankerService", "name": name}
    return {
        "type": "Normal", "reason": f"R{when}", "message": "m", "involvedObject": involved,
        "lastTimestamp": f"2026-01-05T11:00:{when}Z",
    } | more  # fmt: skip


def test_events_are_in_order_of_time_wherever_it_is_written(rr: Any, api: Any) -> None:
    micro = {"lastTimestamp": None, "eventTime": "2026-01-05T11:00:15.000001Z"}
    timeless = {"lastTimestamp": None, "reason": "Timeless"}
    api.world = {
        **WORLDS["ready"],
        "events": [
            _event("demo", "20", count=7), _event("other", "11"), _event("demo", "15", **micro),
            _event("demo", "10", message="\x1b[31mm"), _event("demo", "5", **timeless),
        ],
    }  # fmt: skip
    done = rr("events", "demo", api=api)
    assert done.code == 0
    reasons = [line.split()[1] for line in done.out.splitlines() if "RerankerService" in line]
    assert reasons == ["Timeless", "R10", "R15", "R20"]
    assert "R20  RerankerService/demo  7 times" in done.out
    assert "\x1b" not in done.out
    api.world = WORLDS["ready"]
    assert "no events of demo" in rr("events", "demo", api=api).err


def test_an_event_of_a_container_names_it(rr: Any, api: Any) -> None:
    pod = {"kind": "Pod", "name": "demo-1a2b3c4d-5d9f-x7k2p"}
    paths = ("spec.initContainers{verify}", "spec.containers{gateway}", "spec.containers", 7)
    api.world = {
        **WORLDS["ready"],
        "events": [
            _event("demo", f"1{number}", involvedObject=pod | {"fieldPath": path})
            for number, path in enumerate(paths)
        ],
    }
    lines = [line for line in rr("events", "demo", api=api).out.splitlines() if "Pod/" in line]
    assert [line.split()[3:] for line in lines] == [["verify"], ["gateway"], [], []]


def test_the_warnings_alone(rr: Any, api: Any) -> None:
    api.world = {**WORLDS["ready"], "events": [_event("demo", "10")]}
    done = rr("events", "demo", "--warnings", api=api)
    assert (done.code, done.out) == (0, "")
    assert done.err == "kubectl rr: no warnings of demo; the cluster keeps events for an hour\n"
    api.world["events"].append(_event("demo", "20", type="Warning"))
    out = rr("events", "demo", "--warnings", api=api).out
    assert "R20" in out
    assert "R10" not in out


def test_watching_tells_only_what_is_new_or_happened_again(api: Any) -> None:
    first, again = _event("demo", "10"), _event("demo", "30", count=2)
    api.world = {**WORLDS["ready"], "events": [first]}
    cluster = connect(Access(kubeconfig=str(api.kubeconfig)))
    told = follow(cluster, "shop", "demo", pause=lambda _seconds: None)
    assert [event.reason for event in next(told)] == ["R10"]
    api.world["events"] = [first, again]
    assert [event.count for event in next(told)] == [2]
    assert next(told) == []
