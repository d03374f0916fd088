"""The arithmetic of gates and stages: what is worse fails, what is as good never does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reranker_operator.api.rollout import (
    BlueGreenSpec,
    CanarySpec,
    CanaryStep,
    Compared,
    GatesSpec,
    Measured,
    RolloutSpec,
    ShadowGate,
)
from reranker_operator.core.load import PodLoad, Sample, Shadowed
from reranker_operator.core.rollouts.gates import in_all, judge, lately, shadow, unfinished, waiting
from reranker_operator.core.rollouts.stages import canary_pods, share_of_pods, stages
from reranker_operator.core.rollouts.tally import Tally, begin, compared, go_on

LIMITS = GatesSpec()
NOTHING = Measured()


def _did(requests: float, failed: float = 0, tokens: float = 1e6, cost: float = 1e-4) -> Measured:
    return Measured(requests=requests, failed=failed, tokens=tokens, busy_seconds=tokens * cost)


def _states(new: Measured, former: Measured, limits: GatesSpec = LIMITS) -> tuple[str, str]:
    errors, latency = judge(limits, (new, NOTHING), (former, NOTHING))
    return errors.state, latency.state


@pytest.mark.parametrize(
    ("new", "former", "errors"),
    [
        (_did(0), _did(1000), "NoData"),
        (_did(49), _did(1000), "Waiting"),
        (_did(50), _did(1000), "Passed"),
        (_did(50, 2), _did(1000), "Passed"),
        (_did(50, 3), _did(1000), "Failed"),
        (_did(100, 5), _did(1000), "Failed"),
        (_did(200, 10), _did(1000), "Failed"),
        # As bad as the one before.
        (_did(200, 10), _did(1000, 50), "Passed"),
        (_did(1000, 100), _did(1000, 50), "Failed"),
        # Of few requests, most: nobody waits for more.
        (_did(10, 5, tokens=0), _did(1000), "Failed"),
        (_did(10, 5, tokens=0), _did(10, 5), "Waiting"),
        (_did(4, 4, tokens=0), _did(1000), "Waiting"),
        (_did(100, 100, tokens=0), NOTHING, "Failed"),
    ],
)
def test_errors_are_compared(new: Measured, former: Measured, errors: str) -> None:
    assert _states(new, former)[0] == errors


@pytest.mark.parametrize(
    ("new", "former", "latency"),
    [
        (_did(100, cost=2e-4), _did(100), "Failed"),
        (_did(100, cost=1.5e-4), _did(100), "Passed"),
        (_did(100, cost=1e-5), _did(100), "Passed"),
        (_did(100, tokens=19_999, cost=2e-4), _did(100), "Waiting"),
        (_did(100, cost=2e-4), _did(100, tokens=19_999), "NoData"),
        (_did(100, tokens=0), _did(100), "NoData"),
    ],
)
def test_time_per_token_is_compared(new: Measured, former: Measured, latency: str) -> None:
    assert _states(new, former)[1] == latency


def test_numbers_are_told() -> None:
    errors, latency = judge(LIMITS, (_did(200, 10, cost=3e-4), NOTHING), (_did(900), NOTHING))
    assert errors.message == (
        "5.0 % of 200 requests failed, of the former revision's 0.0 % of 900; 1.0 % more are "
        "allowed"
    )
    assert latency.message == (
        "300.0 µs per token over 1000000 tokens, 3.00 times the former revision's 100.0 µs per "
        "token; 1.5 times is allowed"
    )


def test_what_is_switched_off_never_fails() -> None:
    limits = GatesSpec(max_error_increase=1, max_slowdown=1000)
    assert _states(_did(100, 100, cost=0.05), _did(100), limits) == ("Passed", "Passed")


def test_of_few_requests_lately_all_of_them_count() -> None:
    errors, _ = judge(LIMITS, (_did(3), _did(100, 20)), (_did(3), _did(100)))
    assert errors.state == "Failed"


@pytest.mark.parametrize("before", [45, 5000, 50_000])
@pytest.mark.parametrize(
    ("recent", "state"),
    [((45, 45), "Failed"), ((45, 9), "Failed"), ((9, 5), "Failed"), ((4, 4), ""), ((45, 3), "")],
)
def test_what_fails_lately_is_hidden_by_nothing_before(
    recent: tuple[int, int], state: str, before: int
) -> None:
    total = _did(before + recent[0], recent[1])
    errors, _ = judge(LIMITS, (_did(*recent), total), (_did(3000), NOTHING))
    assert (errors.state == "Failed") == (state == "Failed")


@given(st.integers(50, 2000), st.integers(0, 2000), st.floats(0, 0.2))
def test_a_revision_fails_by_more_than_chance_only(
    requests: int, errors: int, share: float
) -> None:
    failed, limit = min(errors, requests), requests * (share + 0.01)
    state = _states(_did(requests, failed), _did(100_000, 100_000 * share))[0]
    # In between, up to four times the spread, either is right.
    if failed <= limit:
        assert state == "Passed"
    if failed > limit + 4 * limit**0.5 + 2:
        assert state == "Failed"


@given(st.integers(50, 5000), st.integers(0, 5000), st.integers(0, 5000))
def test_more_errors_are_never_better(requests: int, one: int, other: int) -> None:
    few, many = sorted((min(one, requests), min(other, requests)))
    order = ["Passed", "Failed"]
    states = [_states(_did(requests, failed), _did(1000))[0] for failed in (few, many)]
    assert order.index(states[0]) <= order.index(states[1])


def test_numbers_that_cannot_be_reckoned_with_are_none() -> None:
    odd = Measured(requests=100, failed=-1e9, tokens=1e15, busy_seconds=1e-320)
    assert _states(_did(100), odd)[1] == "NoData"
    assert _states(Measured(tokens=9, busy_seconds=31), odd)[1] == "NoData"
    assert _states(Measured(requests=float("nan"), failed=1), NOTHING)[0] != "Failed"


def test_pods_of_a_revision_are_summed_and_what_is_unknown_left_out() -> None:
    def samples(at: float, requests: float) -> Sample:
        return Sample(at, requests=requests, tokens=10 * requests, busy_seconds=requests)

    loads = [
        PodLoad("a", "serving", "new", (samples(0, 5), samples(50, 10), samples(100, 30))),
        PodLoad("b", "serving", "new", (samples(95, 7), samples(100, 8))),
        # A process that began anew, one that was never read, and others.
        PodLoad("c", "serving", "new", (samples(95, 99), samples(100, 2))),
        PodLoad("d", "serving", "new"),
        PodLoad("e", "serving", "old", (samples(95, 0), samples(100, 500))),
        PodLoad("f", "activator", "new", (samples(95, 0), samples(100, 500))),
    ]
    assert lately(loads, "new").requests == 20 + 1
    assert in_all(loads, "new").requests == 30 + 8 + 2


@pytest.mark.parametrize("counter", ["failed", "busy_seconds", "arrived_tokens", "refused"])
def test_a_former_process_that_did_less_but_for_one_counter_is_another_one(counter: str) -> None:
    before = Sample(90.0, requests=40, tokens=100)._replace(**{counter: 90.0})
    began = Sample(95.0, requests=50, tokens=200)
    last = began._replace(at=100.0, requests=110)
    loads = [PodLoad("a", "serving", "old", (before, began, last))]
    found = lately(loads, "old")
    assert (found.requests, found.failed, found.busy_seconds) == (60, 0, 0)
    judge(LIMITS, (_did(1000, 5), NOTHING), (found, NOTHING))


@given(st.integers(1, 1000), st.integers(1, 100), st.booleans())
def test_a_canary_is_never_larger_than_the_service(total: int, weight: int, routed: bool) -> None:
    pods = canary_pods(total, weight, routed=routed)
    assert 1 <= pods <= total
    if routed:
        assert pods * 100 >= total * weight
    elif weight <= 50 and pods > 1:
        # Near the weight, as far as whole pods allow.
        assert abs(share_of_pods(total, pods) - weight) <= 50 / total + 1


@given(
    st.sampled_from(["surge", "noSurge", "canary", "blueGreen"]),
    st.integers(0, 5),
    st.sampled_from([0, 60]),
    st.lists(st.integers(1, 100), min_size=1, max_size=5).map(sorted),
    st.booleans(),
)
def test_every_way_ends_with_all_pods_and_all_the_traffic(
    strategy: str, total: int, bake: int, weights: list[int], routed: bool
) -> None:
    asked = RolloutSpec.model_validate(
        {
            "strategy": strategy,
            "bakeSeconds": bake,
            "canary": CanarySpec(steps=tuple(CanaryStep(weight=entry) for entry in weights)),
            "blueGreen": BlueGreenSpec(preview_seconds=5),
        }
    )
    way = stages(asked, total, routed=routed)
    counts = [stage.count(total) for stage in way]
    assert counts == sorted(counts)
    assert (way[-1].address, counts[-1]) == ("new", total)
    assert [stage.address for stage in way].count("new") == 1
    assert all(stage.seconds >= 0 for stage in way)
    assert way[-1].seconds == (bake if total else 0)


def _compared(pod: str, requests: float, tau: float) -> Compared:
    return Compared(pod=pod, requests=requests, tau=tau)


@pytest.mark.parametrize(
    ("done", "state", "words"),
    [
        ([], "NoData", "no traffic to judge: no scores were compared yet"),
        ([("a", 0, 0)], "NoData", "no traffic to judge"),
        ([("a", 49, 0)], "Waiting", "0.0000 of the scores of 49 requests"),
        ([("a", 25, 20), ("b", 25, 25)], "Failed", "mean Kendall tau 0.9000 of"),
        ([("", 40, 40), ("b", 60, 55)], "Passed", "mean Kendall tau 0.9500 of"),
        # Numbers that can't be.
        ([("a", 100, 101)], "NoData", "make no sense"),
        ([("a", 10, 60)], "NoData", "make no sense"),
    ],
)
def test_compared_scores_are_judged_by_their_mean(
    done: list[tuple[str, float, float]], state: str, words: str
) -> None:
    found = shadow(ShadowGate(), [_compared(*entry) for entry in done])
    assert (found.name, found.state) == ("shadow", state)
    assert words in found.message


@pytest.mark.parametrize(
    ("requests", "failed", "state", "words"),
    [
        (0, 0, "NoData", "no traffic to judge: no scores were compared yet"),
        (0, 1, "Waiting", "1 request could not be compared: the new revision did not answer it"),
        (0, 49, "Waiting", "did not answer them; judged from 50 requests on"),
        (0, 50, "Failed", "50 requests could not be compared: the new revision did not answer"),
        (50, 70, "Passed", "; 70 requests could not be compared"),
    ],
)
def test_who_answers_nothing_does_not_pass(
    requests: float, failed: float, state: str, words: str
) -> None:
    done = [Compared(pod="a", requests=requests, tau=requests, failed=failed)]
    found = shadow(ShadowGate(), done)
    assert (found.state, words in found.message) == (state, True)
    found = shadow(ShadowGate(), done, unread=1)
    assert (found.state == "Waiting") == (state in ("NoData", "Waiting"))
    assert found.message.endswith("the metrics of 1 pod could not be read lately")


@pytest.mark.parametrize(("tau", "state"), [(1.0, "Passed"), (0.0, "NoData")])
def test_no_verdict_comes_after_the_last_comparison(tau: float, state: str) -> None:
    found = shadow(ShadowGate(), [_compared("a", 90, 90 * tau)], over=True)
    assert (found.state, f"tau {tau:.4f}" in found.message) == (state, True)
    assert ("no longer judged" in found.message) == (state == "NoData")


def test_pods_that_say_nothing_are_not_pods_without_traffic() -> None:
    found = shadow(ShadowGate(), [], unread=2)
    words = "the metrics of 2 pods could not be read lately"
    assert (found.state, found.message) == ("Waiting", words)
    found = shadow(ShadowGate(), [_compared("a", 90, 90)], unread=1)
    assert (found.state, found.message.split("; ")[2]) == (
        "Passed", "the metrics of 1 pod could not be read lately",
    )  # fmt: skip
    found = shadow(ShadowGate(), [_compared("a", 90, 0)], takes_part=False)
    assert (found.state, "from the next change on" in found.message) == ("NoData", True)


def test_only_pods_of_the_former_revision_tell_of_the_new_one() -> None:
    told = Sample(9.0, shadowed=(Shadowed("new", 3, 2.5), Shadowed("other", 9, 9)))
    loads = (
        PodLoad("a", "serving", "old", (Sample(5.0), told)),
        PodLoad("b", "serving", "old"),
        PodLoad("c", "serving", "older", (told,)),
    )
    assert compared(loads, "old", "new") == (_compared("a", 3, 2.5),)
    assert compared(loads, "older", "new") == (_compared("c", 3, 2.5),)
    quiet = (PodLoad("d", "serving", "old", (Sample(5.0, unanswered=3.0),)),)
    assert compared(quiet, "old", "new") == (Compared(pod="d", failed=3),)


def test_what_was_not_answered_is_counted_alike() -> None:
    def look(known: Tally, failed: float) -> Tally:
        return go_on(known, [Compared(pod="a", failed=failed)], {"a"})

    found = look(look(begin(Tally(), [Compared(pod="a", failed=7)]), 9), 1)
    assert (found.counted[0].failed, go_on(found, [], ()).counted[0].failed) == (3, 3)


def _went_on(known: Tally, *looks: list[tuple[str, float, float]]) -> tuple[float, float]:
    """Requests and tau after these looks, each at all pods that are there."""
    for look in looks:
        read = [_compared(*entry) for entry in look]
        known = go_on(known, read, {entry.pod for entry in read})
    counted = known.counted
    return sum(entry.requests for entry in counted), sum(entry.tau for entry in counted)


KNOWN = begin(Tally(), [_compared("a", 100, -40), _compared("b", 0, 0)])


@pytest.mark.parametrize(
    ("looks", "total"),
    [
        ([[("a", 200, 60), ("b", 5, 5)]], (105, 105)),
        ([[("a", 100, -40), ("b", 0, 0)]], (0, 0)),
        # A pod began anew, once and again, or had nothing more to tell.
        ([[("a", 160, 20)], [("a", 10, 10)], [("a", 90, 80)], [("a", 4, -4)]], (154, 136)),
        ([[("a", 160, 20)], [("a", 0, 0)], [("a", 0, 0)]], (60, 60)),
        # One went, and another came.
        ([[("a", 160, 20), ("b", 5, 5)], [("a", 170, 30)], [("c", 7, 7)]], (75, 75)),
        ([[("c", 7, 7)], [("c", 9, 8)], []], (2, 1)),
    ],
)
def test_what_was_compared_is_counted_once_and_kept(
    looks: list[list[tuple[str, float, float]]], total: tuple[float, float]
) -> None:
    assert _went_on(KNOWN, *looks) == pytest.approx(total)


def test_pods_that_can_not_be_read_keep_what_is_known_of_them() -> None:
    found = begin(KNOWN._replace(counted=(_compared("a", 3, 3),)), [_compared("b", 9, 9)])
    assert found == ((_compared("a", 100, -40), _compared("b", 9, 9)), ())
    found = go_on(KNOWN, [_compared("a", 110, -30)], {"a", "b"})
    assert found == (KNOWN.before, (_compared("a", 10, 10),))
    assert go_on(found, [], {"a", "b"}) == found


def test_pods_that_are_remembered_are_few() -> None:
    many = [_compared(f"pod-{number}", number, 0) for number in range(300)]
    assert len(begin(Tally(), many).before) == 100
    names = {entry.pod for entry in many}
    found = go_on(go_on(Tally(), many, names), many, names)
    assert (len(found.before), len(go_on(found, many, names).counted)) == (100, 0)
    assert go_on(found, [], ()) == ((), ())


#: Takes 2 s for the tokens that a verdict takes.
FORMER = _did(1000)


def _worked(seconds: float, tokens: float, requests: float = 0) -> Measured:
    return Measured(requests=requests, tokens=tokens, busy_seconds=seconds)


@pytest.mark.parametrize(
    ("seconds", "tokens", "former", "latency"),
    [
        (40, 0, FORMER, "Failed"),
        (40, 1200, FORMER, "Failed"),
        (40, 19_999, FORMER, "Failed"),
        # Not yet, or as slow as the former one.
        (29, 0, FORMER, "NoData"),
        (40, 1200, _did(1000, cost=3e-2), "Waiting"),
        (40, 0, _did(1000, cost=3e-2), "NoData"),
        # Of a former one that was hardly asked, or never.
        (40, 0, _did(3, tokens=500), "Failed"),
        (40, 0, NOTHING, "NoData"),
        (50, 0, NOTHING, "Failed"),
        (50, 600, NOTHING, "NoData"),
    ],
)
def test_who_finishes_nothing_fails(
    seconds: float, tokens: float, former: Measured, latency: str
) -> None:
    new = _worked(seconds, tokens)
    assert _states(new, former)[1] == latency
    # However much it did before.
    _, gate = judge(LIMITS, (new, _did(10**6)), (former, NOTHING))
    assert (gate.state == "Failed") == (latency == "Failed")


def test_who_hangs_is_told_by_numbers() -> None:
    gate = judge(LIMITS, (_worked(40, 1200), NOTHING), (FORMER, NOTHING))[1]
    assert gate.message == (
        "finished 1200 tokens in 40 s of work; the former revision needs 2 s for 20000, and 1.5 "
        "times is allowed"
    )


def test_where_very_many_tokens_are_asked_for_who_is_far_off_fails_before() -> None:
    limits = GatesSpec(min_tokens=10**9)
    assert _states(_worked(50, 1000), FORMER, limits)[1] == "Failed"
    assert _states(_worked(50, 400_000), FORMER, limits)[1] != "Failed"


@pytest.mark.parametrize(
    ("new", "waits", "words"),
    [
        (_worked(0, 0), (0, 0), None),
        (
            _worked(9, 0),
            (400, 1),
            "finished 0 tokens in 9 s of work; the former revision needs 2 s",
        ),
        (_worked(9, 90), (0, 0), "finished 90 tokens in 9 s of work"),
        (_worked(0.5, 5000), (400, 1), None),
        (_worked(0.5, 5000), (16_000, 8), "finished 5000 tokens, and 16000 more wait"),
        (_worked(0, 0, 9), (0, 41), "answered 9 requests, and 41 more wait"),
        # Enough to be judged by what it did.
        (_worked(9, 20_000, 50), (10**6, 500), None),
    ],
)
def test_what_is_asked_for_and_not_done_is_no_proof(
    new: Measured, waits: tuple[float, float], words: str | None
) -> None:
    found = unfinished(LIMITS, (new, new), (FORMER, NOTHING), waits)
    assert found == words if words is None else found and words in found
    gate = judge(LIMITS, (new, new), (FORMER, NOTHING), left=found)[1]
    assert (gate.state, gate.message) == ("Waiting", found) if found and new.requests < 50 else True


def test_what_waits_is_of_pods_that_were_read_lately() -> None:
    def load(pod: str, revision: str, at: float) -> PodLoad:
        return PodLoad(pod, "serving", revision, (Sample(at, backlog_tokens=7, in_progress=2),))

    loads = [load("a", "new", 95), load("b", "new", 60), load("c", "old", 95)]
    assert waiting(loads, "new", 100) == (7, 2)
