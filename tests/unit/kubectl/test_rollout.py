"""What people wish for a rollout, and what they see of it."""

import copy
import datetime
from collections.abc import Iterator
from typing import Any

import pytest
from support.rr_worlds import Json, condition, service

from kubectl_rr.errors import Unusable
from kubectl_rr.rollout_status import follow, outcome

GATES = [
    {"name": "ready", "state": "Passed", "message": "1 of 1 pods are ready"},
    {"name": "errorRate", "state": "Waiting", "message": "0.0 % of 7 requests failed"},
]
STAND = {
    "revision": "9f8e7d6c", "phase": "Canary", "step": 1, "weight": 25, "by": "replicas",
    "why": "spec: image gateway: a → b", "gates": GATES,
}  # fmt: skip
HISTORY = [
    {"revision": "aaaa0001", "time": "2026-01-05T12:00:00Z", "engine": "e", "template": "x",
     "why": "first start"},
    {"revision": "aaaa0000", "time": "2026-01-04T12:00:00Z", "engine": "d", "template": "y"},
    {"revision": "aaaa0009", "time": "2026-01-03T12:00:00Z", "engine": "c"},
]  # fmt: skip
FAILED = {
    "revision": "bad00000", "time": "2026-01-05T13:00:00Z", "gate": "errorRate",
    "message": "5.0 % of 60 requests failed", "inForce": True,
}  # fmt: skip


def _service(reason: str = "Proving", status: str = "True", **more: Any) -> Json:
    raw = copy.deepcopy(service(condition("Progressing", status, reason, f"it is {reason}")))
    raw["status"] |= {"revision": "aaaa0001", "specHash": "feed", "history": HISTORY} | more
    raw["metadata"]["resourceVersion"] = "7"
    return raw


def _noted(api: Any) -> Json:
    """The annotations of the only change, which is of the object that was read."""
    (patch,) = api.patches
    assert patch["metadata"]["resourceVersion"] == "7"
    notes: Json = patch["metadata"]["annotations"]
    return notes


@pytest.mark.parametrize(
    ("arguments", "notes", "said"),
    [
        (
            ["promote"],
            {"reranker.dev/rollout-promote": "9f8e7d6c/1"},
            "demo: revision 9f8e7d6c goes on after Canary, step 2\n",
        ),
        (
            ["promote", "--full"],
            {"reranker.dev/rollout-promote": "9f8e7d6c"},
            "demo: revision 9f8e7d6c goes to its end\n",
        ),
        (
            ["abort"],
            {"reranker.dev/rollout-abort": "9f8e7d6c"},
            "demo: revision 9f8e7d6c is given up; the former one gets all the traffic\n",
        ),
        (
            ["undo"],
            {"reranker.dev/rollout-undo": "aaaa0000/feed"},
            "demo: revision aaaa0000 serves again, until the spec changes\n",
        ),
        (
            ["undo", "--to", "aaaa0001"],
            {"reranker.dev/rollout-undo": "aaaa0001/feed"},
            "demo: revision aaaa0001 serves again, until the spec changes\n",
        ),
    ],
)
def test_wishes_are_annotations_that_name_the_revision(
    arguments: list[str], notes: Json, said: str, rr: Any, api: Any
) -> None:
    api.world = {"rerankerservices": [_service(rollout=STAND)]}
    done = rr("rollout", *arguments[:1], "demo", *arguments[1:], api=api)
    assert (done.code, done.out) == (0, said)
    assert _noted(api) == notes


def test_trying_again_takes_back_what_stood_in_the_way(rr: Any, api: Any) -> None:
    raw = _service("RolledBack", "False", failed=[FAILED])
    raw["metadata"]["annotations"] = {"reranker.dev/rollout-abort": "bad00000", "mine": "x"}
    api.world = {"rerankerservices": [raw]}
    done = rr("rollout", "retry", "demo", api=api)
    assert (done.code, done.out) == (0, "demo: revision bad00000 is tried again\n")
    notes = _noted(api)
    assert datetime.datetime.fromisoformat(notes.pop("reranker.dev/rollout-retry"))
    assert notes == {"reranker.dev/rollout-abort": None}


def test_pause_and_resume_set_the_field(rr: Any, api: Any) -> None:
    raw = _service(rollout=STAND)
    api.world = {"rerankerservices": [raw]}
    done = rr("rollout", "resume", "demo", api=api)
    assert (done.code, done.out, api.patches) == (0, "demo: is not paused\n", [])
    assert rr("rollout", "pause", "demo", api=api).code == 0
    assert api.patches == [{"spec": {"rollout": {"paused": True}}}]
    raw["spec"]["rollout"] = {"paused": True}
    assert (
        "happens after `kubectl rr rollout resume`" in rr("rollout", "abort", "demo", api=api).out
    )


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["promote"], {}, "no new revision is on its way to the traffic: nothing to promote"),
        (
            ["abort"],
            {"rollout": STAND | {"phase": "Returning"}},
            "no new revision is on its way to the traffic: nothing to abort",
        ),
        (["retry"], {}, "nothing was given up or undone"),
        (["undo"], {"history": HISTORY[2:]}, "no former revision is kept to go back to"),
        (
            ["undo"],
            {"history": HISTORY[:1], "rollout": STAND},
            "revision 9f8e7d6c is still on its way: take it back with `kubectl rr rollout abort d",
        ),
        (["undo"], {"history": [], "revision": None}, "nothing has served yet"),
        (
            ["undo", "--to", "aaaa0009"],
            {},
            "aaaa0009 is not kept to go back to; kept are: aaaa0000",
        ),
        (["undo"], {"specHash": None}, "the operator is too old to go back"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    arguments: list[str], status: Json, message: str, rr: Any, api: Any
) -> None:
    api.world = {"rerankerservices": [_service("Stable", "False", **status)]}
    done = rr("rollout", *arguments[:1], "demo", *arguments[1:], api=api)
    assert (done.code, done.out, api.patches) == (1, "", [])
    assert message in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["promote", "demo", "--to", "x"], "--to is not for promote"),
        (["abort", "demo", "--watch"], "--watch is not for abort"),
        (["destroy", "demo"], "invalid choice: 'destroy'"),
        (["status"], "the following arguments are required: NAME"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, rr: Any) -> None:
    done = rr("rollout", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_the_status_tells_phase_share_and_gates(rr: Any, api: Any) -> None:
    api.world = {"rerankerservices": [_service(rollout=STAND)]}
    done = rr("rollout", "status", "demo", api=api)
    assert done.code == 1
    assert done.out == (
        "demo: revision aaaa0001 serves\n"
        "  Canary: revision 9f8e7d6c, 25 % of the requests by the number of pods\n"
        "  spec: image gateway: a → b\n"
        "    ready      Passed   1 of 1 pods are ready\n"
        "    errorRate  Waiting  0.0 % of 7 requests failed\n"
        "Proving: it is Proving\n"
    )
    api.world = {"rerankerservices": [_service("Stable", "False")]}
    done = rr("rollout", "status", "demo", api=api)
    assert (done.code, done.out) == (0, "demo: revision aaaa0001 serves\n")


def test_nothing_serves_while_the_first_revision_is_built(rr: Any, api: Any) -> None:
    api.world = {"rerankerservices": [_service("Stable", "False", revision=None)]}
    assert rr("rollout", "status", "demo", api=api).out == "demo: nothing serves yet\n"


def test_a_refused_spec_is_said_to_be_refused_and_ends_the_watch(rr: Any, api: Any) -> None:
    raw = _service("Stable", "False")
    refused = condition("Accepted", "False", "InvalidSpec", "spec.x must be 1")
    raw["status"]["conditions"].insert(0, refused)
    raw["metadata"]["generation"] = 2
    api.world = {"rerankerservices": [raw]}
    assert outcome(raw) is None, "it was said of an older spec"
    refused["observedGeneration"] = 2
    done = rr("rollout", "status", "demo", "--watch", api=api)
    assert (done.code, done.out) == (
        1,
        "demo: revision aaaa0001 serves\n"
        "The newest spec is refused, InvalidSpec: spec.x must be 1\n",
    )
    # What may come by itself is waited for.
    refused["reason"] = "ReferenceNotFound"
    assert outcome(raw) is not False


def test_the_history_tells_what_is_kept_and_what_was_given_up(rr: Any, api: Any) -> None:
    api.world = {"rerankerservices": [_service("Stable", "False", failed=[FAILED])]}
    done = rr("rollout", "history", "demo", api=api)
    assert done.code == 0
    assert [line.split()[:1] + line.split()[2:3] for line in done.out.splitlines()] == [
        ["REVISION", "STATE"], ["aaaa0001", "serves"], ["aaaa0000", "kept"], ["aaaa0009"],
        ["bad00000", "given"],
    ]  # fmt: skip
    assert "errorRate: 5.0 % of 60 requests failed" in done.out


def test_the_history_begins_with_what_serves_while_it_is_judged(rr: Any, api: Any) -> None:
    stand = STAND | {"revision": "9f8e7d6c", "phase": "Proving", "since": "2026-01-05T13:00:00Z"}
    api.world = {"rerankerservices": [_service(revision="9f8e7d6c", rollout=stand)]}
    lines = rr("rollout", "history", "demo", api=api).out.splitlines()
    assert lines[1].split(maxsplit=3) == [
        "9f8e7d6c", "2026-01-05T13:00:00Z", "serves", "spec: image gateway: a → b",
    ]  # fmt: skip
    assert lines[2].split()[2] == "kept"
    # An undo: what serves has an older entry, too.
    stand |= {"revision": "aaaa0000"}
    api.world = {"rerankerservices": [_service(revision="aaaa0000", rollout=stand)]}
    lines = rr("rollout", "history", "demo", api=api).out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["aaaa0000", "aaaa0001", "aaaa0000"]
    assert [line.split()[2] for line in lines[1:4]] == ["serves", "kept", "kept"]


def test_a_first_revision_starts_before_it_serves(rr: Any, api: Any) -> None:
    raw = _service("Starting", history=[])
    api.world = {"rerankerservices": [raw]}
    assert rr("rollout", "status", "demo", api=api).out.startswith("demo: revision aaaa0001 is st")
    assert rr("rollout", "history", "demo", api=api).out == "Nothing has served yet.\n"
    raw["status"]["conditions"].append(condition("Serving", "True", "Available"))
    assert rr("rollout", "status", "demo", api=api).out.startswith("demo: revision aaaa0001 serves")
    assert "aaaa0001" in rr("rollout", "history", "demo", api=api).out


@pytest.mark.parametrize(
    ("reason", "status", "more", "expected"),
    [
        ("Stable", "False", {}, True),
        ("Undone", "False", {}, True),
        ("Stable", "False", {"rollout": STAND}, None),
        ("Proving", "True", {"rollout": STAND}, None),
        ("AwaitingPromotion", "False", {"rollout": STAND}, None),
        ("RolledBack", "False", {"rollout": {"revision": "a", "phase": "Returning"}}, False),
        ("GateFailed", "False", {"rollout": STAND}, False),
        ("Paused", "False", {}, False),
        ("Stable", "False", {"pendingChanges": ["a: b → c"]}, False),
    ],
)
def test_when_a_rollout_has_come_to_its_end(
    reason: str, status: str, more: Json, expected: bool | None
) -> None:
    raw = _service(reason, status, **more)
    assert outcome(raw) is expected
    raw["metadata"]["generation"] = 99
    assert outcome(raw) is None


def test_watching_ends_with_the_rollout_and_bears_an_api_server_that_is_away() -> None:
    def looks() -> Iterator[Json]:
        yield _service(rollout=STAND)
        yield Unusable("gone")
        yield _service("RolledBack", "False")

    answers, pauses = looks(), []

    def look() -> Json:
        answer = next(answers)
        if isinstance(answer, Unusable):
            raise answer
        return answer

    seen = [outcome(raw) for raw in follow(look, pauses.append)]
    assert (seen, len(pauses)) == ([None, None, False], 2)


def test_watching_prints_what_changes(rr: Any, api: Any) -> None:
    api.world = {"rerankerservices": [_service("RolledBack", "False", failed=[FAILED])]}
    done = rr("rollout", "status", "demo", "--watch", api=api)
    assert (done.code, done.out.count("RolledBack: it is RolledBack")) == (1, 1)
