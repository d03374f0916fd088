"""The rules by which conditions change, and which changes people hear of."""

import datetime

import pytest

from reranker_operator.api.conditions import (
    Condition,
    ConditionType,
    Reason,
    changes_worth_telling,
    condition,
    merge,
    summarise,
)

ORDER = (ConditionType.ACCEPTED, ConditionType.ENGINE_READY, ConditionType.SERVING)
BUILT = condition(ConditionType.ENGINE_READY, True, Reason.BUILT, "built")
KILLED = condition(ConditionType.ENGINE_READY, False, Reason.POD_KILLED, "killed")
LATER = datetime.timedelta(minutes=1)


def test_the_transition_time_moves_only_on_a_flip(now: datetime.datetime) -> None:
    (first,) = merge([], [KILLED], 1, now)
    other = condition(ConditionType.ENGINE_READY, False, Reason.OUT_OF_MEMORY, "more")
    (same,) = merge([first], [other], 2, now + LATER)
    (flipped,) = merge([same], [BUILT], 2, now + 2 * LATER)
    assert (same.reason, same.message, same.observed_generation) == ("OutOfMemory", "more", 2)
    assert same.last_transition_time == first.last_transition_time == now
    assert flipped.last_transition_time == now + 2 * LATER


def test_conditions_no_longer_judged_go_away(now: datetime.datetime) -> None:
    stale = merge([], [condition(ConditionType.PROGRESSING, False, Reason.FORBIDDEN, "no")], 1, now)
    assert [entry.type for entry in merge(stale, [BUILT], 1, now)] == ["EngineReady"]


ACCEPTED = condition(ConditionType.ACCEPTED, True, Reason.ACCEPTED, "")
SERVING = condition(ConditionType.SERVING, True, Reason.AVAILABLE, "")
STARTING = condition(ConditionType.SERVING, False, Reason.STARTING, "0 of 1")


@pytest.mark.parametrize(
    ("judgements", "expected"),
    [
        ([ACCEPTED, BUILT, SERVING], ("True", "Ready")),
        ([SERVING, ACCEPTED, BUILT], ("True", "Ready")),
        ([ACCEPTED, KILLED, STARTING], ("False", "PodKilled")),
        ([ACCEPTED, BUILT, STARTING], ("False", "Starting")),
        ([ACCEPTED, BUILT], ("Unknown", "Pending")),
        ([], ("Unknown", "Pending")),
    ],
)
def test_ready_is_the_first_in_order_that_is_not_true(
    judgements: list[Condition], expected: tuple[str, str]
) -> None:
    ready = summarise(judgements, ORDER)
    assert (ready.status, ready.reason) == expected


def test_what_can_never_be_served_is_said_while_it_is_built() -> None:
    nowhere = condition(ConditionType.SERVING, False, Reason.NO_MATCHING_NODE, "add a node")
    waiting = condition(ConditionType.ENGINE_READY, "Unknown", Reason.BUILDING, "building")
    ready = summarise([ACCEPTED, waiting, nowhere], ORDER)
    assert (ready.status, ready.reason, ready.message) == ("False", "NoMatchingNode", "add a node")
    assert summarise([ACCEPTED, KILLED, nowhere], ORDER).reason == "PodKilled"


WAITING = condition(ConditionType.ENGINE_READY, "Unknown", Reason.BUILDING, "")
READY = condition(ConditionType.READY, True, Reason.READY, "")
NOT_READY = condition(ConditionType.READY, False, Reason.POD_KILLED, "")
ROLLING = condition(ConditionType.PROGRESSING, True, Reason.ROLLING, "")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ([], [BUILT], True),
        ([WAITING], [KILLED], True),
        ([KILLED], [BUILT], True),
        ([BUILT], [BUILT.model_copy(update={"message": "other words"})], False),
        ([BUILT], [WAITING], False),
        ([], [STARTING], False),
        ([], [ROLLING], False),
        ([], [READY], True),
        # Its cause is told by another condition, or by none.
        ([READY, KILLED], [NOT_READY, KILLED], False),
        ([READY], [NOT_READY], True),
    ],
)
def test_events_are_for_news(before: list[Condition], after: list[Condition], told: bool) -> None:
    assert bool(changes_worth_telling(before, after)) is told
