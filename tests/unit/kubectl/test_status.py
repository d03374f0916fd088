"""The tree: the same snapshot always gives the same text."""

import copy
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.rr_worlds import WORLDS, condition, engine, service

from kubectl_rr.cluster import Access, connect
from kubectl_rr.errors import Unusable
from kubectl_rr.snapshot import Snapshot
from kubectl_rr.status import follow
from kubectl_rr.terminal import console, show
from kubectl_rr.tree import draw

_GOLDEN = Path(__file__).parent / "golden"
_EVIL = "a\x1b]0;owned\x07b\x1b[2J\x9b31mc\u202ed\x00\r\n[bold red]e[/] :smile: \x1b(0f"


def _text(snapshot: Snapshot, **options: Any) -> str:
    file = io.StringIO()
    show(console("never", file), draw(snapshot, **options))
    return file.getvalue()


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("state", WORLDS)
def test_every_state_is_drawn_as_recorded(state: str, snapshot: Callable[..., Snapshot]) -> None:
    text = _text(snapshot(WORLDS[state]))
    assert text == (_GOLDEN / f"{state}.txt").read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 80


def test_the_terminal_never_gets_to_see_what_a_cluster_wants_to_do_to_it(
    snapshot: Callable[..., Snapshot],
) -> None:
    world = {
        "rerankerservices": [
            service(condition(_EVIL, "False", _EVIL, _EVIL), stage=_EVIL, url=_EVIL, engine=_EVIL)
        ],
        "rerankerengines": [engine(_EVIL, stage=_EVIL, taken=[])],
    }
    text = _text(snapshot(world))
    assert set(text) & {chr(c) for c in [*range(32), *range(127, 160), 0x202E]} <= {"\n"}
    assert "abcd [bold red]e[/] :smile: f" in text


@pytest.mark.parametrize(
    "status",
    [
        "no object",
        {"conditions": [None, 7, {"type": {}, "message": ["x"]}], "readyReplicas": 1e999},
        {"conditions": {"a": 1}, "engines": [[]], "model": 3, "observedGeneration": "x"},
    ],
)
def test_a_status_of_another_shape_is_no_reason_to_fail(
    status: object, snapshot: Callable[..., Snapshot]
) -> None:
    odd = service() | {"status": status, "spec": []}
    assert _text(snapshot({"rerankerservices": [odd]})).startswith("demo  Pending")


def test_an_adapters_fetch_is_a_stage_where_there_is_an_adapter(
    snapshot: Callable[..., Snapshot],
) -> None:
    world = copy.deepcopy(WORLDS["ready"])
    (found,) = world["rerankerengines"]
    found["spec"] = {"prepare": {"adapter": "0123abcd"}}
    found["status"]["stages"].append({"name": "fetch-adapter", "seconds": 0.5})
    text = _text(snapshot(world)).replace("\u00a0", " ")
    stages = ("✓ fetch 1.2 s", "✓ fetch-adapter 0.5 s", "✓ export 65.0 s")
    places = [text.find(stage) for stage in stages]
    assert -1 < places[0] < places[1] < places[2]


def test_an_engine_of_a_registry_was_not_built(snapshot: Callable[..., Snapshot]) -> None:
    world = copy.deepcopy(WORLDS["ready"])
    (found,) = world["rerankerengines"]
    found["status"]["stages"] = [{"name": "pull", "seconds": 2.5}]
    found["status"]["conditions"] += [
        condition("Pulled", "True", "Done"), condition("Pushed", "Unknown", "Running"),
    ]  # fmt: skip
    text = _text(snapshot(world)).replace("\u00a0", " ")
    assert "✓ pull 2.5 s" in text
    assert "○ push" in text
    assert "export" not in text


def test_a_first_revision_without_a_ready_pod_is_starting(
    snapshot: Callable[..., Snapshot],
) -> None:
    world = copy.deepcopy(WORLDS["crashing"])
    (raw,) = world["rerankerservices"]
    assert "1a2b3c4d  starting  0/1 ready" in _text(snapshot(world))
    raw["status"]["history"] = [{"revision": "1a2b3c4d"}]
    assert "1a2b3c4d  serving  0/1 ready" in _text(snapshot(world))
    raw["status"]["history"] = []
    world["deployments"][0]["spec"]["replicas"] = 0
    assert "1a2b3c4d  serving  0/0 ready" in _text(snapshot(world))


def test_a_rollout_that_failed_is_not_marked_as_one_that_is_over(
    snapshot: Callable[..., Snapshot],
) -> None:
    world = copy.deepcopy(WORLDS["ready"])
    told = world["rerankerservices"][0]["status"]["conditions"]
    told[4] = condition("Progressing", "False", "ProgressDeadlineExceeded", "too late")
    assert "✗ Progressing" in _text(snapshot(world))
    told[4] = condition("Progressing", "False", "Stable", "it serves")
    assert "- Progressing" in _text(snapshot(world))


def test_status_shows_the_services_and_tells_by_its_exit_code_whether_they_are_ready(
    rr: Any, api: Any
) -> None:
    done = rr("status", api=api)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("demo  Ready  1/1 ready  http://demo.shop.svc:8000")
    assert rr("status", "-A", api=api).out.startswith("shop/demo  Ready")
    api.world = WORLDS["building"]
    assert rr("status", "demo", api=api).code == 1
    api.world = {}
    assert rr("status", api=api).err == "kubectl rr: no RerankerServices in shop\n"


def test_the_tree_as_json(rr: Any, api: Any) -> None:
    done = rr("status", "-o", "json", api=api)
    (found,) = json.loads(done.out)["services"]
    assert (done.code, done.err) == (0, "")
    assert (found["name"], found["ready"], found["ready_pods"]) == ("demo", True, 1)
    assert found["revisions"][0]["pods"][0]["state"] == "Running"
    assert found["created"] == "2026-01-05T11:55:00+00:00"
    api.world = WORLDS["failing"]
    done = rr("status", "demo", "-o", "json", api=api)
    assert (done.code, json.loads(done.out)["services"][0]["ready"]) == (1, False)
    api.world = {}
    done = rr("status", "-o", "json", api=api)
    assert (done.code, json.loads(done.out)["services"], done.err) == (0, [], "")
    assert "not for --watch" in rr("status", "-o", "json", "--watch", api=api).err


def test_what_may_not_be_read_is_left_out_and_named(rr: Any, api: Any) -> None:
    api.refused = {"pods"}
    done = rr("status", "demo", api=api)
    assert done.code == 0
    assert "(pods are not shown: pods is forbidden)" in done.out
    assert "\x1b" not in done.out


def test_colours_only_where_they_are_wanted(
    rr: Any, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "\x1b[" in rr("status", "--color=always", api=api).out
    assert "\x1b[" not in rr("status", "--color=never", api=api).out
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in rr("status", api=api).out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in rr("status", api=api).out


def test_watching_goes_on_while_the_cluster_is_away(api: Any) -> None:
    cluster = connect(Access(kubeconfig=str(api.kubeconfig)))
    away = False
    answer = cluster.list

    def listing(*arguments: Any) -> Any:
        if away:
            raise Unusable("gone")
        return answer(*arguments)

    cluster.list = listing  # type: ignore[method-assign]
    snapshots: Iterator[Snapshot] = follow(cluster, "shop", None, pause=lambda _seconds: None)
    assert next(snapshots).notes == ()
    away = True
    assert [next(snapshots).notes, next(snapshots).notes] == [("stale: gone",)] * 2
    away = False
    assert next(snapshots).notes == ()
