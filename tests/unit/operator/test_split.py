"""Dividing pods between revisions: whatever happens, never too many, and always to an end."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from reranker_operator.core.split import Held, split

COUNTS = st.integers(0, 6)
SIDES = st.builds(Held, COUNTS, COUNTS)


@given(COUNTS, SIDES, SIDES, st.booleans())
def test_old_and_new_are_never_given_more_than_there_is(
    total: int, old: Held, new: Held, ready: bool
) -> None:
    to_old, to_new = split(total, old, new, new_is_ready=ready)
    assert to_old >= 0
    assert to_new >= 0
    assert to_old + to_new <= total
    # Somebody gets another pod only where all those that are going have left room for it.
    if to_old > old.asked or to_new > new.asked:
        given_up = max(0, old.asked - to_old) + max(0, new.asked - to_new)
        assert to_old + to_new + old.going + new.going + given_up <= total


@given(COUNTS, COUNTS, st.data())
def test_the_old_side_gives_one_up_only_while_the_new_one_is_ready(
    total: int, taken: int, data: st.DataObject
) -> None:
    new = Held(min(taken, total))
    old = Held(total - new.asked)
    assert split(total, old, new, new_is_ready=False) == (old.asked, new.asked)
    to_old, to_new = split(total, old, new, new_is_ready=True)
    assert (to_old, to_new) == (max(0, old.asked - 1), new.asked)
    # Nor a second one, until the new side has used the first.
    going = Held(to_old, data.draw(st.integers(0, 1)))
    for_old, _ = split(total, going, new, new_is_ready=True)
    assert for_old == to_old


@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.booleans()), max_size=30),
)
def test_every_handover_ends_at_any_pace(total: int, story: list[tuple[int, bool, bool]]) -> None:
    """Totals change, readiness comes and goes, drained pods leave late; then all goes well."""
    old, new = Held(total), Held(0)

    def step(*, ready: bool) -> None:
        nonlocal old, new
        to_old, to_new = split(total, old, new, new_is_ready=ready)
        old = Held(to_old, old.going + max(0, old.asked - to_old))
        new = Held(to_new, new.going + max(0, new.asked - to_new))

    for number, ready, gone in story:
        total = number
        step(ready=ready)
        if gone:
            old, new = replace(old, going=0), replace(new, going=0)
    for _ in range(4 * 6 + 4):
        old, new = replace(old, going=0), replace(new, going=0)
        step(ready=True)
        assert old.asked + new.asked >= total - 1 or new.going
    assert (old.asked, new.asked) == (0, total)
