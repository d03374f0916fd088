"""The decision about the number of pods: what must hold whatever is seen and remembered."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reranker_operator.api.autoscaling import AutoscalingSpec, AutoscalingStatus
from reranker_operator.core.autoscale.decide import Decision, Outcome, decide
from reranker_operator.core.autoscale.measure import PodView, Seen, see
from reranker_operator.core.autoscale.memory import Memory, Need
from reranker_operator.core.autoscale.observe import Outlook
from reranker_operator.core.autoscale.record import memory_of, status_of
from reranker_operator.core.load import PodLoad, Sample

NOW = 1_800_000_000.0
SPEED = 1000.0
#: What a pod should have to do, of 1,000 tokens per second.
FULL = 700.0


def rules(**spec: Any) -> AutoscalingSpec:
    return AutoscalingSpec.model_validate({"max": 20} | spec)


def steady(pods: int, load: float, **more: Any) -> Seen:
    """All pods are ready, known and have been for long."""
    found = {
        "now": NOW, "ready": pods, "arriving": load, "arriving_mean": load, "held": 0,
        "settled": 600.0, "quiet": load == 0, "speed": SPEED, "speed_at_all": SPEED,
        "start_seconds": 20.0, "revision": "r1", "at_work": 0.9,
    }  # fmt: skip
    return Seen(**(found | more))


def knowing(pods: int, **more: Any) -> Memory:
    found = {
        "desired": pods, "speed": SPEED, "measured_on": "r1", "start_seconds": 20.0,
        "changed": NOW - 3600,
    }  # fmt: skip
    return Memory(**(found | more))


#: A machine that does much else at the same time is no defect.
PATIENT = settings(deadline=None)
SECONDS = st.integers(0, 4000).map(float)
TIMES = st.one_of(st.none(), SECONDS.map(lambda ago: NOW - ago))
RATES = st.one_of(st.none(), st.floats(0, 50_000))
COUNTS = st.integers(0, 12)


@st.composite
def all_rules(draw: st.DrawFn) -> AutoscalingSpec:
    least = draw(st.integers(0, 6))
    return rules(
        min=least,
        max=draw(st.integers(max(1, least), 25)),
        targetBacklogSeconds=draw(st.floats(0.1, 60)),
        targetUtilizationPercent=draw(st.integers(10, 95)),
        scaleDownDelaySeconds=draw(st.sampled_from([0, 30, 300])),
        idleSeconds=draw(st.sampled_from([60, 600])),
        scaleUpLimitPercent=draw(st.sampled_from([10, 100, 900])),
        scaleDownLimitPercent=draw(st.sampled_from([1, 50, 100])),
    )


@st.composite
def all_sights(draw: st.DrawFn) -> Seen:
    ready = draw(COUNTS)
    return Seen(
        now=NOW,
        ready=ready,
        unknown=draw(st.integers(0, ready)),
        unread=draw(st.integers(0, ready)),
        unready=draw(COUNTS),
        stuck=draw(COUNTS),
        pending=draw(st.integers(0, 3)),
        pending_since=draw(TIMES),
        busy=draw(st.integers(0, ready)),
        arriving=draw(RATES),
        arriving_mean=draw(RATES),
        backlog=draw(st.floats(0, 1e6)),
        held=draw(st.one_of(st.none(), st.integers(0, 100))),
        unheard=draw(st.one_of(st.none(), SECONDS)),
        at_work=draw(st.one_of(st.none(), st.floats(0, 1))),
        queue_seconds=draw(st.one_of(st.none(), st.floats(0, 60))),
        refused=draw(st.one_of(st.none(), st.floats(0, 1))),
        speed=draw(st.one_of(st.none(), st.floats(1, 5000))),
        speed_saturated=draw(st.one_of(st.none(), st.floats(1, 5000))),
        speed_at_all=draw(st.one_of(st.none(), st.floats(1, 5000))),
        speed_own=draw(st.one_of(st.none(), st.floats(1, 5000))),
        speed_proven=draw(st.one_of(st.none(), st.floats(1, 5000))),
        busy_proven=draw(st.floats(0.7, 1)),
        rate_proven=draw(st.floats(0, 5000)),
        start_seconds=draw(st.one_of(st.none(), SECONDS)),
        settled=draw(SECONDS),
        quiet=draw(st.sampled_from([None, True, False])),
        rolling=draw(st.booleans()),
        revision=draw(st.sampled_from([None, "r1", "r2"])),
    )


@st.composite
def all_memories(draw: st.DrawFn) -> Memory:
    desired = draw(st.one_of(st.none(), st.integers(0, 30)))
    if desired is None:
        return Memory()
    needs = sorted(draw(st.sets(st.integers(1, 30), max_size=4)), reverse=True)
    moments = sorted(draw(st.lists(SECONDS, min_size=len(needs), max_size=len(needs))))
    return Memory(
        desired=desired,
        speed=draw(st.one_of(st.none(), st.floats(1, 5000))),
        measured_on=draw(st.sampled_from([None, "r1"])),
        start_seconds=draw(st.one_of(st.none(), st.floats(0, 600))),
        changed=draw(TIMES),
        period_from=draw(st.one_of(st.none(), st.integers(0, 30))),
        period=draw(TIMES),
        blind_since=draw(TIMES),
        recent=tuple(
            Need(need, NOW - ago) for need, ago in zip(needs, reversed(moments), strict=True)
        ),
        idle_since=draw(TIMES),
    )


@PATIENT
@given(all_rules(), all_sights(), all_memories())
def test_the_bounds_are_never_broken(spec: AutoscalingSpec, seen: Seen, memory: Memory) -> None:
    decision = decide(spec, seen, memory)
    assert spec.min <= decision.desired <= spec.max
    assert decision.why


@PATIENT
@given(all_rules(), all_sights(), all_memories(), st.floats(1, 100), st.floats(1, 100))
def test_more_load_never_means_fewer_pods(
    spec: AutoscalingSpec, seen: Seen, memory: Memory, more: float, waiting: float
) -> None:
    # What is measured of the pods is the same in both, and so is whether they are at work.
    seen = replace(seen, quiet=False if seen.quiet else seen.quiet)
    louder = replace(
        seen,
        arriving=None if seen.arriving is None else seen.arriving * more,
        arriving_mean=None if seen.arriving_mean is None else seen.arriving_mean * more,
        backlog=seen.backlog * waiting,
    )
    assert decide(spec, louder, memory).desired >= decide(spec, seen, memory).desired


@PATIENT
@given(all_rules(), all_sights(), all_memories())
def test_waits_and_refusals_never_ask_for_fewer_pods(
    spec: AutoscalingSpec, seen: Seen, memory: Memory
) -> None:
    calm = replace(seen, queue_seconds=0.0, refused=0.0)
    for pressed in (
        replace(calm, queue_seconds=100.0),
        replace(calm, refused=0.5),
        replace(calm, queue_seconds=100.0, refused=1.0),
    ):
        assert decide(spec, pressed, memory).desired >= decide(spec, calm, memory).desired


@PATIENT
@given(all_rules(), all_sights(), all_memories())
def test_nothing_is_taken_that_is_unknown_or_has_yet_to_start(
    spec: AutoscalingSpec, seen: Seen, memory: Memory
) -> None:
    current = min(max(1 if memory.desired is None else memory.desired, spec.min), spec.max)
    blocked = seen.unknown or seen.unready or seen.rolling or seen.ready + seen.stuck == 0
    desired = decide(spec, seen, memory).desired
    if blocked:
        assert desired >= current
    # A pod that has more to do than it can do in a second is left alone, unless `max` says so.
    assert desired >= min(current, seen.busy)


@PATIENT
@given(all_rules(), all_sights(), all_memories())
def test_while_no_node_has_room_nothing_more_is_asked_for(
    spec: AutoscalingSpec, seen: Seen, memory: Memory
) -> None:
    short = replace(seen, pending=1, pending_since=NOW - 61)
    current = min(max(1 if memory.desired is None else memory.desired, spec.min), spec.max)
    if current > 0:
        assert decide(spec, short, memory).desired <= current


@PATIENT
@given(all_rules(), st.lists(all_sights(), min_size=1, max_size=8))
def test_a_restart_between_two_decisions_changes_nothing(
    spec: AutoscalingSpec, sights: list[Seen]
) -> None:
    """One process remembers, the other one reads the status that the former one has written."""
    kept: Memory = Memory()
    written: AutoscalingStatus | None = None
    for number, sight in enumerate(sights):
        seen = replace(sight, now=NOW + 2 * number)
        on, again = decide(spec, seen, kept), decide(spec, seen, memory_of(written))
        assert (on.desired, on.outcome) == (again.desired, again.outcome)
        kept = on.memory if on.tells else kept
        status = status_of(again, written)
        written = AutoscalingStatus.model_validate(json.loads(json.dumps(status.to_dict())))
        assert memory_of(written) == kept


def play(
    spec: AutoscalingSpec,
    loads: list[float],
    *,
    begin: int = 1,
    start: int = 20,
    status: AutoscalingStatus | None = None,
    **more: Any,
) -> tuple[list[int], AutoscalingStatus]:
    """Two seconds for each load; pods get ready after `start` seconds, and nothing waits."""
    pods = [0.0] * begin
    numbers: list[int] = []
    for step, load in enumerate(loads):
        now = NOW + 2 * step
        pods = pods + [now] * (begin - len(pods)) if step == 0 else pods
        ready = [made for made in pods if now - made >= start]
        seen = steady(
            len(ready), load, now=now, unready=len(pods) - len(ready),
            settled=min((now - made - start for made in ready), default=math.inf), **more,
        )  # fmt: skip
        if not ready:
            seen = replace(seen, arriving=None, arriving_mean=None, quiet=None)
        status = status_of(decide(spec, seen, memory_of(status), begin=begin), status)
        number = status.desired
        pods = [*pods, *[now] * (number - len(pods))][:number]
        numbers.append(number)
    assert status is not None
    return numbers, status


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 15_000), st.integers(1, 20), st.sampled_from([0, 60, 300]))
def test_a_constant_load_brings_the_number_to_rest(load: float, begin: int, delay: int) -> None:
    numbers, _ = play(rules(scaleDownDelaySeconds=delay), [load] * 900, begin=begin)
    changes = [
        number for number, before in zip(numbers[1:], numbers, strict=False) if number != before
    ]
    assert changes in (sorted(changes), sorted(changes, reverse=True))
    assert len(set(numbers[-300:])) == 1
    need = min(20, max(1, math.ceil(load / FULL - 1e-9)))
    # Fewer are only taken where the rest has a little more room than it needs.
    assert need <= numbers[-1] <= max(need, math.ceil(load / FULL / 0.9))


@settings(max_examples=15, deadline=None)
@given(all_rules(), all_memories(), st.booleans())
def test_every_state_has_a_way_out(spec: AutoscalingSpec, memory: Memory, fills: bool) -> None:
    """However it got there: without load it comes down, with much load it goes up."""
    memory = replace(
        memory, speed=SPEED, measured_on="r1", start_seconds=20.0,
        desired=min(max(memory.desired or 1, 1, spec.min), spec.max),
    )  # fmt: skip
    before = status_of(Decision(memory, Outcome.LOAD_MATCHED, "before", steady(1, 0.0)), None)
    spec = spec.model_copy(update={"scale_down_limit_percent": 50})
    loads = [1e6 if fills else 0.0] * 1000
    numbers, _ = play(spec, loads, begin=memory.desired or 1, status=before)
    assert numbers[-1] == (spec.max if fills else spec.min)


def test_the_formula() -> None:
    for arriving, backlog, pods in [
        (0, 0, 1), (FULL, 0, 1), (FULL + 1, 0, 2), (5 * FULL, 0, 5), (FULL, 20 * FULL, 2),
        # What the pods that are there do until another one could be ready is not asked for.
        (0, 20_000, 1),
    ]:  # fmt: skip
        seen = steady(1, arriving, backlog=float(backlog))
        assert decide(rules(), seen, knowing(1)).desired == pods, (arriving, backlog)


def test_a_pod_without_news_is_just_right() -> None:
    """Whether the others have its share is not known: it never multiplies what they tell of."""
    for unknown, desired in [(0, 10), (3, 13), (5, 15), (8, 18), (9, 19)]:
        # All of the load comes to the known ones.
        seen = steady(10, 7000.0, unknown=unknown)
        assert decide(rules(max=200), seen, knowing(10)).desired == desired
        # They have their part of it.
        part = steady(10, 700.0 * (10 - unknown), unknown=unknown)
        assert decide(rules(max=200), part, knowing(10)).desired == 10
    why = decide(rules(max=200), steady(10, 7000.0, unknown=3), knowing(10)).why
    assert why.endswith("70 % count; 3 more can't be read and count as just right")
    # Pods beyond the number, in a rollout for instance, bring none with their silence.
    for blank in (steady(4, 0.0, unknown=4), steady(4, 2100.0, unknown=1)):
        assert decide(rules(), blank, knowing(3)).desired == 3


def test_it_is_told_why() -> None:
    decision = decide(rules(), steady(1, 4000.0), knowing(1))
    assert (decision.desired, decision.outcome) == (6, Outcome.SCALING_OUT)
    assert decision.why == (
        "4,000 tokens/s arrive, and a pod does 1,000 tokens/s, of which 70 % count"
    )
    most = decide(rules(max=3), steady(3, 4000.0), knowing(3))
    assert (most.desired, most.outcome) == (3, Outcome.AT_MAXIMUM)
    assert most.why.endswith("that takes 6 pods, and spec.autoscaling.max is lower")


def test_ten_times_the_load_is_answered_at_once() -> None:
    numbers, _ = play(rules(), [600.0] * 100 + [6000.0] * 10)
    assert numbers[99:101] == [1, 9]


def test_the_limits_of_a_minute() -> None:
    spec = rules(max=100, scaleUpLimitPercent=50)
    numbers, _ = play(spec, [1e6] * 200, begin=10)
    assert [numbers[0], numbers[29], numbers[30], numbers[60]] == [15, 15, 22, 33]
    spec = rules(max=100, scaleDownDelaySeconds=0, scaleDownLimitPercent=10)
    numbers, _ = play(spec, [0.0] * 400, begin=20)
    falls = [at for at in range(1, 400) if numbers[at] != numbers[at - 1]]
    assert all(after - before >= 30 for before, after in pairwise(falls))
    assert all(numbers[at - 1] - numbers[at] <= 2 for at in falls)


def test_pods_go_when_fewer_were_enough_for_the_delay() -> None:
    numbers, _ = play(rules(), [3500.0] * 60 + [600.0] * 400, begin=5)
    assert set(numbers[:60]) == {5}
    gone = next(at for at, number in enumerate(numbers) if number < 5)
    assert 60 + 150 <= gone <= 60 + 152
    # A short peak in between begins the delay anew.
    peaks = [3500.0] * 60 + [600.0] * 140 + [3500.0] * 4 + [600.0] * 140
    assert set(play(rules(), peaks, begin=5)[0]) == {5}


def test_a_number_that_was_acted_upon_and_not_written_down_stays() -> None:
    started = steady(5, 0.0, unknown=5, unread=5, arriving=None, arriving_mean=None, quiet=None)
    for acted_upon, desired in [(5, 5), (1, 1), (40, 20)]:
        assert decide(rules(), started, knowing(1), given=acted_upon).desired == desired
    # Who has read the pods knows better.
    assert decide(rules(), steady(5, 500.0), knowing(1), given=5).desired == 1
    status = status_of(decide(rules(), started, knowing(1), given=5), None)
    assert memory_of(status).desired == 5


def test_what_is_needed_is_remembered_also_while_a_pod_cannot_be_read() -> None:
    decision = decide(rules(), steady(5, 1.5 * SPEED, unknown=1), knowing(5))
    assert decision.desired == 5
    assert decision.memory.recent == (Need(5, NOW), Need(4, NOW))


def test_pods_that_were_not_asked_yet_are_no_trouble() -> None:
    blank = {"arriving": None, "arriving_mean": None, "quiet": None}
    for unread, outcome in [(2, Outcome.MEASURING), (1, Outcome.METRICS_UNAVAILABLE)]:
        seen = steady(2, 0.0, unknown=2, unread=unread, **blank)
        assert decide(rules(), seen, Memory(), begin=2).outcome is outcome


def test_from_nothing_to_one_and_back() -> None:
    spec = rules(min=0)
    asleep = steady(0, 0.0, speed=None, speed_at_all=None, arriving=None)
    memory = knowing(0)
    assert decide(spec, asleep, memory).outcome is Outcome.SCALED_TO_ZERO
    woken = decide(spec, replace(asleep, held=3, quiet=False), memory)
    assert (woken.desired, woken.outcome) == (1, Outcome.SCALING_OUT)
    # Whoever waited has given up, and the pod is not there for minutes: it stays.
    waits = replace(asleep, unready=1, pending=1, pending_since=NOW - 600)
    for later in range(0, 1500, 100):
        still = decide(spec, replace(waits, now=NOW + later), woken.memory)
        assert still.desired == 1
    # Nobody can see whether requests are held.
    for silent, desired in [(None, 0), (30.0, 0), (61.0, 1)]:
        blind = replace(asleep, held=None, unheard=silent)
        assert decide(spec, blind, memory).desired == desired
    # The same where no process has seen it since it began, however often it begins anew.
    status = status_of(decide(spec, asleep, memory), None)
    for later, desired in [(0, 0), (40, 0), (61, 1)]:
        blind = replace(asleep, now=NOW + later, held=None, unheard=None)
        status = status_of(decide(spec, blind, memory_of(status)), status)
        assert status.desired == desired
    status = status_of(decide(spec, asleep, replace(memory, blind_since=NOW - 50)), status)
    assert (status.desired, status.blind_since) == (0, None)
    numbers, status = play(spec, [500.0] * 30 + [0.0] * 600)
    asleep_at = numbers.index(0)
    assert 30 + 270 <= asleep_at <= 30 + 301
    assert set(numbers[asleep_at:]) == {0}
    assert status.reason == "ScaledToZero"


def test_nothing_is_idle_where_nobody_would_hold_the_next_request() -> None:
    numbers, _ = play(rules(min=0), [0.0] * 900, held=None)
    assert set(numbers) == {1}


def test_one_of_two_activators_that_is_blind_wakes_and_keeps_awake() -> None:
    spec, pods = rules(min=0, idleSeconds=60), [PodView("p", True, NOW - 9000, NOW - 8980)]

    def loads(now: float) -> list[PodLoad]:
        ages = range(60, -1, -2)
        blind = PodLoad("a", "activator", None, (Sample(NOW - 30),), 5)
        other = PodLoad("b", "activator", None, tuple(Sample(now - ago) for ago in ages))
        idle = tuple(Sample(now - ago, tokens_per_second=SPEED) for ago in ages)
        return [blind, other, PodLoad("p", "serving", "r1", idle)]

    def desired(memory: Memory, pods: list[PodView], now: float) -> int:
        return decide(spec, see(pods, loads(now), now, start_timeout=1800), memory).desired

    assert desired(knowing(1, idle_since=NOW - 700), pods, NOW) == 1
    # From the last word on, a minute.
    assert [desired(knowing(0), [], NOW + late) for late in (0, 29, 30)] == [0, 0, 1]


def test_much_that_is_held_wakes_more_than_one() -> None:
    held = Seen(now=NOW, held=50, backlog=200_000.0)
    assert decide(rules(min=0, max=100), held, knowing(0)).desired == 10
    held = replace(held, backlog=60_000.0)
    assert decide(rules(min=0), held, knowing(0)).desired == 5
    # And what goes on coming while nothing is ready does not add up.
    still = replace(held, backlog=2_000_000.0, unready=5, held=500)
    assert decide(rules(min=0), still, knowing(5)).desired == 5


def wake(rate: float, *, known: float, takes: int) -> list[int]:
    """Numbers every half second until a pod is ready, while `rate` tokens/s come and are held."""
    memory, numbers = knowing(0, start_seconds=known, changed=NOW - 900, period=NOW - 900), []
    for step in range(1, 2 * takes):
        since = step / 2
        held = Seen(now=NOW + since, held=int(1 + since), backlog=rate * min(since, 120.0))
        held = replace(held, unready=memory.desired or 0)
        memory = decide(rules(min=0, max=100), held, memory).memory
        numbers.append(memory.desired or 0)
    return numbers


def test_what_is_held_wakes_as_many_as_keep_up_with_it() -> None:
    # All at once, of which the first look sees but the beginning.
    first = decide(rules(min=0), Seen(now=NOW, held=1, backlog=100.0), knowing(0))
    assert first.desired == 1
    more = Seen(now=NOW + 1, held=64, backlog=60_000.0, unready=1)
    assert decide(rules(min=0), more, first.memory).desired == 5
    # One after the other: never more than what comes needs, however long the start takes.
    for known, takes in [(20.0, 20), (20.0, 180), (5.0, 180), (0.0, 60)]:
        numbers = wake(3 * FULL, known=known, takes=takes)
        assert (numbers[0], max(numbers)) == (1, 3), (known, takes)
    assert wake(30 * FULL, known=10.0, takes=30)[-1] == 10, "the limit of a minute"
    # It is not known what a pod can do, or how much is held.
    assert decide(rules(min=0), more, replace(first.memory, speed=None)).desired == 1
    assert decide(rules(min=0), replace(more, backlog=0.0), first.memory).desired == 1


def test_a_pod_that_never_gets_ready_does_not_keep_the_number_up() -> None:
    idle = {"ready": 1, "held": 0, "quiet": True, "arriving": 0.0, "arriving_mean": 0.0}
    starting = Seen(now=NOW, unready=1, speed_at_all=SPEED, **idle)
    memory = knowing(2, recent=(Need(2, NOW - 900), Need(1, NOW - 900)))
    assert decide(rules(), starting, memory).desired == 2
    assert decide(rules(), replace(starting, unready=0, stuck=1), memory).desired == 1
    # Nor one that is not even made.
    missing = replace(starting, unready=0)
    assert decide(rules(), missing, replace(memory, changed=NOW - 100)).desired == 2
    assert decide(rules(), missing, replace(memory, changed=NOW - 1900)).desired == 1


def test_speed_is_learned_from_pods_that_have_enough_to_do() -> None:
    memory = knowing(4)
    for seen, speed in [
        ({"speed": 500.0, "speed_at_all": 500.0}, 1000.0),
        ({"speed": 1050.0}, 1000.0),
        ({"speed": 1500.0}, 1500.0),
        ({"speed": 500.0, "speed_saturated": 500.0}, 500.0),
    ]:
        assert decide(rules(), steady(4, 2000.0, **seen), memory).memory.speed == speed, seen


def test_a_new_revision_has_the_speed_of_the_former_one_until_it_was_measured() -> None:
    slow = {"speed": 500.0, "speed_saturated": 500.0, "speed_at_all": 500.0, "revision": "r2"}
    for seen, speed, revision in [
        ({"speed_own": 500.0}, 1000.0, "r1"),
        # By small batches, as long as it has less to do than the former one had.
        ({"speed_own": 500.0, "speed_proven": 600.0, "rate_proven": 490.0}, 1000.0, "r1"),
        ({"speed_own": 590.0, "speed_proven": 600.0, "rate_proven": 510.0}, 600.0, "r2"),
        # What it tells still has small batches in it.
        ({"speed_own": 500.0, "speed_proven": 600.0, "rate_proven": 510.0}, 1000.0, "r1"),
        # It can't do more, with ever so little to do.
        ({"speed_own": 500.0, "speed_proven": 100.0, "busy_proven": 1.0}, 100.0, "r2"),
        ({"speed_own": 990.0, "speed_proven": 1050.0, "rate_proven": 700.0}, 1000.0, "r2"),
        # More than it seems to do, it could do at any time.
        ({"speed_own": 1500.0}, 1500.0, "r2"),
        ({"speed": 1500.0}, 1000.0, "r1"),
    ]:
        after = decide(rules(), steady(4, 2000.0, **(slow | seen)), knowing(4)).memory
        assert (after.speed, after.measured_on) == (speed, revision), seen
    first = decide(rules(), steady(4, 2000.0, **slow), Memory(desired=4)).memory
    assert (first.speed, first.measured_on) == (500.0, "r2")


@pytest.mark.parametrize("before", [0.1, 0.25])
def test_the_end_of_a_canary_on_a_gpu_is_no_jump(before: float) -> None:
    """A GPU does five times as much in full batches as in the small ones of a canary's share."""
    full, small, load, number = 30_000.0, 6_000.0, 60_000.0, 3
    memory = Memory(desired=number, speed=full, measured_on="r1", start_seconds=60.0)
    pods = [PodView(f"p{i}", True, NOW - 400, NOW - 340) for i in range(number)]
    samples: list[Sample] = []
    arrived = busy = 0.0
    tokens, seconds = small * 20, 20.0
    desired = []
    for at in range(-60, 121, 2):
        each = load / number * (before if at < 0 else 1.0)
        rate = small if at < 0 else full * (each / full) ** 0.25
        work = 2 * min(1.0, each / rate)
        # As the gateway tells it: a mean over some twenty busy seconds.
        fades = 0.5 ** (work / 20)
        tokens, seconds = tokens * fades + 2 * each, seconds * fades + work
        arrived, busy = arrived + 2 * each, busy + work
        sample = Sample(
            NOW + at, tokens_per_second=tokens / seconds, arrived_tokens=arrived, tokens=arrived,
            busy_seconds=busy, requests=arrived / 2000,
        )  # fmt: skip
        samples = [*samples, sample][-33:]
        if at < 0:
            continue
        loads = [PodLoad(pod.name, "serving", "r2", tuple(samples)) for pod in pods]
        seen = see(pods, loads, NOW + at, start_timeout=1800, revision="r2")
        memory = decide(rules(max=40), seen, memory).memory
        desired.append(memory.desired)
    # One more is right: nearly full batches are a little slower than full ones.
    assert set(desired) <= {3, 4}
    assert memory.measured_on == "r2"


def test_a_start_that_nobody_can_vouch_for_is_forgotten() -> None:
    poisoned = knowing(1, start_seconds=7200.0)
    waits = steady(1, 600.0, backlog=40_000.0)
    assert decide(rules(), waits, poisoned).memory.start_seconds == 20.0
    healed = decide(rules(), replace(waits, start_seconds=None), poisoned)
    assert healed.memory.start_seconds is None
    assert healed.desired > 1
    # While there is no pod, nobody could say better.
    asleep = replace(waits, ready=0, start_seconds=None)
    assert decide(rules(), asleep, knowing(1)).memory.start_seconds == 20.0


def test_without_a_known_speed_waits_alone_ask_for_more() -> None:
    blank = steady(2, 50_000.0, speed=None, speed_at_all=None)
    memory = knowing(2, speed=None)
    assert decide(rules(), blank, memory).desired == 2
    assert decide(rules(), replace(blank, queue_seconds=5.0), memory).desired == 3
    assert decide(rules(), replace(blank, refused=0.02), memory).desired == 3
    # A large request waits for itself.
    idle = replace(blank, queue_seconds=5.0, refused=0.02, at_work=0.3)
    assert decide(rules(), idle, memory).desired == 2
    # What was added last must have had the time to help.
    fresh = replace(blank, queue_seconds=5.0, settled=5.0)
    assert decide(rules(), fresh, memory).desired == 2


def test_a_steady_service_writes_nothing() -> None:
    spec, written = rules(), 0
    _, status = play(spec, [1234.0] * 60, begin=2)
    for step in range(300):
        noise = 1 + 0.2 * math.sin(step)
        seen = steady(
            2, 1234.0, now=NOW + 120 + 2 * step, arriving=1234.0 * noise * 0.9,
            arriving_mean=1234.0 * (1 + 0.1 * math.cos(step)), backlog=400.0 * (step % 3),
            queue_seconds=0.1 * (step % 4), speed=SPEED * (1 + 0.05 * math.sin(step / 9)),
        )  # fmt: skip
        after = status_of(decide(spec, seen, memory_of(status)), status)
        written += after is not status
        status = after
    assert written == 0


def test_a_process_that_has_just_begun_leaves_what_is_written() -> None:
    _, status = play(rules(min=0), [900.0] * 200, begin=2)
    later = NOW + 500
    for blank in (
        Seen(now=later, ready=2, unknown=2, unread=2),
        Seen(now=later, ready=2, unknown=1, unread=1, held=0),
        Seen(now=later, ready=2, held=0, backlog=100.0),
    ):
        assert status_of(decide(rules(min=0), blank, memory_of(status)), status) is status


def test_times_of_the_future_count_as_now() -> None:
    """The clock was put back by an hour, or the former leader's was ahead by as much."""
    late = {"changed": NOW + 3600, "period": NOW + 3600, "period_from": 1}
    memory = knowing(1, **late, recent=(Need(1, NOW + 3600),))
    status = status_of(Decision(memory, Outcome.LOAD_MATCHED, "before", steady(1, 0.0)), None)
    numbers, _ = play(rules(max=40), [20_000.0] * 120, status=status)
    assert (numbers[0], numbers[-1]) == (10, 29)
    # Nor does it keep pods: those that are too many go when the delay is over, from now on.
    memory = knowing(9, **late, recent=(Need(9, NOW + 3600), Need(2, NOW + 3600)))
    status = status_of(Decision(memory, Outcome.LOAD_MATCHED, "before", steady(9, 0.0)), None)
    numbers, _ = play(rules(), [1000.0] * 400, begin=9, status=status)
    assert (numbers[0], numbers[-1]) == (9, 2)
    # And it goes to sleep, or wakes, as if that had begun now.
    seen = steady(1, 0.0, quiet=True)
    idle = decide(rules(min=0), seen, knowing(1, idle_since=NOW + 3600)).memory.idle_since
    assert idle == NOW
    blind = decide(rules(min=0), steady(0, 0.0, held=None), knowing(0, blind_since=NOW + 3600))
    assert blind.memory.blind_since == NOW


def test_numbers_that_cannot_be_reckoned_with_are_unknown() -> None:
    pod = PodView("a", ready=True, created=0.0, since=10.0)
    found = Outlook(rules(max=9), None, 3, 3, (pod,), rolling=False, revision="r")
    samples = tuple(
        Sample(at, tokens_per_second=1e-310, arrived_tokens=1e14 * at, busy_seconds=at)
        for at in range(940, 1001)
    )
    assert found.decide([PodLoad("a", "serving", "r", samples)], 1000.0).desired == 3
    held = (PodLoad("b", "activator", None, (Sample(999.0, in_progress=math.inf),)),)
    assert found.decide(held, 1000.0).desired == 3
